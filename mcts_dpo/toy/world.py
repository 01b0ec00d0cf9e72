"""The built-in world: short stories about somebody's belongings, and what is truly left at the end.

In: a count and a seed. Out: `Problem`s with exact answers and worked solutions; demonstrations whose worker has wrong
*habits*; judgements of such demonstrations. Everything is a function of its arguments.

    Ann has 12 apples. She gives away 3. She buys 2 bags of 5. How many apples does she have?
    gives: 12 - 3 = 9
    bags: 2 * 5 = 10
    bags: 9 + 10 = 19
    The answer is 19.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import add, floordiv, mul, sub
from random import Random
from typing import Annotated, Literal

from pydantic import Field

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import digest, seed_from
from mcts_dpo.common.settings import Settings
from mcts_dpo.data import Problem

Rate = Annotated[float, Field(ge=0, le=1)]
Kind = Literal["gain", "lose", "bags", "double", "halve"]

LARGEST = 99
"""No number in a true or a demonstrated solution exceeds this; none is negative."""

WORDINGS: dict[Kind, dict[str, str]] = {
    "gain": {
        "finds {n} more": "more",
        "buys {n} more": "more",
        "gets {n} from a friend": "friend",
        "is given {n}": "given",
    },
    "lose": {"loses {n}": "loses", "gives away {n}": "gives", "sells {n}": "sells", "drops {n}": "drops"},
    "bags": {
        "buys {n} bags of {m}": "bags",
        "gets {n} packs of {m}": "packs",
        "finds {n} boxes of {m}": "boxes",
        "fills {n} jars with {m}": "jars",
    },
    "double": {"finds as many again": "again", "doubles the number": "doubles"},
    "halve": {"gives away half": "half", "sells half": "half"},
}
"""How an event of each kind is told (`n` and `m` are its numbers), and the word that opens its line of a solution."""

_KINDS: tuple[Kind, ...] = ("gain", "lose", "bags", "double", "halve")
_WEIGHTS = (3, 3, 3, 2, 1)

_OPERATIONS: dict[str, Callable[[int, int], int]] = {"+": add, "-": sub, "*": mul, "/": floordiv}

_PEOPLE = (
    *((name, "She") for name in ("Ann", "Beth", "Clara", "Dora", "Emma", "Fay", "Gina", "Hana")),
    *((name, "He") for name in ("Adam", "Ben", "Carl", "Dan", "Eli", "Fred", "Gus", "Hugo")),
)
_THINGS = ("apples", "balls", "beads", "books", "cards", "coins", "cups", "eggs", "keys", "pens", "shells", "stamps")


class Habits(Settings):
    """How often a demonstration does the wrong thing, each a probability in [0, 1].

    lose: a "lose" step adds instead of subtracting; one rate per wording of `WORDINGS`, in their order.
    bags: a "bags of" step adds bag count and bag size instead of multiplying them; likewise.
    slip: a step's result is off by 1, 2 or 10, for no reason at all.

    By default demonstrations tell two of the four wordings mostly right, so that the right operation is learned at all.
    A greedy policy gets every event of the other two wordings wrong, however well it learned; sampling finds the right
    way.
    """

    lose: tuple[Rate, Rate, Rate, Rate] = (0.2, 0.2, 0.7, 0.7)
    bags: tuple[Rate, Rate, Rate, Rate] = (0.2, 0.2, 0.7, 0.7)
    slip: Rate = 0.03


NO_HABITS = Habits(lose=(0, 0, 0, 0), bags=(0, 0, 0, 0), slip=0)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A worked solution that need not be right.

    problem: its `solution` is the demonstrated one; its `answer` is the true one all the same.
    right:   one truth value per line of the solution: are this line and all before it right?
    """

    problem: Problem
    right: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The first `lines` (at least one) of a problem's solution, and whether every one of them is right."""

    problem: Problem
    lines: int
    right: bool

    def text(self) -> str:
        """The judged part of the solution; a line end closes it unless it is the whole solution."""
        solution = self.problem.solution or ""
        kept = solution.split("\n")[: self.lines]
        return solution if "\n".join(kept) == solution else "\n".join(kept) + "\n"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a story. n, m: its numbers."""

    kind: Kind
    wording: str
    n: int = 0
    m: int = 0


@dataclass(frozen=True, slots=True)
class _Story:
    name: str
    pronoun: str
    thing: str
    start: int
    events: tuple[Event, ...]

    def question(self) -> str:
        told = [f"{self.pronoun} {event.wording.format(n=event.n, m=event.m)}." for event in self.events]
        return " ".join(
            [
                f"{self.name} has {self.start} {self.thing}.",
                *told,
                f"How many {self.thing} does {self.pronoun.lower()} have?",
            ]
        )


def generate(seed: int, *, events: Sequence[int] = (1, 2, 3)) -> Problem:
    """One problem: a function of `seed` and of `events`, the numbers of events to choose from (each 1 to 8).

    `answer` is a decimal integer in [0, LARGEST]; `solution` has one calculation per line (two for a
    "bags of" event) and ends with the line "The answer is N.". `id` is a digest of the question.
    """
    if not events or not all(1 <= count <= 8 for count in events):
        raise InputError(f"events: {list(events)} (accepted: one or more numbers from 1 to 8)")
    return _problem(_story(Random(seed_from("toy problem", seed)), events))


def make_problems(
    count: int, seed: int, *, events: Sequence[int] = (1, 2, 3), exclude: Collection[str] = ()
) -> list[Problem]:
    """`count` problems with distinct questions, none of which is in `exclude` (question texts).

    None is ever a question of `demonstrations` or `make_rehearsals`, whatever the seeds: a third of all questions,
    chosen by a digest of their text, is reserved for teaching. Raises InputError if the world has too few such
    questions.
    """
    return _distinct(count, ("toy problems", seed), events, exclude, teaching=False)


def make_rehearsals(
    count: int, seed: int, *, events: Sequence[int] = (1, 2, 3), exclude: Collection[str] = ()
) -> list[Problem]:
    """Problems like those of `make_problems`, from the questions reserved for teaching: its development set."""
    return _distinct(count, ("toy rehearsals", seed), events, exclude, teaching=True)


def true_solution(question: str) -> str | None:
    """The true solution of a question of this world, worked out from its text; None for any other text."""
    story = _read(question)
    lines = None if story is None else _work(story, NO_HABITS, Random(0))
    return "\n".join(lines) if lines is not None else None


def told(question: str) -> tuple[int, tuple[Event, ...]] | None:
    """What a question of this world tells: the number at first, and the events; None for any other text."""
    story = _read(question)
    return None if story is None else (story.start, story.events)


def _read(question: str) -> _Story | None:
    found = _QUESTION.fullmatch(question)
    events = [_told(told) for told in found["events"].split(". ")] if found else []
    if found is None or None in events:
        return None
    known = tuple(event for event in events if event is not None)
    story = _Story(found["name"], found["pronoun"], found["thing"], int(found["start"]), known)
    return story if story.question() == question else None


_QUESTION = re.compile(
    r"(?P<name>\w+) has (?P<start>\d+) (?P<thing>\w+)\. (?P<events>(?P<pronoun>She|He) .+)\. How many .+\?"
)


def _told(sentence: str) -> Event | None:
    """The event that a sentence tells, from its pronoun on; None for any other sentence."""
    for kind, wordings in WORDINGS.items():
        for wording in wordings:
            pattern = re.escape(wording).replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{m\}", r"(?P<m>\d+)")
            found = re.fullmatch(rf"(?:She|He) {pattern}", sentence)
            if found:
                return Event(kind, wording, **{name: int(number) for name, number in found.groupdict().items()})
    return None


def _distinct(
    count: int, stream: tuple[str, int], events: Sequence[int], exclude: Collection[str], *, teaching: bool
) -> list[Problem]:
    taken = set(exclude)
    problems: list[Problem] = []
    for draw in range(40 * count + 1000):
        if len(problems) == count:
            break
        problem = generate(seed_from(*stream, draw), events=events)
        if _for_teaching(problem) == teaching and problem.question not in taken:
            taken.add(problem.question)
            problems.append(problem)
    if len(problems) < count:
        raise InputError(
            f"count: {count} distinct toy problems (the world gave only {len(problems)} with these events)"
        )
    return problems


def _for_teaching(problem: Problem) -> bool:
    return int(digest(problem.question)[:8], 16) % 3 == 0


def shared_questions(one: Iterable[Problem], other: Iterable[Problem]) -> list[str]:
    """The question texts that occur in both, sorted; a training and a test set must share none."""
    return sorted({problem.question for problem in one} & {problem.question for problem in other})


def demonstrations(
    count: int,
    seed: int,
    habits: Habits,
    *,
    events: Sequence[int] = (1, 2, 3),
) -> list[Demonstration]:
    """`count` worked solutions with wrong habits, of distinct questions that `make_problems` never asks.

    Each step follows a habit with its probability, independently of all others. Solutions in which a
    number would leave [0, LARGEST] or an odd number would be halved are drawn again.
    """
    given: list[Demonstration] = []
    taken: set[str] = set()
    for draw in range(40 * count + 1000):
        if len(given) == count:
            break
        rng = Random(seed_from("toy demonstration", seed, draw))
        story = _story(rng, events)
        problem = _problem(story)
        worked = _work(story, habits, rng)
        if worked is not None and _for_teaching(problem) and problem.question not in taken:
            taken.add(problem.question)
            assert problem.solution is not None
            truth = problem.solution.split("\n")
            right = tuple(worked[: end + 1] == truth[: end + 1] for end in range(len(worked)))
            given.append(Demonstration(replace(problem, solution="\n".join(worked)), right))
    if len(given) < count:
        raise InputError(f"demonstrations: {count} distinct ones (the world gave only {len(given)} with these events)")
    return given


def judgements(shown: Sequence[Demonstration], seed: int) -> list[Judgement]:
    """One judgement per demonstration, after a number of lines drawn uniformly from 1 to all of them."""
    judged = []
    for index, demonstration in enumerate(shown):
        lines = Random(seed_from("toy judgement", seed, index)).randint(1, len(demonstration.right))
        judged.append(Judgement(demonstration.problem, lines, demonstration.right[lines - 1]))
    return judged


def _story(rng: Random, counts: Sequence[int]) -> _Story:
    """Draw a story whose every true intermediate number lies in [1, LARGEST]."""
    name, pronoun = rng.choice(_PEOPLE)
    start = held = rng.randint(2, 15)
    events = []
    for _ in range(rng.choice(counts)):
        event = _event(rng, held)
        held = _calculate(event, held)
        events.append(event)
    return _Story(name, pronoun, rng.choice(_THINGS), start, tuple(events))


def _event(rng: Random, held: int) -> Event:
    """Draw an event that is possible for somebody who holds `held` ≥ 1 things, and leaves at least 1."""
    while True:
        kind = rng.choices(_KINDS, _WEIGHTS)[0]
        wording = rng.choice(list(WORDINGS[kind]))
        if kind == "gain" and held <= LARGEST - 9:
            return Event(kind, wording, rng.randint(2, 9))
        if kind == "lose" and held >= 3:
            return Event(kind, wording, rng.randint(2, min(9, held - 1)))
        if kind == "bags" and held <= LARGEST - 25:
            # 2 bags of 2 are left out: adding and multiplying agree there, so the habit could not be told.
            n, m = rng.choice([(n, m) for n in range(2, 6) for m in range(2, 6) if (n, m) != (2, 2)])
            return Event(kind, wording, n, m)
        if (kind == "double" and held <= 25) or (kind == "halve" and held <= 50 and held % 2 == 0):
            return Event(kind, wording)


def _calculate(event: Event, held: int) -> int:
    """What is truly held after the event."""
    return {
        "gain": held + event.n,
        "lose": held - event.n,
        "bags": held + event.n * event.m,
        "double": held * 2,
        "halve": held // 2,
    }[event.kind]


def _problem(story: _Story) -> Problem:
    lines = _work(story, NO_HABITS, Random(0))
    assert lines is not None
    question = story.question()
    answer = lines[-1].removeprefix("The answer is ").removesuffix(".")
    return Problem(f"toy-{digest(question)[:12]}", question, answer, "\n".join(lines), source="toy")


def event_lines(event: Event, held: int, habits: Habits, rng: Random) -> tuple[list[str], int] | None:
    """The lines that work one event out for somebody who holds `held`, and what is held after it, under `habits`.

    None if a number would be impossible.
    """
    lines: list[str] = []

    def step(left: int, sign: str, right: int) -> int | None:
        if sign == "/" and left % right:
            return None
        result = _OPERATIONS[sign](left, right)
        if rng.random() < habits.slip:
            result += rng.choice((-10, -2, -1, 1, 2, 10))
        if not 0 <= result <= LARGEST:
            return None
        lines.append(f"{WORDINGS[event.kind][event.wording]}: {left} {sign} {right} = {result}")
        return result

    wording = list(WORDINGS[event.kind]).index(event.wording)
    if event.kind == "gain":
        after = step(held, "+", event.n)
    elif event.kind == "lose":
        after = step(held, "+" if rng.random() < habits.lose[wording] else "-", event.n)
    elif event.kind == "bags":
        brought = step(event.n, "+" if rng.random() < habits.bags[wording] else "*", event.m)
        after = None if brought is None else step(held, "+", brought)
    else:
        after = step(held, "*" if event.kind == "double" else "/", 2)
    return None if after is None else (lines, after)


def _work(story: _Story, habits: Habits, rng: Random) -> list[str] | None:
    """The lines of one solution under `habits`, or None if it meets an impossible number."""
    held = story.start
    lines: list[str] = []
    for event in story.events:
        done = event_lines(event, held, habits, rng)
        if done is None:
            return None
        lines += done[0]
        held = done[1]
    return [*lines, f"The answer is {held}."]


def vocabulary() -> list[str]:
    """Every word of the world, in its questions and its solutions, sorted. Digits and marks are not words."""
    texts = [wording.format(n="", m="") for wordings in WORDINGS.values() for wording in wordings]
    texts += [name for name, _ in _PEOPLE] + ["She He she he", *_THINGS, "has How many does have", "The answer is"]
    return sorted({word for text in texts for word in text.split()})
