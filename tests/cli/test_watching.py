"""What every command shows of its progress on a terminal, nothing of it elsewhere, and what it prints for machines."""

from __future__ import annotations

import io
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import typer
from rich.console import Console

from mcts_dpo.cli import app as commands
from mcts_dpo.cli import judging, training
from mcts_dpo.cli import show as viewing
from mcts_dpo.cli.app import app
from mcts_dpo.toy import demo as demonstration
from tests.cli.test_app import Cli, cli, config  # noqa: F401  fixtures
from tests.conftest import ToyWorld

LINES: tuple[tuple[str, str], ...] = (
    # command line; the stages that a watcher sees, in order
    ("problems {train}", "load, check"),
    ("prompts -c {config}", "load tokenizer"),
    ("search -c {config} -o {out}/trees search.simulations=2", "load model, search"),
    ("pairs {out}/trees -o {out}/data --set preferences.min_gap=0.1", "pairs"),
    ("rejudge {out}/trees -o {out}/again --set search.accumulate=sum", "rejudge"),
    ("judge-eval {out}/trees -p {train} -c {config} -m {model} --set search.rewards=[self_evaluation]", "judge"),
    ("train -c {config} -d {out}/data/pairs.parquet -o {out}/policy training.data.max_updates=2", "load policy, train"),
    ("eval -c {config}", "load model, evaluate"),
    ("eval -c {config} --strategy majority,mcts --budget 64", "load model, majority 64: solve, mcts 64: verified"),
    ("solve {question} -c {config} --budget 64", "load model, solve"),
    ("run -c {config} -o {out}/run rounds=1 problems_per_round=8", "start, evaluate, round 1: search, round 1: train"),
    ("report {out}/run", "plots, figures, trees"),
    ("tree {out}/run", "read trees"),
    ("doctor -c {config}", "look around"),
    ("recipes", ""),
    ("settings", ""),
    ("demo --out {out}/demo", "start, evaluate, round 1: search, round 1: train, figures"),
)
FIGURES = {"search": ("tok/s", "solved"), "eval": ("tok/s", "accuracy"), "train": ("tok/s",)}
ELSEWHERE = {"serve", "lm-eval"}
"""Their own pages of tests have them: tests/integrations."""


def test_every_command_speaks_to_watchers_and_machines(
    cli: Cli,  # noqa: F811
    config: Path,  # noqa: F811
    toy_world: ToyWorld,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each command twice: watched, with nothing but JSON on stdout; then piped, with nothing on stderr."""
    # The demonstration itself, with a policy that is there already and few problems.
    monkeypatch.setattr(
        demonstration, "demo", partial(demonstration.demo, rounds=1, problems_per_round=20, test_problems=24)
    )
    names = {"config": config, "train": toy_world.config.train.source, "question": "Q", "model": str(toy_world.policy)}
    seen: set[str] = set()
    for line, stages in LINES:
        for watched in (True, False):
            out = tmp_path / ("watched" if watched else "piped")
            if line.startswith("demo"):
                shutil.copytree(toy_world.policy, out / "demo" / "start")
            words = [word.format(out=out, **names).replace("Q", toy_world.test[0].question) for word in line.split()]
            stream = io.StringIO()
            console = Console(file=stream, force_terminal=watched, width=200)
            for module in (commands, judging, training, viewing):
                monkeypatch.setattr(module, "err_console", console)
            code, printed, err = cli(*words, "--json")
            assert (code, err) == (0, ""), line
            json.loads(printed)
            shown = stream.getvalue()
            if not watched:
                assert shown == "", line
                continue
            places = [shown.find(stage) for stage in stages.split(", ")] if stages else []
            assert -1 not in places, (line, stages, shown[-2000:])
            assert all(figure in shown for figure in FIGURES.get(words[0], ())), (line, shown[-2000:])
        seen.add(line.split()[0])
    assert set(typer.main.get_command(app).commands) - seen == ELSEWHERE  # type: ignore[attr-defined]
