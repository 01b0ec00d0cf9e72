"""What is said at the start of problems whose reference answers are missing or cannot be read."""

import json
import logging
import sys
from pathlib import Path

import pytest

from mcts_dpo.cli.app import main
from mcts_dpo.common.errors import InputError
from mcts_dpo.data import Problem, ProblemSettings, require_answers, without_any_answer
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.rounds import run
from tests.conftest import ToyWorld


def problems(*answers: str | None) -> list[Problem]:
    return [Problem(str(number), "?", answer) for number, answer in enumerate(answers, 1)]


def test_what_is_said_of_answers_none_of_which_will_do() -> None:
    assert without_any_answer(problems(None, "?", "4")) is None
    assert without_any_answer(problems(None, None)) == ("the reference answer of every problem is missing (2 problems)")
    assert without_any_answer(problems("", "?")) == (
        'the reference answer of every problem cannot be read (2 problems, for instance 1: "")'
    )
    assert "is missing (1) or cannot be read (2 problems, for instance 2" in str(
        without_any_answer(problems(None, "?"))
    )
    letters = [Problem("1", "?", "E", choices=("x", "y"))]
    assert "cannot be read" in str(without_any_answer(letters))


def test_problems_to_measure_on_have_answers() -> None:
    require_answers(problems("1", "?"), "set")
    with pytest.raises(InputError, match="set: the problem 2 has no reference answer, so that no policy can be"):
        require_answers(problems("1", None), "set")
    with pytest.raises(InputError, match=r"set: the reference answer of every problem is missing \(1 problems\), so"):
        require_answers(problems(None), "set")


def asked(path: Path, answer: str | None, count: int = 60) -> ProblemSettings:
    rows = [
        {"question": f"{path.stem} {number}?"} | ({} if answer is None else {"answer": answer})
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ProblemSettings(source=str(path))


def changed(config: RunConfig, **sections: ProblemSettings) -> RunConfig:
    return config.model_copy(update={**sections, "rounds": 1, "problems_per_round": 4, "baseline": False})


def test_a_run_says_so_before_it_does_anything(
    toy_world: ToyWorld, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InputError, match=r"test\.jsonl: the reference answer of every problem is missing"):
        run(changed(toy_world.config, test=asked(tmp_path / "test.jsonl", None)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    broken = changed(toy_world.config, train=asked(tmp_path / "train.jsonl", "\\frac{1}{"))
    (tmp_path / "a file").write_text("")
    with caplog.at_level(logging.WARNING), pytest.raises(FileExistsError):
        run(broken, tmp_path / "a file")  # what comes next is of no interest here
    assert "train.jsonl: the reference answer of every problem cannot be read (4 problems" in caplog.text


def test_an_evaluation_says_so_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = asked(tmp_path / "set.jsonl", None).source
    monkeypatch.setattr(sys, "argv", ["mcts-dpo", "eval", "-m", str(tmp_path / "no model"), "-p", path])
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr().err
    assert said.startswith(f"mcts-dpo: {path}: the reference answer of every problem is missing (60 problems)")
    assert said.count("\n") == 1
