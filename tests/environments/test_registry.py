"""Environments by name: the only one answers nothing."""

from __future__ import annotations

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.environments import environment_named
from mcts_dpo.search import SearchSettings


def test_none_is_the_only_environment() -> None:
    assert environment_named(SearchSettings().environment) is None
    with pytest.raises(InputError, match=r"environment: 'nome' is not one of the choices; did you mean 'none'\?"):
        load_settings(SearchSettings, None, ["environment=nome"])
