"""The scale benchmark in small: its trees pass for a search's, it continues where it was, and memory does not grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale
from mcts_dpo.report import find_trees, list_trees
from tests.conftest import ToyWorld


def test_it_measures_each_command_once_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, int]] = []
    truly = scale.measure

    def measure(arguments: list[str], trees: int) -> dict[str, float]:
        ran.append((arguments[0], trees))
        if len(ran) == 3:
            raise KeyboardInterrupt
        return truly(arguments, trees)

    monkeypatch.setattr(scale, "measure", measure)
    monkeypatch.setattr(scale, "SHARD", 10)
    results: dict[str, Any] = {}
    with pytest.raises(KeyboardInterrupt):
        scale.scale(tmp_path, 50, results)
    assert ran == [("pairs", 5), ("report", 5), ("tree", 5)]
    scale.scale(tmp_path, 50, results)
    assert ran[3:6] == [("tree", 5), ("rejudge", 5), ("pairs", 50)]
    assert ran[6:] == [("report", 50), ("tree", 50), ("rejudge", 50)]
    for name in ("pairs", "report", "tree", "rejudge"):
        assert results[name]["50"]["seconds_per_10000"] > 0
        assert results[name]["50"]["peak_mib"] > 50
        assert "mib_per_10000" in results[name]
    with pytest.raises(RuntimeError, match="no tree files"):
        truly(["pairs", str(tmp_path / "small"), "-o", str(tmp_path / "out")], 5)


def test_searched_trees_judged_again_are_identical(toy_world: ToyWorld, tmp_path: Path) -> None:
    (tmp_path / "policy").symlink_to(toy_world.policy)
    found = scale.searched(tmp_path, 6)
    assert found["identical"]
    assert found["nodes"] > 6
    assert found["rejudge"]["cpu_seconds_per_10000"] > 0


def test_its_trees_are_sound() -> None:
    forest = scale.synthetic_forest(3, trees=4)
    assert [len(nodes) for nodes in forest.nodes_by_tree()] == [scale.NODES] * 4
    assert all(forest.nodes(tree).tolist() == nodes.tolist() for tree, nodes in enumerate(forest.nodes_by_tree()))
    assert forest == scale.synthetic_forest(3, trees=4)


def test_what_is_read_of_many_files_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One forest is alive at a time, whatever is looked for; of the files without the problem none is read."""
    import gc

    from mcts_dpo.search import Forest

    monkeypatch.setattr(scale, "SHARD", 5)
    run = scale.make_run(tmp_path, 40)
    loaded: list[str] = []
    truly = Forest.load

    def load(path: Path) -> Forest:
        gc.collect()
        alive = sum(isinstance(thing, Forest) for thing in gc.get_objects())
        assert alive <= 1, "the forest before is in use at most"
        loaded.append(path.name)
        return truly(path)

    monkeypatch.setattr(Forest, "load", staticmethod(load))
    assert sum(1 for _ in find_trees(run, None)) == 40
    assert len(loaded) == 8
    loaded.clear()
    assert [(Path(where).name, index) for where, _, index in find_trees(run, "problem-17")] == [
        ("shard-0003.parquet", 2)
    ]
    assert loaded == ["shard-0003.parquet"]
    loaded.clear()
    assert [nodes for _, _, nodes in list_trees(run)] == [scale.NODES] * 40
    assert not loaded
