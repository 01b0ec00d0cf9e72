"""The attack benchmark's parts that need no server, in a small size."""

from __future__ import annotations

import importlib

import pytest

from benchmarks.attack import PARTS
from benchmarks.attack_files import attack


@pytest.mark.parametrize("name", PARTS)
def test_every_part_can_be_loaded(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.attack_{name}").main)


def test_nothing_that_is_changed_in_a_file_goes_unnoticed() -> None:
    figures = attack(seconds=9.0)
    assert figures["journals"] > 0
    assert figures["shards"] > 0
    assert [figures[name] for name in ("wrong_results", "hangs", "crashes")] == [0, 0, 0]
