"""One concept, one name: the words that the first edition used for its own ideas appear nowhere any more.

`python -m tests.test_words` prints each place that holds one, with the word that replaces it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

RETIRED = {
    # A retired word, as a regular expression, and what to write instead. A word counts in any case, alone and between
    # the underscores of a name; "(?-i:…)" marks a name of a class.
    r"desks?|(?-i:Desk\w*)": "RequestTracker",
    r"lasting|(?-i:LastingEngine)": "retry, RetryingEngine",
    r"signs? of life": "health check",
    r"suspects?": "quarantined requests",
    r"dialogues?": "strategy coroutine",
    r"(?-i:SharedEngine|Attempt|SolvedQuestion|TreeAnswer)": "OnlineSolver, Solution, TreeVote",
    r"lessons?|(?-i:Lessons)": "TrainingData, training sequences",
    r"masters|master_of": "fp32 master weights",
    r"(?-i:(?<!_)ALONE)": "SINGLE_PROCESS",
    r"(?-i:Trainable|Unfinished|_Bench|Ragged)": "TrainState, CheckpointManager, StageRunner, JaggedArray",
    r"(?<!_)of_(?:row|step)(?!_)": "row_columns, step_columns",
    r"flying": "in flight",
    r"resting": "draining",
    r"promised": "reserved",
    r"lanes?": "SIMD width",
    r"company": "batch composition",
    r"waves": "synchronous",
    r"givers?": "user",
    r"mend(?:s|ed|ing)?": "fix",
    r"in (?:its|their|his|her) stead": "instead",
    r"st(?:and|ands|ood|anding) beside": "is next to",
    r"go(?:es|ing|ne)? on|went on": "continue",
    r"dials?": "setting, strategy_settings",
    r"somebody else's": "another project's",
}
ALLOWED = {
    # Where a retired word may stand, and why.
    "tests/test_words.py": "the table itself",
    "CHANGELOG.md": "says what was renamed to what",
}
PHRASES = {
    # Lines that may hold a retired word, and why.
    r"waves.*(?:synchronous|schedule)|(?:synchronous|schedule).*waves": "the message for a renamed value of a setting",
    r"^tests/verifiers/|we must go on": "texts of models",
}


def listed() -> list[str]:
    """The files of the repository that hold text of ours."""
    kinds = ["*.py", "*.md", "*.yaml", "*.toml", "*.js", "*.html", "Makefile"]
    return subprocess.run(
        ["git", "ls-files", *kinds], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()


def offenders() -> Iterator[str]:
    """Each line of the repository's text that holds a retired word: place, word, replacement, line."""
    words = {re.compile(rf"(?<![A-Za-z])(?:{word})(?![A-Za-z])", re.I): new for word, new in RETIRED.items()}
    known = re.compile("|".join(PHRASES))
    for name in listed():
        if name in ALLOWED or not (ROOT / name).is_file():
            continue
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            for word, new in words.items():
                found = word.search(line)
                if found and not known.search(f"{name}: {line}"):
                    yield f"{name}:{number}: {found.group()!r} (write: {new}): {line.strip()[:100]}"


def test_retired_words_stay_out() -> None:
    assert list(offenders()) == []


def test_a_retired_word_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a name, in a comment, in any case; not inside another word, and not in the text of a setting's migration."""
    (tmp_path / "a.py").write_text(
        "def load_lessons(): ...\n# It GOES ON.\nattend = amendment\n# waves are synchronous\n"
    )
    monkeypatch.setattr("tests.test_words.ROOT", tmp_path)
    monkeypatch.setattr("tests.test_words.listed", lambda: ["a.py"])
    assert [line.split(" ")[0] for line in offenders()] == ["a.py:1:", "a.py:2:"]


if __name__ == "__main__":
    print(*offenders(), sep="\n")
