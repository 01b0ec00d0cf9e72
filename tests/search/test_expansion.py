"""How samples become steps: prior mass and texts."""

from __future__ import annotations

import pytest

from mcts_dpo.search.expansion import merge_key, prior_mass, step_texts
from tests.reference.engine import TOKENIZER


def test_prior_mass() -> None:
    assert prior_mass(-2.0, 4, 0.0) == pytest.approx(0.1353352832)  # e^-2
    assert prior_mass(-2.0, 4, 0.5) == pytest.approx(0.3678794412)  # e^-1


@pytest.mark.parametrize(
    ("merge", "one", "other", "same"),
    [
        ("whitespace", "x  = 2\n", " x = 2", True),
        ("whitespace", "x = 2.", "x = 2", False),
        ("whitespace", "So x = 2", "so x = 2", False),
        ("loose", "So x = 2. ", "so  x = 2\n", True),
        ("loose", r"2\,000\quad m", "2 000 m", True),
        ("loose", r"\quadratic", " ratic", False),
        ("loose", "x = .5", "x = 5", False),
        ("loose", "x = -2", "x = 2", False),
        ("loose", "5!", "5", False),
    ],
)
def test_what_merges(merge: str, one: str, other: str, same: bool) -> None:
    assert (merge_key(one, (1,), merge) == merge_key(other, (2, 3), merge)) == same
    assert merge_key(one, (1,), "none") != merge_key(other, (2, 3), "none")
    assert merge_key(one, (1,), "none") == merge_key(other, (1,), "none")


def test_the_text_of_a_step_is_what_it_adds() -> None:
    ids = TOKENIZER("ab\n#### 1\nb", add_special_tokens=False)["input_ids"]
    assert step_texts(ids[:1], ids[1:], [2, 5, 7], TOKENIZER) == ["b\n", "#### 1", "\nb"]
