"""Hostile programs: none gets out of the sandbox, none hangs it, and the next honest path is run as if nothing was."""

from __future__ import annotations

import pytest

from tests.environments.python.attack import Attack, attack_all
from tests.environments.python.hostile import PROGRAMS
from tests.environments.python.support import needs_bubblewrap

pytestmark = needs_bubblewrap


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Attack], list[str]]:
    return attack_all(tmp_path_factory.mktemp("outside"))


def test_none_gets_out(attacks: tuple[dict[str, Attack], list[str]]) -> None:
    found, damage = attacks
    assert len(PROGRAMS) >= 40
    assert set(found) == set(PROGRAMS), "none hangs"
    assert {title: one for title, one in found.items() if one.escaped()} == {}
    assert damage == []


def test_other_paths_notice_nothing(attacks: tuple[dict[str, Attack], list[str]]) -> None:
    found, _ = attacks
    assert {title: one.honest for title, one in found.items() if one.honest.output != "42"} == {}


def test_the_path_itself_continues_or_fails(attacks: tuple[dict[str, Attack], list[str]]) -> None:
    found, _ = attacks
    assert {title: one.after for title, one in found.items() if one.after.output != "42" and not one.after.error} == {}
    assert sum(one.after.output == "42" for one in found.values()) >= 0.9 * len(found)


@pytest.mark.parametrize(
    ("title", "error"),
    [
        ("resources: busy", "TimeoutError: more than "),
        ("resources: sleep", "TimeoutError: more than 3 seconds"),
        ("resources: one big object", "MemoryError (line 1)"),
        ("resources: recursion", "RecursionError: maximum recursion depth exceeded (line 1)"),
        ("processes: fork", None),
        ("ends: segmentation fault", "RuntimeError: the process ended"),
        ("ends: exit", "SystemExit: 3 (line 2)"),
        ("output: prints without an end", "OutputLimit: more than 1000000 characters printed (line 1)"),
        ("control: garbage on the socket", "RuntimeError: the block sent something else than a reply"),
        ("outside: overwrites the program", None),
    ],
)
def test_the_reply_says_what_stopped_it(
    attacks: tuple[dict[str, Attack], list[str]], title: str, error: str | None
) -> None:
    found, _ = attacks
    result = found[title].result
    if error is None:
        assert result.output.startswith("refused")
    else:
        assert str(result.error).startswith(error)
