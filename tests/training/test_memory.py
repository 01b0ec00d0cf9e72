"""Memory that really runs out: a child process under a limit on its address space."""

from __future__ import annotations

import json
import multiprocessing
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from mcts_dpo.common.errors import InputError
from mcts_dpo.training import TrainingSettings, train
from mcts_dpo.training.memory import out_of_memory
from tests.training.world import digest_of, pairs_of, random_rows, tiny_policy

children = multiprocessing.get_context("forkserver")
children.set_forkserver_preload(["tests.training.test_memory"])


def used() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def long_rows(n: int, length: int) -> list[Any]:
    return [(prompt, [], [5] * length, [6] * length) for prompt, _, _, _ in random_rows(n)]


def _child(policy: Path, out: Path, rows: int, length: int, room: int, settings: TrainingSettings) -> None:
    torch.set_num_threads(1)
    table = pairs_of(
        [(prompt, [], [5] * length, [6] * length) for prompt, _, _, _ in random_rows(rows)], digest_of(policy)
    )
    train(policy, pairs_of(random_rows(2), digest_of(policy)), out.parent / "warm", TrainingSettings())
    resource.setrlimit(resource.RLIMIT_AS, (used() + room, resource.RLIM_INFINITY))
    try:
        summary: dict[str, Any] = train(policy, table, out, settings, log=out.parent / "log").as_dict()
    except InputError as error:
        summary = {"error": str(error)}
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (out.parent / "summary.json").write_text(json.dumps(summary))


def limited(tmp_path: Path, rows: int, length: int, room: int, settings: TrainingSettings) -> dict[str, Any]:
    policy = tiny_policy(tmp_path / "policy", max_position_embeddings=8192, intermediate_size=2048)
    arguments = (policy, tmp_path / "out", rows, length, room, settings)
    process = children.Process(target=_child, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0
    found: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())
    return found


def test_a_budget_that_does_not_fit_is_halved_and_the_training_goes_on(tmp_path: Path) -> None:
    settings = TrainingSettings(
        optimiser={"lr": 1e-5}, data={"batch_size": 16, "max_batch_tokens": 1 << 16, "max_updates": 2, "epochs": 2}
    )
    summary = limited(tmp_path, 16, 100, 64 << 20, settings)
    assert "error" not in summary
    assert summary["updates"] == 2
    assert "memory did not suffice for 65536 tokens at once; continuing with " in summary["notes"][0]
    # What is learned is the same as with memory enough, up to rounding.
    policy = tmp_path / "policy"
    plain = train(policy, pairs_of(long_rows(16, 100), digest_of(policy)), tmp_path / "plain", settings)
    assert plain.notes == ()
    for name in ("loss", "nll", "preference_loss", "chosen_logprob"):
        assert summary["last"][name] == pytest.approx(plain.last[name], rel=1e-3)


def test_a_row_that_does_not_fit_by_itself_is_an_error_that_says_what_would_help(tmp_path: Path) -> None:
    settings = TrainingSettings(data={"batch_size": 2, "max_updates": 1})
    summary = limited(tmp_path, 2, 4000, 48 << 20, settings)
    assert "memory does not suffice for one row alone, of 400" in summary["error"]
    assert "gradient_checkpointing" in summary["error"]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.unfinished").exists()


def test_other_failures_are_not_taken_for_memory() -> None:
    assert not out_of_memory(RuntimeError("size mismatch"))
    assert not out_of_memory(ValueError("out of memory"))
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
