"""Two processes under `torchrun` must train the policy that one process trains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mcts_dpo.cli.app import main
from mcts_dpo.models.loading import load_model
from tests.training.world import digest_of, pairs_of, random_rows, tiny_policy

# Two epochs of three updates; of a single row, six of one.
COMMON = [
    "training.optimiser.lr=1e-3",
    "training.data.batch_size=3",
    "training.data.epochs=2",
    "training.data.max_batch_tokens=40",
]
KINDS = {
    "full": [],
    "lora": ["training.lora.rank=3"],
    "full, in shards": ["training.sharding=true"],
    "lora, in shards": ["training.sharding=true", "training.lora.rank=3"],
    "bf16 lora, in shards": ["training.sharding=true", "training.lora.rank=3", "training.dtype=bfloat16"],
    "untied, recomputed, in shards": ["training.sharding=true", "training.gradient_checkpointing=true"],
    "one row": ["training.data.epochs=6"],
    "one row, in shards": ["training.data.epochs=6", "training.sharding=true"],
    "resumed, in shards": ["training.sharding=true"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind, the policy that two processes trained together."""
    folder = tmp_path_factory.mktemp("two")
    commands: list[Any] = []
    for kind, options in KINDS.items():
        policy = tiny_policy(folder / kind / "start", tied="untied" not in kind)
        pairs = folder / kind / "pairs.parquet"
        # Of a single row the second process has none: its gradients are the other's. In shards it computes what the
        # other does, and that must not count.
        pairs_of(random_rows(1 if kind.startswith("one row") else 9), digest_of(policy)).save(pairs)
        out = folder / kind / "two"
        commands.append(["train", "-m", str(policy), "-d", str(pairs), "-o", str(out), *COMMON, *options])
    # The last of them begins with the checkpoint that another attempt left, whose evaluation failed after 5 updates.
    broken = {
        "optimiser": {"lr": 1e-3},
        "data": {"batch_size": 3, "epochs": 2, "max_batch_tokens": 40},
        "checkpoint": {"updates": 2},
    }
    where = {"policy": commands[-1][2], "data": commands[-1][4], "out": commands[-1][6]}
    commands.insert(-1, {"updates": 5, "settings": {**broken, "sharding": True}, **where})
    (folder / "commands.json").write_text(json.dumps(commands))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = ["-m", "tests.training.launched", str(folder / "commands.json")]
    done = subprocess.run([sys.executable, *launcher, *script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder


def alone(monkeypatch: pytest.MonkeyPatch, folder: Path, options: list[str]) -> Path:
    arguments = ["train", "-m", folder / "start", "-d", folder / "pairs.parquet", "-o", folder / "one"]
    monkeypatch.setattr(sys, "argv", ["mcts-dpo", *map(str, arguments), *COMMON, *options])
    with pytest.raises(SystemExit, match="0"):
        main()
    return folder / "one"


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(trained: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained / kind
    options = [option for option in KINDS[kind] if "sharding" not in option]
    one, two = alone(monkeypatch, folder, options), folder / "two"
    tolerance = 1e-6 if "bf16" not in kind else 2e-3
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    ours, theirs = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    start = load_file(folder / "start" / "model.safetensors")
    assert ours.keys() == theirs.keys() == start.keys()
    for name, weight in ours.items():
        assert (weight - theirs[name]).abs().max() < tolerance
    assert max((ours[name] - start[name]).abs().max() for name in start) > 1e-3, "something was learned"
    a, b = (json.loads((path / "training.json").read_text())["summary"] for path in (one, two))
    counts = ("rows", "updates", "tokens", "reference_tokens", "scored_tokens", "parameters")
    assert {name: a[name] for name in counts} == {name: b[name] for name in counts}
    rough = 1e-5 if "bf16" not in kind else 2e-2
    assert a["first"] == pytest.approx(b["first"], rel=rough, abs=rough)
    assert a["last"] == pytest.approx(b["last"], rel=rough, abs=rough)
    assert b["first"]["margin"] == 0.0
    # A plain directory, whatever it was trained in.
    ids = torch.tensor([[3, 9, 4]])
    plain = AutoModelForCausalLM.from_pretrained(two)
    assert torch.equal(plain(input_ids=ids).logits, load_model(two, "float32")(input_ids=ids).logits)


def test_one_process_prints_and_writes(trained: Path) -> None:
    printed = (trained / "stdout").read_text()
    assert printed.count(": 6 updates") == len(KINDS), "the summary is printed once per command"
    for kind in KINDS:
        names = {path.name for path in (trained / kind).iterdir()} - {"two.tensorboard"}
        assert names >= {"pairs.parquet", "start", "two", "two.training.jsonl"}
        assert not any("unfinished" in name or "partial" in name for name in names)
        assert len((trained / kind / "two.training.jsonl").read_text().splitlines()) == 6
