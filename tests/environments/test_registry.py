"""Environments by name: those that are built in, and one that is added from outside in under 40 lines."""

from __future__ import annotations

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.environments import environment_of
from mcts_dpo.environments.base import EnvironmentSettings
from mcts_dpo.environments.none import NoneSettings
from mcts_dpo.environments.registry import register_environment
from mcts_dpo.search import SearchSettings


def test_nothing_replies_by_default() -> None:
    assert environment_of(SearchSettings().environment) is None


def test_an_unknown_environment_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"environment: 'nome' is not one of the choices; did you mean 'none'\?"):
        load_settings(SearchSettings, None, ["environment=nome"])


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match=r"the environment 'none' is registered already"):
        register_environment(type("Other", (NoneSettings,), {"__module__": "elsewhere"}), lambda settings: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match=r"EnvironmentSettings.kind: needs a default"):
        register_environment(EnvironmentSettings, lambda settings: None)  # type: ignore[arg-type,return-value]
