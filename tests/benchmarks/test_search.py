"""The search's benchmark: the three trees do the same work, and the table says which bars are met."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import search, search_driver, search_kernels
from mcts_dpo.search import kernels


def test_the_forest_is_sound_and_the_python_tree_does_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_kernels, "SECONDS", 0.0)
    forest = search_kernels.grown(128)
    assert len(forest) == 128 * search_kernels.NODES
    assert (forest.virtual == 0).all()
    assert (np.bincount(forest.tree) == search_kernels.NODES).all()
    inner = forest.first_child >= 0
    assert (forest.parent[forest.first_child[inner]] == np.flatnonzero(inner)).all()
    saved = search_kernels.values_of(forest)
    _, selected, visits = search_kernels.measure_python(forest, 128, repeats=1)
    leaves = kernels.select(forest, np.arange(128), np.ones(128, np.int64), kernels.PUCT, search_kernels.C)[:, 0]
    assert selected == leaves.tolist()
    kernels.back_up(forest, leaves, kernels.MEAN, 1.0)
    kernels.release(forest, leaves, expanded=False)
    order, local = search_kernels.by_tree(forest)
    assert visits == forest.visits[order].ravel().tolist()
    assert (order[forest.tree, local] == np.arange(len(forest))).all()
    search_kernels.restore(forest, saved)
    seconds = search_kernels.measure_ours(forest, 128, repeats=1)
    assert min(seconds.values()) > 0
    assert (forest.visits == saved["visits"]).all()


def test_the_driver_is_measured_on_an_engine_that_answers_at_once() -> None:
    figures = search_driver.run(4)
    assert figures["expansions"] == 4 * search_driver.SIMULATIONS
    assert figures["nodes"] > figures["expansions"]
    assert 20 < figures["tokens_per_step"] < 40
    assert figures["driver_tokens_per_s"] > figures["driver_expansions_per_s"] > 0


def test_the_table_says_which_bars_are_met() -> None:
    loop = {"name": "x", "seconds": 10.0, "expansions": 100, "tokens": 4000}
    peers = {"llm-reasoners": loop | {"expansions": 10}, "mcts-dpo-loop": loop | {"expansions": 5}}
    pace = {"selection": 1e-6, "backup": 5e-7, "backup_paper": 6e-7}
    parts = {
        "search": loop | {"ceiling_share": 0.9, "bookkeeping_share": 0.01},
        "peers": peers,
        "kernels": {
            "trees": 64,
            "nodes_per_tree": 512,
            "seconds_per": {"ours": pace, "python": pace},
            "curve": {"64": pace, "4": pace},
            "kernel_speedup_vs_python": 21.0,
            "kernel_speedup_vs_mctx": 0.5,
            "bytes_per_node": 119,
        },
    }
    driver = {"driver_tokens_per_s": 120_000.0, "driver_expansions_per_s": 1_100.0}
    figures = search.summarise(parts["search"], peers, parts["kernels"], driver)  # type: ignore[arg-type]
    assert figures["speedup_vs_llm_reasoners"] == pytest.approx(10)
    assert figures["speedup_vs_mcts_dpo_loop"] == pytest.approx(20)
    lines = search.tables(figures, parts).splitlines()
    met = {line.split(" | ")[0].strip("| "): line.rstrip(" |").rpartition("| ")[2] for line in lines[-9:]}
    assert {name for name, said in met.items() if said == "**no**"} == {"ceiling_share"}
    assert {name for name, said in met.items() if said == "yes"} == {
        *("bookkeeping_share", "speedup_vs_mcts_dpo_loop", "speedup_vs_llm_reasoners", "kernel_speedup_vs_python"),
        *driver,
    }
