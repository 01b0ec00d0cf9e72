"""What a watcher sees: bars on a terminal, nothing elsewhere."""

import io

from rich.console import Console

from mcts_dpo.common.console import live_progress
from mcts_dpo.common.progress import part_of, silent, tracked


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


def test_a_stage_of_unknown_length_shows_a_sign_of_life_until_the_next() -> None:
    stream = io.StringIO()
    with live_progress(Console(file=stream, force_terminal=True, width=140)) as progress:
        progress("load model", 0, 0)
        progress("search", 1, 2)
        progress("load model", 0, 0)
    lines = stream.getvalue().splitlines()
    assert any("load model" in line and "0/?" in line for line in lines), "it moves, and has no end"
    assert sum("load model" in line and "1/1" in line for line in lines[-4:]) == 2, "both are over in the end"


def test_items_count_when_the_next_is_asked_for() -> None:
    seen: list[tuple[str, int, int]] = []
    items = tracked(lambda stage, done, total, **_: seen.append((stage, done, total)), "read", "ab")
    taken = [(item, len(seen)) for item in items]
    assert taken == [("a", 1), ("b", 2)]
    assert seen == [("read", 0, 2), ("read", 1, 2), ("read", 2, 2)]
