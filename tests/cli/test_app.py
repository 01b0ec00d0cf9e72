"""The command line as a user meets it: every command on the built-in policy, and one clear line for bad input."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from mcts_dpo.cli.app import main
from mcts_dpo.common.settings import dump_settings
from mcts_dpo.data import save_problems
from mcts_dpo.search import Forest
from tests.conftest import ToyWorld

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `mcts-dpo` with these arguments in this process. Returns exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        before = sys.argv
        sys.argv = ["mcts-dpo", *map(str, arguments)]
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            sys.argv = before
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def config(toy_world: ToyWorld, tmp_path: Path) -> Path:
    """The toy's settings as a run's config file."""
    path = tmp_path / "run.yaml"
    path.write_text(dump_settings(toy_world.config), encoding="utf-8")
    return path


def test_stages_one_by_one(cli: Cli, config: Path, toy_world: ToyWorld, tmp_path: Path) -> None:
    trees, data, policy = tmp_path / "trees", tmp_path / "data", tmp_path / "policy"
    code, out, err = cli("search", "--config", config, "--out", trees, "--shard-size", 10, "search.simulations=3")
    assert (code, err) == (0, "")
    assert "40 trees in 4 files" in out
    kept = {file: file.stat().st_mtime_ns for file in trees.iterdir()}
    assert cli("search", "-c", config, "-o", trees, "--shard-size", 10, "search.simulations=3")[0] == 0
    assert kept == {file: file.stat().st_mtime_ns for file in trees.iterdir()}, "a finished shard is not repeated"

    code, out, _ = cli("pairs", trees, "--out", data, "--set", "preferences.min_gap=0.1")
    assert code == 0
    rows = pq.read_metadata(data / "pairs.parquet").num_rows
    assert rows > 0
    assert out.startswith(f"{rows} pairs, ")
    assert pq.read_metadata(data / "siblings.parquet").num_rows >= 2 * rows
    code, out, _ = cli("pairs", trees, "--out", data, "--set", "preferences.min_gap=0.1", "--json", "--card")
    assert (json.loads(out)["pairs"], json.loads(out)["trees"]) == (rows, 40)
    assert "config_name: pairs" in (data / "README.md").read_text()
    code, out, _ = cli("tree", trees, toy_world.train[0].id, "--json")
    assert [shown["id"] for shown in json.loads(out)] == [toy_world.train[0].id]
    code, out, _ = cli("pairs", trees, "--out", tmp_path / "none", "--set", "preferences.min_gap=9")
    assert code == 0
    assert out.splitlines()[-1].endswith(
        "no parent has two children whose Q differs by preferences.min_gap = 9 or more."
    )

    code, out, _ = cli("train", "-c", config, "-d", data / "pairs.parquet", "-o", policy, "training.data.max_updates=2")
    assert code == 0
    assert "step_dpo: 2 updates" in out
    last = ("-o", tmp_path / "again", "training.data.max_updates=2", "--json")
    code, out, err = cli("train", "-c", config, "-d", data / "pairs.parquet", *last)
    assert (code, json.loads(out)["updates"], err) == (0, 2, "")
    assert AutoModelForCausalLM.from_pretrained(policy).num_parameters() > 0
    assert len(AutoTokenizer.from_pretrained(policy)) > 0

    base, new = tmp_path / "base", tmp_path / "new"
    assert cli("eval", "-c", config, "-o", base)[0] == 0
    compare = ("--against", base / "evaluation.parquet")
    code, out, _ = cli("eval", "-c", config, "-m", policy, "-o", new, *compare, "--json", "evaluation.samples=4")
    assert code == 0
    metrics = json.loads(out)
    assert metrics == json.loads((new / "metrics.json").read_text())
    assert metrics["problems"] == len(toy_world.test)
    assert 0 <= metrics["pass@1"]["value"] <= metrics["pass@4"]["value"] <= 1
    assert metrics["against"]["gained"] >= 0
    code, out, _ = cli("eval", "-c", config)
    assert "greedy" in out


def test_a_search_says_which_problems_failed_and_why(
    cli: Cli, chat_policy: Path, toy_world: ToyWorld, tmp_path: Path
) -> None:
    fine, long = toy_world.train[:2]
    problems, trees = tmp_path / "problems.jsonl", tmp_path / "trees"
    save_problems(problems, [fine, replace(long, question=" ".join([long.question] * 60))])
    command = ("search", "-m", chat_policy, "-p", problems, "-o", trees, "search.simulations=2", "search.seed=7")
    code, out, err = cli(*command, "--seed", 0)
    assert (code, err) == (0, "")
    count, why = out.splitlines()
    assert count.startswith("2 trees in 1 files")
    assert re.fullmatch(rf"1 of them failed: a prompt of \d+ tokens leaves no room in .* \({re.escape(long.id)}\)", why)
    found = json.loads(cli(*command, "--seed", 0, "--json")[1])
    assert (found["trees"], list(found["failed"])) == (2, [long.id])
    assert Forest.load(trees / "shard-0000.parquet").settings["search"]["seed"] == 0
    code, _, err = cli(*command)
    assert code == 2
    assert "trees of another search (search settings differ)" in err


def test_eval_compares_strategies_at_equal_budgets(cli: Cli, config: Path, toy_world: ToyWorld, tmp_path: Path) -> None:
    out_folder = tmp_path / "out"
    policy = Path(shutil.copytree(toy_world.policy, tmp_path / "policy"))
    command = ("eval", "-c", config, "-m", policy, "--strategy", "majority,mcts", "-o", out_folder)
    code, out, err = cli(*command, "--budget", "96,192")
    assert (code, err) == (0, "")
    assert "majority at 96 tokens:" in out
    assert "majority at 192 tokens:" in out
    assert (out_folder / "strategies.png").read_bytes().startswith(b"\x89PNG")
    assert pq.read_metadata(out_folder / "strategies.parquet").num_rows == 4 * 24
    assert (out_folder / "strategies.csv").read_text().count("\n") == 5
    code, out, _ = cli(*command, "--budget", "96,192", "--json")
    assert code == 0
    assert [(row["strategy"], row["budget"]) for row in json.loads(out)["rows"]] == [
        *(("majority", 96), ("majority", 192), ("mcts", 96), ("mcts", 192))
    ]
    weights = policy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))  # trained on, under the same name
    code, _, err = cli(*command, "--budget", "96,192")
    assert code == 2
    assert "majority-96.parquet: of another model, prompt, problem set or settings" in err


def test_run_and_report(cli: Cli, config: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    code, out, err = cli("run", "-c", config, "-o", directory, "rounds=1")
    assert (code, err) == (0, "")
    assert "round 1" in out
    assert (directory / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert (directory / "training.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = cli("report", directory, "--json")
    assert code == 0
    assert [line["round"] for line in json.loads(out)["metrics"]] == [-1, 0]
    code, out, _ = cli("report", directory)
    assert "Last round against the start" in out
    assert (directory / "report.html").exists()
    code, out, _ = cli("tree", directory)
    assert code == 0
    problem = out.split("\t")[0]
    code, out, _ = cli("tree", directory, problem, "--round", 1)
    assert code == 0
    assert "simulations" in out
    assert "N=" in out
    code, _, err = cli("tree", directory, problem[:-1])
    assert (code, err.count("\n")) == (2, 1)
    assert problem in err
    assert cli("tree", directory, "--round", 9)[0] == 2
    # The same command on a finished run repeats nothing; another config is refused and named.
    stamps = {path: path.stat().st_mtime_ns for path in (directory / "round-000").rglob("*.parquet")}
    assert cli("run", "-c", config, "-o", directory, "rounds=1", "--json")[0] == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in (directory / "round-000").rglob("*.parquet")}
    code, _, err = cli("run", "-c", config, "-o", directory, "rounds=1", "search.children=7")
    assert code == 2
    assert "search.children: 4 -> 7" in err
    assert err.count("\n") == 1


def test_solve_prints_answer_path_and_tree(cli: Cli, config: Path, toy_world: ToyWorld) -> None:
    question = toy_world.test[0].question
    code, out, _ = cli("solve", question, "-c", config, "--budget", 200)
    assert code == 0
    assert out.startswith("Answer:")
    assert "The answer is" in out
    assert "N " in out or "N=" in out, "the tree shows visits"
    code, out, _ = cli("solve", question, "-c", config, "--budget", 200, "--json")
    solved = json.loads(out)
    assert "".join(solved["steps"]) == solved["solution"]
    assert 0 < solved["sampled_tokens"] <= 200
    # As a newcomer asks, who sets nothing but the budget: samples are fewer, not cut before their answers.
    plain = ["prompt.style=plain", "prompt.template='{question}\\n'", "search.max_tokens=96", "engine.dtype=float32"]
    code, out, _ = cli("solve", question, "-m", toy_world.policy, "--budget", 80, "--json", *plain)
    solved = json.loads(out)
    assert solved["answer"] is not None
    assert solved["sampled_tokens"] <= 80


def test_prompts_shows_what_the_policy_reads(cli: Cli, config: Path, toy_world: ToyWorld) -> None:
    code, out, _ = cli("prompts", "-c", config, "--count", 2, "--json")
    assert code == 0
    shown = json.loads(out)
    assert [item["text"] for item in shown["prompts"]] == [f"{p.question}\n" for p in toy_world.train[:2]]
    assert AutoTokenizer.from_pretrained(toy_world.policy).decode(shown["prompts"][0]["tokens"]).endswith("\n")
    assert "Right so far?" in shown["self_evaluation"]["text"]
    code, out, _ = cli("prompts", "-c", config)
    assert toy_world.train[0].question.split(".")[0] in out


def test_problems_are_checked_and_converted(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "some.jsonl"
    source.write_text('{"question": "1+1?", "answer": "2"}\n{"question": "Odd?", "answer": "@@ ??"}\n')
    target = tmp_path / "out.jsonl"
    code, out, _ = cli("problems", source, "--out", target, "--against", source, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["problems"] == 2
    assert report["unparsable_answers"] == ["some-2"]
    assert len(report["shared_with_other"]) == 2
    assert target.read_text().count("\n") == 2
    code, out, _ = cli("problems", source, "--against", source)
    assert "1 answers cannot be parsed" in out
    assert "2 questions are shared" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "nowhere"), "nowhere: not a run directory"),
        (("problems", "missing.jsonl"), "missing.jsonl: no such file"),
        (("pairs", "missing.parquet", "-o", "x"), "missing.parquet: no such file"),
        (("search", "-o", "x", "search.childrn=4"), "did you mean 'children'"),
        (("search", "-o", "x"), "no problems: give --problems"),
        (("eval", "-p", "missing.jsonl"), "missing.jsonl: no such file"),
        (("eval", "--strategy", "mcst", "--budget", "9"), "did you mean 'mcts'"),
        (("eval", "--strategy", "mcts"), "no --budget: accepted: both --strategy and --budget"),
        (("eval", "--budget", "9"), "no --strategy: accepted"),
        (("eval", "--strategy", "mcts", "--budget", "many"), "accepted: integers ≥ 1"),
        (("eval", "--strategy", "mcts", "--budget", "9", "--against", "x"), "--against compares policies"),
        (("solve", "1+1?"), "no model: give --model"),
        (("run", "-o", "x", "model=m"), "train"),
        (("run", "-o", "x", "-c", "missing.yaml"), "missing.yaml: no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    cli: Cli, arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("mcts-dpo: ")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "1+1?", "answer": "2"}\n{"question": \n', "line 2"),
        ('{"id": "a", "question": "1?", "answer": "1"}\n{"id": "a", "question": "2?", "answer": "2"}\n', "'a'"),
        ("", "no problems"),
        ('{"ask": "1+1?", "answer": "2"}\n', "question"),
    ],
)
def test_bad_problem_files_are_named(cli: Cli, content: str, message: str, tmp_path: Path) -> None:
    source = tmp_path / "bad.jsonl"
    source.write_text(content)
    code, _, err = cli("problems", source)
    assert code == 2
    assert "bad.jsonl" in err
    assert message in err
    assert err.count("\n") == 1


def test_a_model_without_tokenizer_or_no_model_at_all(cli: Cli, toy_world: ToyWorld, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((toy_world.policy / name).read_bytes())
    for model in (bare, tmp_path / "absent"):
        code, _, err = cli("solve", "1+1?", "-m", model)
        assert code == 2
        assert str(model) in err
        assert err.count("\n") == 1


def test_debug_shows_where(cli: Cli) -> None:
    with pytest.raises(ValueError, match="not a run directory"):
        cli("--debug", "report", "nowhere")


def test_the_console_script_answers() -> None:
    script = Path(sys.executable).parent / "mcts-dpo"
    result = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    for command in ("demo", "run", "problems", "prompts", "search", "pairs", "train", "eval", "solve", "report"):
        assert command in result.stdout
