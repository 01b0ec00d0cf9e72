"""What a watcher sees: bars on a terminal, nothing elsewhere."""

import io

from rich.console import Console

from mcts_dpo.console import live_progress
from mcts_dpo.progress import part_of, silent


def test_nothing_is_drawn_when_piped() -> None:
    stream = io.StringIO()
    with live_progress(Console(file=stream)) as progress:
        progress("search", 1, 2, accuracy=0.5)
    assert progress is silent
    assert stream.getvalue() == ""


def test_a_terminal_sees_stage_count_and_figures() -> None:
    stream = io.StringIO()
    with live_progress(Console(file=stream, force_terminal=True, width=140)) as progress:
        progress("search", 1, 2, accuracy=0.5)
        progress("search", 2, 2, accuracy=0.75)
        progress("search", 1, 3)
    text = stream.getvalue()
    assert "accuracy 0.75" in text
    assert "2/2" in text
    assert "1/3" in text, "a stage that starts again gets a line of its own"


def test_tokens_are_shown_as_a_pace() -> None:
    stream = io.StringIO()
    with live_progress(Console(file=stream, force_terminal=True, width=140)) as progress:
        progress("search", 1, 3, tokens=0.0, solved=0.5)
        progress("search", 2, 3, tokens=1e6, solved=0.5)
    text = stream.getvalue()
    assert "tok/s" in text
    assert "solved 0.5" in text


def test_parts_report_in_terms_of_the_whole() -> None:
    seen = []

    def record(stage: str, done: int, total: int, **figures: float) -> None:
        seen.append((stage, done, total, figures))

    part_of(record, prefix="round 2: ", before=32, total=100)("search", 4, 32, tokens=7.0)
    part_of(record)("train", 1, 9)
    assert seen == [("round 2: search", 36, 100, {"tokens": 7.0}), ("train", 1, 9, {})]
