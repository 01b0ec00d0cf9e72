"""`rejudge` and `judge-eval` as a user meets them, on trees of the built-in policy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mcts_dpo.cli.app import app, main
from mcts_dpo.common.settings import dump_settings
from mcts_dpo.search import Forest
from mcts_dpo.search.tree_io import tree_infos
from tests.conftest import ToyWorld
from tests.golden.test_golden import FOLDER

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


@pytest.fixture(scope="module")
def trees(toy_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trees of 16 problems in two files, with a run's config beside them."""
    place = tmp_path_factory.mktemp("judging")
    config = place / "run.yaml"
    config.write_text(dump_settings(toy_world.config.model_copy(update={"problems_per_round": 16})), encoding="utf-8")
    arguments = ["search", "-c", config, "-o", place / "trees", "--shard-size", "20", "search.simulations=3"]
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    return place / "trees"


def test_the_same_judgement_changes_nothing(cli: Cli, trees: Path, toy_world: ToyWorld, tmp_path: Path) -> None:
    problems = toy_world.config.train.source
    for number, more in enumerate([(), ("-p", problems), ("-p", problems, "--again", "--policy", toy_world.policy)]):
        out = tmp_path / str(number)
        code, said, err = cli("rejudge", trees, "-o", out, *more, "--json")
        assert (code, err) == (0, "")
        summary = json.loads(said)
        assert (summary["trees"], summary["changed_outcomes"], summary["changed_values"]) == (40, 0, 0)
        for file in sorted(trees.glob("*.parquet")):
            assert Forest.load(out / file.name) == Forest.load(file)


def test_another_reward_and_its_pairs(cli: Cli, trees: Path, toy_world: ToyWorld, tmp_path: Path) -> None:
    out = tmp_path / "out"
    reward = "search.rewards=[outcome, {kind: self_evaluation, weight: 0.25, at: all}]"
    arguments = ["rejudge", trees, "--set", reward, "-p", toy_world.config.train.source, "-o", out]
    code, said, err = cli(*arguments, "--policy", toy_world.policy)
    assert (code, err) == (0, "")
    assert "New scores: self_evaluation." in said
    forest = Forest.load(out / "shard-0000.parquet")
    assert not np.isnan(forest.scores["self_evaluation"][forest.depth > 0]).any()
    stored = forest.settings["search"]["rewards"][1]
    assert (stored["kind"], stored["weight"], stored["at"]) == ("self_evaluation", 0.25, "all")
    code, said, _ = cli(*arguments, "--policy", toy_world.policy)
    assert said.startswith("0 trees judged again; 2 files")
    code, said, _ = cli("rejudge", out, "--set", "search.rewards.self_evaluation.weight=2", "-o", tmp_path / "heavier")
    assert code == 0
    assert "New scores: none." in said
    heavier = Forest.load(tmp_path / "heavier" / "shard-0000.parquet")
    assert np.array_equal(heavier.scores["self_evaluation"], forest.scores["self_evaluation"], equal_nan=True)
    code, said, _ = cli("pairs", out, "-o", tmp_path / "pairs", "--json")
    assert json.loads(said)["trees"] == 40


def test_trees_of_the_first_edition(cli: Cli, tmp_path: Path) -> None:
    """Their rewards add up along paths; nothing changes but last digits."""
    code, _, err = cli("rejudge", FOLDER / "first-edition" / "trees.parquet", "-o", tmp_path, "--json")
    assert (code, err) == (0, "")
    old, new = Forest.load(FOLDER / "first-edition" / "trees.parquet"), Forest.load(tmp_path / "trees.parquet")
    for name in ("q", "v", "reward", "visits", "outcome"):
        np.testing.assert_allclose(getattr(new, name), getattr(old, name), rtol=0, atol=1e-12)
    assert new.settings["search"]["accumulate"] == "sum"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--set", "search.children=3"],
            "--set search.children: the trees are grown already; accepted: search.rewards",
        ),
        (["--set", "search.rewards=[outcom]"], "did you mean 'outcome'?"),
        (["--set", "search.rewards=[self_evaluation]"], "accepted: with --problems FILE, the problems of the trees"),
        (["--set", "search.rewards=[self_evaluation]", "-p", "PROBLEMS"], "accepted: with --policy MODEL"),
        (["--verifier", "numbrs", "-p", "PROBLEMS"], "--verifier: verifier: 'numbrs' (accepted: "),
        (["--verifier", "exact"], "nothing to verify against"),
        (["-p", "OTHERS"], "is not in --problems"),
    ],
)
def test_bad_input_is_one_line(
    cli: Cli, trees: Path, toy_world: ToyWorld, tmp_path: Path, arguments: list[str], message: str
) -> None:
    sources = {"PROBLEMS": toy_world.config.train.source, "OTHERS": toy_world.config.test.source}
    code, said, err = cli("rejudge", trees, "-o", tmp_path / "out", *[sources.get(one, one) for one in arguments])
    assert (code, said) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_judges_are_measured_on_trees(cli: Cli, trees: Path, toy_world: ToyWorld, tmp_path: Path) -> None:
    judges = "search.rewards=[self_evaluation, length]"
    arguments = ["judge-eval", trees, "-p", toy_world.config.train.source, "--set", judges]
    code, said, err = cli(*arguments, "--policy", toy_world.policy, "-o", tmp_path / "judges")
    assert (code, err) == (0, "")
    assert "AUC of steps, all before right" in said
    assert "Labels: outcomes" in said
    assert sorted(file.name for file in (tmp_path / "judges").iterdir()) == [
        "trees-length.json",
        "trees-length.png",
        "trees-self_evaluation.json",
        "trees-self_evaluation.png",
    ]
    code, said, _ = cli(
        "--with", "mcts_dpo.toy.oracle", *arguments, "--policy", toy_world.policy, "--truth", "oracle", "--json"
    )
    assert code == 0
    of_self, of_length = json.loads(said)
    assert (of_self["judge"]["kind"], of_self["labels"]) == ("self_evaluation", "truth: oracle")
    assert of_self["cost"]["budget_tokens"] == of_self["cost"]["scores"] > 0
    assert of_length["cost"]["budget_tokens"] == 0


def test_judges_are_measured_on_labelled_steps(cli: Cli, toy_world: ToyWorld, tmp_path: Path) -> None:
    rows = [
        {"question": one.question, "steps": str(one.solution).split("\n"), "first_error": -1} for one in toy_world.train
    ]
    file = tmp_path / "steps.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    prompt = [
        one
        for name, value in toy_world.config.prompt.model_dump(mode="json", exclude_unset=True).items()
        for one in ("--set", f"prompt.{name}={json.dumps(value)}")
    ]
    arguments = ["judge-eval", file, "--set", "search.rewards=[self_evaluation]", *prompt, "--limit", "8"]
    code, said, err = cli(*arguments, "--policy", toy_world.policy, "--json")
    assert (code, err) == (0, "")
    (result,) = json.loads(said)
    assert result["metrics"]["solutions"] == 8
    assert result["metrics"]["unscored"] == 0
    assert result["metrics"]["false_alarm"]["value"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["TREES", "--set", "search.rewards=[length]"],
            "judges read the questions of trees; accepted: --problems FILE",
        ),
        (["TREES", "-p", "PROBLEMS"], "no judge: accepted: --set search.rewards=[KIND"),
        (["TREES", "-p", "PROBLEMS", "--set", "search.rewards=[self_evaluation]"], "accepted: with --policy MODEL"),
        (["TREES", "-p", "PROBLEMS", "--set", "search.rewards=[length]", "--truth", "orcale"], "--truth"),
        (["PROBLEMS", "--set", "search.rewards=[length]"], "no texts under 'steps'"),
        (["missing.jsonl", "--set", "search.rewards=[length]"], "missing.jsonl"),
        (["PROBLEMS", "--set", "search.rewards=[length]", "-o", "PROBLEMS"], "a file; accepted: a folder"),
    ],
)
def test_bad_input_of_judge_eval_is_one_line(
    cli: Cli, trees: Path, toy_world: ToyWorld, arguments: list[str], message: str
) -> None:
    names = {"TREES": trees, "PROBLEMS": toy_world.config.train.source}
    code, said, err = cli("judge-eval", *[names.get(one, one) for one in arguments])
    assert (code, said) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_search_says_which_rewards_gave_no_score(cli: Cli, trees: Path, tmp_path: Path) -> None:
    judge = "search.rewards=[outcome, {kind: judge, url: 'http://127.0.0.1:9/v1', model: m, timeout: 1}]"
    command = ["search", "-c", trees.parent / "run.yaml", "-o", tmp_path / "trees", "search.simulations=1", judge]
    code, said, _ = cli(*command)
    files = sorted((tmp_path / "trees").glob("*.parquet"))
    unscored = sum(info.unscored["judge"] for file in files for info in tree_infos(file))
    assert (code, said.splitlines()[-1]) == (0, f"judge gave no score for {unscored} paths.")
    assert json.loads(cli(*command, "--json")[1])["unscored"] == {"judge": unscored}
