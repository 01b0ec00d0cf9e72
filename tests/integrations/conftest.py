"""One server for the tests that need a real process and no setting of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import ToyWorld
from tests.integrations.serving import Served, process


@pytest.fixture(scope="session")
def server(toy_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`mcts-dpo serve` with the toy policy, which answers by tree search within 200 tokens."""
    with process(toy_world.policy, tmp_path_factory.mktemp("server"), "--budget", "200") as served:
        yield served
