"""Formats by name: a layout from outside is one short file, and a wrong name is answered with the nearest."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from mcts_dpo.cli.app import main
from mcts_dpo.common.errors import InputError
from mcts_dpo.data import Problem, Row, load_problems, register_format
from mcts_dpo.data.formats import registry

DIALOG = '''"""A layout with the question and the answer as turns of a dialog."""
from mcts_dpo.data import register_format
from mcts_dpo.data.answers import answer_text
from mcts_dpo.data.problem import Problem


def detect(values):
    return "turns" in values


def read(row):
    asked, answered = row.cell("question", ("turns",), required=("question",))
    return Problem(
        id=row.default_id, question=asked["text"], answer=answer_text(answered["text"], row.where), source=row.source
    )


register_format("dialog", read, detect)
'''
ROWS = """{"turns": [{"text": "2 and 3?"}, {"text": "5"}]}
{"turns": [{"text": "Half of 9?"}, {"text": 4.5}]}
"""


@pytest.fixture
def dialog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set in a layout of its own, and the module that reads it, not yet imported."""
    monkeypatch.setattr(registry, "_FORMATS", dict(registry._FORMATS))
    monkeypatch.delitem(sys.modules, "dialog_format", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dialog_format.py").write_text(DIALOG)
    (tmp_path / "talk.jsonl").write_text(ROWS)
    return tmp_path / "talk.jsonl"


def test_a_format_from_outside_is_one_short_file(dialog: Path) -> None:
    assert DIALOG.count("\n") < 40
    with pytest.raises(InputError, match=r"format: 'dialog' is not a format \(accepted: auto, columns, mawps"):
        load_problems(dialog, format="dialog")
    importlib.import_module("dialog_format")
    expected = [Problem("talk-1", "2 and 3?", "5", source=str(dialog)), Problem("talk-2", "Half of 9?", "4.5")]
    for format_ in ("dialog", "auto"):
        problems = load_problems(dialog, format=format_)
        assert problems[0] == expected[0]
        assert [(p.id, p.question, p.answer) for p in problems] == [(p.id, p.question, p.answer) for p in expected]


def test_the_command_line_loads_a_format(
    dialog: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "mcts-dpo --with dialog_format problems talk.jsonl format=dialog"
    monkeypatch.setattr("sys.argv", line.split())
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert "2 problems" in capsys.readouterr().out


def test_a_bad_row_is_named_by_an_added_format_too(dialog: Path) -> None:
    importlib.import_module("dialog_format")
    dialog.write_text(ROWS + '{"turn": []}\n')
    with pytest.raises(
        InputError, match=r"talk\.jsonl, line 3: no column 'turns' for the question; did you mean 'turn'"
    ):
        load_problems(dialog)


def test_unknown_and_taken_names(dialog: Path) -> None:
    with pytest.raises(InputError, match=r"format: 'gsm9k' is not a format; did you mean 'gsm8k'\? \(accepted: auto, "):
        load_problems(dialog, format="gsm9k")
    for name in ("gsm8k", "auto"):
        with pytest.raises(ValueError, match=f"the format '{name}' is already registered"):
            register_format(name, Row.problem)


NAMED = """
from mcts_dpo.common.accepted import accepted_by
from mcts_dpo.data import ProblemSettings
from mcts_dpo.data.formats import format_names
field = ProblemSettings.model_fields["format"]
accepted = accepted_by(field.annotation, field.metadata)
assert all(repr(name) in accepted for name in format_names()), accepted
"""


def test_the_settings_page_names_every_format() -> None:
    # In a process of its own: other tests of this one may have registered formats.
    subprocess.run([sys.executable, "-c", NAMED], check=True, timeout=600)
