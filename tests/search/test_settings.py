"""The settings of a search: what they accept, and what reading them needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.search import SearchSettings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("expnd=step", "expnd: unknown setting; did you mean 'expand'?"),
        ("expand=steps", "'steps' is not one of the choices; did you mean 'step'?"),
        ("top_p=0", "top_p: 0.* is out of range .accepted: a number > 0"),
        ("children=0", r"children: 0 is neither an integer ≥ 1 nor a list of one or more such integers$"),
        ("children=[]", r"children: \[\] is neither an integer ≥ 1 nor a list"),
        ("children=[4,0]", r"children: \[4, 0\] is neither an integer ≥ 1 nor a list"),
        ("children=many", "children: 'many' is not accepted .accepted: an integer ≥ 1 or a list of them"),
        ("merge=words", "'words' is not one of the choices"),
        ("gamma=1.5", "gamma: 1.5 is out of range"),
        ("max_step_tokens=900", "max_step_tokens 900 exceeds max_tokens 256"),
    ],
)
def test_settings_say_what_they_accept(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_settings(SearchSettings, None, [override])


def test_settings_as_trees_store_them_are_accepted() -> None:
    given = load_settings(SearchSettings, None, ["max_tokens=24"])
    assert load_settings(SearchSettings, given.model_dump(mode="json"), []) == given


def test_children_by_depth() -> None:
    settings = load_settings(SearchSettings, None, ["children=[8, 2, 4]"])
    assert [settings.children_at(depth) for depth in range(5)] == [8, 2, 4, 4, 4]
    assert settings.most_children == 8
    assert SearchSettings(children=3).children_at(9) == 3


def test_settings_from_overrides() -> None:
    settings = load_settings(SearchSettings, None, ["budget=5000", "max_tokens=32"])
    assert (settings.budget, settings.max_step_tokens) == (5000, 64)


def test_the_search_needs_neither_torch_nor_transformers() -> None:
    program = "import mcts_dpo.search, sys; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
