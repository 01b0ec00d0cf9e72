"""What every command says of input that cannot be used: one line that names it, exit code 2, nothing left behind."""

from __future__ import annotations

import fcntl
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from mcts_dpo.cli.app import app
from mcts_dpo.common.settings import dump_settings
from tests.cli.test_app import Cli, cli  # noqa: F401  a fixture
from tests.conftest import ROOT, ToyWorld

GOOD = '{"question": "1+1?", "answer": "2"}\n'
FILES = {
    "good.jsonl": GOOD,
    "bad.jsonl": GOOD + '{"question": \n',
    "bad.parquet": "x",
    "key.yaml": "model: m\nsearch: {childrn: 3}\n",
    "recipe.yaml": "source: s\nreproduces: r\napproximates: []\nsettings: {search: {childrn: 3}}\n",
    "type.yaml": "search: {children: many}\n",
    "broken.yaml": "search:\n  [\n",
    "empty/nothing.txt": "",
    "leaves.py": "raise SystemExit(7)\n",
    "half/config.yaml": "model: m\n",
    "half/metrics.jsonl": '{"round": -1}\n',
    "new/config.yaml": "model: m\n",
    "new/metrics.jsonl": "",
}
SET = "-m /nope -p good.jsonl"
LINES = [
    # command lines as such
    ("serach", "No such command 'serach'. Did you mean 'search'?"),
    ("search --modle x", "No such option: --modle (Possible options: --model)"),
    ("problems", "Missing argument 'source'"),
    ("--with nothing_here problems good.jsonl", "--with 'nothing_here': cannot be imported"),
    ("--with leaves problems good.jsonl", "--with 'leaves': cannot be imported (SystemExit: 7)"),
    # demo
    ("demo --seed x", "Invalid value for '--seed'"),
    ("demo --seed -1", "greater than or equal to 0"),
    ("demo --out good.jsonl", "good.jsonl: a file; accepted: a run directory"),
    # run
    ("run -o out -c missing.yaml", "missing.yaml: no such file"),
    ("run -o out -c key.yaml", "key.yaml: search.childrn: unknown setting; did you mean 'children'?"),
    ("run -o out -c type.yaml", "search.children: 'many' is not accepted (accepted: an integer ≥ 1 or a list of them)"),
    ("run -o out -c broken.yaml", "broken.yaml, line 3: not YAML"),
    ("run -o out nonsense", "override 'nonsense': accepted: NAME=VALUE"),
    ("run -o out model=m train.source=gud.jsonl test.source=good.jsonl", "gud.jsonl: no such file; did you mean"),
    ("run -o out model=/nope train.source=good.jsonl test.source=other.jsonl rounds=1", "other.jsonl: no such file"),
    ("run -o out model=m train.source=good.jsonl test.source=good.jsonl search.seed=3", "set the run's own `seed`"),
    ("run -o out --recipe xie20", "no recipe 'xie20'; did you mean 'xie2024'?"),
    ("run -o out --recipe missing.yaml model=m", "missing.yaml: no such file"),
    ("run -o out --recipe recipe.yaml model=m", "recipe.yaml: settings: RunConfig: search.childrn: unknown setting"),
    (
        "run -o out model=m train.source=good.jsonl test.source=good.jsonl launch.processes=0",
        "launch.processes: 0 is out",
    ),
    (
        "run -o out model=m train.source=good.jsonl test.source=good.jsonl launch.prefix=[srunn]",
        "'srunn' is not a command",
    ),
    ("recipes more", "no recipe 'more'; accepted: "),
    ("recipes ''", "no recipe ''; accepted: "),
    # problems
    ("problems god.jsonl", "god.jsonl: no such file; did you mean 'good.jsonl'?"),
    ("problems bad.jsonl", "bad.jsonl, line 2: not JSON"),
    ("problems bad.parquet", "bad.parquet: not a readable Parquet file"),
    ("problems good.jsonl limt=3", "limt: unknown setting; did you mean 'limit'?"),
    ("problems good.jsonl limit=x", "limit: 'x' is not an integer (accepted: an integer ≥ 1 or null)"),
    ("problems good.jsonl limit=0", "limit: 0 is out of range"),
    ("problems good.jsonl verifier=mth", "verifier: 'mth' is not a verifier; did you mean 'math'?"),
    ("problems good.jsonl split=test", "split: 'test', but a file has no splits"),
    ("problems good.jsonl --against missing.jsonl", "missing.jsonl: no such file"),
    ("problems good.jsonl -o empty", "empty: a folder; accepted: a file"),
    ("problems good.jsonl -o good.jsonl/x.jsonl", "good.jsonl: a file; accepted: a folder"),
    ("problems good.jsonl -o /proc/nowhere/x.jsonl", "/proc/nowhere: no such file or folder"),
    ("problems ''", "problems: source: '' is out of range"),
    # prompts
    (f"prompts {SET}", "/nope: no such model file or directory"),
    ("prompts -p good.jsonl", "no model: give --model"),
    ("prompts -m /nope", "no problems: give --problems"),
    (f"prompts {SET} --count 0", "Invalid value for '--count'"),
    (f"prompts {SET} prompt.answer_style=maths", "did you mean 'math'"),
    # search
    (f"search -o out {SET}", "/nope: no such model file or directory"),
    ("search -o out -m /nope -p bad.jsonl", "bad.jsonl, line 2: not JSON"),
    (f"search -o out {SET} search.childrn=2", "search.childrn: unknown setting; did you mean 'children'?"),
    (f"search -o out {SET} search.children=many", "search.children: 'many' is not accepted (accepted: an integer"),
    (f"search -o out {SET} search.selection=pct", "'pct' is not one of the choices; did you mean 'puct'?"),
    (f"search -o out {SET} search.selection=gumbel search.advance=step", "accepted with it: advance: none"),
    (f"search -o out {SET} search.max_tokens=9 search.max_step_tokens=10", "exceeds max_tokens 9"),
    (f"search -o out {SET} --seed -1", "Invalid value for '--seed'"),
    # pairs
    ("pairs missing -o out", "missing: no such file"),
    ("pairs bad.parquet -o out", "bad.parquet: not a readable Parquet file"),
    ("pairs empty -o out", "empty: no tree files"),
    ("pairs bad.parquet bad.parquet -o out", "bad.parquet: given twice"),
    ("pairs bad.parquet -o out --format tlr", "Invalid value for '--format'"),
    ("pairs bad.parquet -o out --set preferences.min_gp=1", "did you mean 'min_gap'?"),
    # train
    ("train -m /nope -d missing.parquet -o out", "/nope: no such model file or directory"),
    ("train -d good.jsonl -o out", "no model: give --model"),
    ("train -m /nope -d good.jsonl -o .", ".: holds other files; accepted: a new folder"),
    ("train --value -m /nope -d good.jsonl -o half", "half: holds other files"),
    ("train -m /nope -d good.jsonl -o good.jsonl", "good.jsonl: a file; accepted: a new folder"),
    ("train -m /nope -d good.jsonl -o out training.objective=step_dop", "did you mean 'step_dpo'?"),
    ("train -m /nope -d good.jsonl -o out training.optimiser.lr=fast", "training.optimiser.lr: 'fast' is not a number"),
    ("train --value -m /nope -d missing.parquet -o out", "missing.parquet: no such table"),
    # eval
    (f"eval {SET}", "/nope: no such model file or directory"),
    ("eval -m /nope -p missing.jsonl", "missing.jsonl: no such file"),
    (f"eval {SET} --against missing.parquet", "missing.parquet: no such file"),
    (f"eval {SET} --against bad.parquet", "bad.parquet: not a readable Parquet file"),
    (f"eval {SET} --strategy mcst --budget 5", "strategy: 'mcst' is not a strategy; did you mean 'mcts'?"),
    (f"eval {SET} --strategy mcts --budget x", "--budget 'x': accepted: integers ≥ 1"),
    (f"eval {SET} --strategy mcts", "no --budget"),
    (f"eval {SET} --strategy mcts --budget 9 --against bad.parquet", "--against compares policies"),
    # solve
    ("solve 1+1? -m /nope", "/nope: no such model file or directory"),
    ("solve 1+1?", "no model: give --model"),
    ("solve 1+1? -m /nope --budget 0", "Invalid value for '--budget'"),
    ("solve 1+1? -m /nope engine.kind=vlm", "'vlm' is not one of the choices; did you mean 'vllm'?"),
    ("solve 1+1? -m /nope engine.kind=openai", "engine.url: missing"),
    # report, tree
    ("report missing", "missing: not a run directory"),
    ("report good.jsonl", "good.jsonl: not a run directory"),
    ("report half", "half/metrics.jsonl, line 1: no 'test'; accepted: what `run` wrote"),
    ("report new", "new: no round has finished yet"),
    ("tree missing", "missing: no tree files"),
    ("tree bad.parquet", "bad.parquet: not a readable Parquet file"),
    ("tree empty some-id", "empty: no tree files"),
    # rejudge, judge-eval
    ("rejudge missing -o out", "missing: no such file"),
    ("rejudge bad.parquet -o out", "bad.parquet: not a readable Parquet file"),
    ("rejudge bad.parquet -o out --set search.children=3", "--set search.children: the trees are grown already"),
    ("rejudge bad.parquet -o out --verifier mth", "--verifier: "),
    ("judge-eval missing.jsonl --set search.rewards=[self_evaluation]", "missing.jsonl: no such file"),
    ("judge-eval good.jsonl --set search.rewards=[self_evaluation]", "good.jsonl, line 1"),
    # doctor, settings, lm-eval
    ("doctor -c missing.yaml", "missing.yaml: no such file"),
    ("doctor enigne.kind=vllm", "enigne: unknown setting; did you mean 'engine'?"),
    ("doctor -m /nope", "/nope: no such model file or directory"),
    ("settings more", "unexpected extra argument"),
]
LINES += [
    ("serve -m /nope --budget 9", "/nope: no such model file or directory"),
    ("serve -m /nope --strategy mcst --budget 9", "did you mean 'mcts'?"),
    ("serve -m /nope", "needs a budget of generated tokens"),
    ("serve -m /nope --budget 9 --port 99999", "serve: port: 99999 is out of range"),
    ("serve -m /nope --budget 9 --host 0.0.0.0", "needs a key"),
    ("serve --budget 9", "no model: give --model"),
]
ELSEWHERE = {"lm-eval": "tests/integrations/test_lm_eval.py"}
"""Commands whose arguments are not ours, or that have a page of tests of their own."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("line", "message"), LINES, ids=[line for line, _ in LINES])
def test_one_line_and_exit_code_2(cli: Cli, place: Path, line: str, message: str) -> None:  # noqa: F811
    before = sorted(place.rglob("*"))
    code, out, err = cli(*shlex.split(line))
    assert code == 2, err
    assert out == ""
    assert err.startswith("mcts-dpo: ")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(place.rglob("*")) == before, "nothing is left behind"


def test_every_command_is_in_the_table() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    tried = {line.split()[0] for line, _ in LINES}
    assert commands - tried <= set(ELSEWHERE)


def test_a_table_for_training_is_named_before_anything_is_computed(
    cli: Cli,  # noqa: F811
    place: Path,
    toy_world: ToyWorld,
) -> None:
    (place / "cut.jsonl").write_text('{"prompt": "1+1?", "chosen": "2", "rejected": "3"}\n{"prompt": \n')
    for data, message in (("bad.parquet", "bad.parquet"), ("cut.jsonl", "line 2"), ("absent.parquet", "absent")):
        code, out, err = cli("train", "-m", toy_world.policy, "-d", data, "-o", "out")
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert message in err
    assert not (place / "out").exists()


def test_a_run_that_could_not_begin_can_be_corrected(cli: Cli, place: Path, toy_world: ToyWorld) -> None:  # noqa: F811
    source = toy_world.config.train.source
    wrong = ("run", "-o", "out", "model=/nope", f"train.source={source}", f"test.source={source}")
    code, _, err = cli(*wrong, "problems_per_round=4")
    assert code == 2
    assert not (place / "out").exists(), err


def test_a_run_that_is_refused_touches_nothing(
    cli: Cli,  # noqa: F811
    tmp_path: Path,
    toy_world: ToyWorld,
) -> None:
    """The directory of another config, one that another process works in, an address without a Ray."""
    directory = tmp_path / "run"
    (directory / "round-000" / "trees").mkdir(parents=True)
    (directory / "config.yaml").write_text(dump_settings(toy_world.config), encoding="utf-8")
    (directory / ".lock").touch()
    (directory / "round-000" / ".pairs.parquet.partial-x").mkdir()
    (directory / "round-000" / "trees" / "shard-0000.journal").write_bytes(b"half of a search")

    def state() -> dict[str, tuple[bytes, int]]:
        files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    def refused(*arguments: object) -> str:
        before, there = state(), sorted(tmp_path.rglob("*"))
        code, out, err = cli("run", "-o", directory, "-c", directory / "config.yaml", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert state() == before
        assert sorted(tmp_path.rglob("*")) == there
        return err

    assert "run: holds a run of another config (search.children: 4 -> 3); " in refused("search.children=3")
    assert "rounds can grow, not shrink to 1" in refused("rounds=1")
    with (directory / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "run: another process is running in it" in refused()
        assert "run: another process is running in it" in refused("--force", "search.children=3")
    assert "--ray 127.0.0.1:1: no Ray answers there" in refused("--ray", "127.0.0.1:1")


def test_other_failures_end_with_1_and_without_a_traceback(
    cli: Cli,  # noqa: F811
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("something of ours")

    monkeypatch.setattr("mcts_dpo.data.load_problems", broken)
    code, out, err = cli("problems", "good.jsonl")
    assert (code, out) == (1, "")
    assert err == "mcts-dpo: RuntimeError: something of ours (--debug shows where)\n"
    with pytest.raises(RuntimeError, match="something of ours"):
        cli("--debug", "problems", "good.jsonl")


def test_help_and_success_end_with_0(cli: Cli, place: Path) -> None:  # noqa: F811
    assert cli("--help")[0] == 0
    assert cli("problems", "good.jsonl") == (0, "1 problems; 0 without an answer.\nFirst: good-1\n1+1?\n→ 2\n", "")


def test_an_interrupt_ends_with_130_and_keeps_what_was_done(
    toy_world: ToyWorld, chat_policy: Path, tmp_path: Path
) -> None:
    """A real SIGINT to a real search: one line, and the same command continues from the journal."""
    command = [sys.executable, "-m", "mcts_dpo", "search", "-o", str(tmp_path / "trees"), "-m", str(chat_policy)]
    # Long enough not to end before it is interrupted: no tree runs out of new solutions.
    endless = ["search.simulations=5000", "search.temperature=2.0", "search.max_tokens=60"]
    command += ["-p", toy_world.config.train.source, *endless]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "trees" / "shard-0000.journal"
    deadline = time.monotonic() + 900
    while not (journal.exists() and journal.stat().st_size > 5000):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 130, err
    assert out == ""
    assert err == "mcts-dpo: interrupted; finished shards and stages are kept, the same command continues\n"
    assert journal.stat().st_size > 5000
