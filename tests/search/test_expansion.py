"""How samples become steps: prior mass and texts."""

from __future__ import annotations

import pytest

from mcts_dpo.search.expansion import prior_mass, step_texts
from tests.reference.engine import TOKENIZER


def test_prior_mass() -> None:
    assert prior_mass(-2.0, 4, 0.0) == pytest.approx(0.1353352832)  # e^-2
    assert prior_mass(-2.0, 4, 0.5) == pytest.approx(0.3678794412)  # e^-1


def test_the_text_of_a_step_is_what_it_adds() -> None:
    ids = TOKENIZER("ab\n#### 1\nb", add_special_tokens=False)["input_ids"]
    assert step_texts(ids[:1], ids[1:], [2, 5, 7], TOKENIZER) == ["b\n", "#### 1", "\nb"]
