"""The world against an independent reader of its stories, and its habits against their rates."""

from __future__ import annotations

import math
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.toy.world import (
    LARGEST,
    NO_HABITS,
    WORDINGS,
    Habits,
    demonstrations,
    generate,
    judgements,
    make_problems,
    make_rehearsals,
    shared_questions,
    vocabulary,
)
from verifiers import extract_answer, verify

READINGS = [
    (r"(?:finds|buys) (\d+) more|gets (\d+) from a friend|is given (\d+)", "gain"),
    (r"(?:loses|gives away|sells|drops) (\d+)", "lose"),
    (r"\w+ (\d+) (?:bags of|packs of|boxes of|jars with) (\d+)", "bags"),
    (r"finds as many again|doubles the number", "double"),
    (r"(?:gives away|sells) half", "halve"),
]


def read(question: str) -> tuple[int, list[tuple[str, list[int]]]]:
    """The start and the events of a story, from its text alone."""
    first, *told, _ = question.removesuffix("?").split(". ")
    opening = re.fullmatch(r"\w+ has (\d+) \w+", first)
    assert opening
    events = []
    for sentence in told:
        body = sentence.split(" ", 1)[1]
        kinds = [(kind, found) for pattern, kind in READINGS if (found := re.fullmatch(pattern, body))]
        assert len(kinds) == 1, sentence
        events.append((kinds[0][0], [int(group) for group in kinds[0][1].groups() if group]))
    return int(opening[1]), events


def solve(question: str) -> int:
    held, events = read(question)
    for kind, numbers in events:
        if kind == "gain":
            held += numbers[0]
        elif kind == "lose":
            held -= numbers[0]
        elif kind == "bags":
            held += math.prod(numbers)
        elif kind == "double":
            held += held
        else:
            assert held % 2 == 0, question
            held //= 2
        assert 1 <= held <= LARGEST, question
    return held


def lines(problem: Problem) -> list[str]:
    assert problem.solution is not None
    return problem.solution.split("\n")


@given(seed=st.integers(0, 2**62), events=st.lists(st.integers(1, 8), min_size=1, max_size=3))
def test_the_answer_is_what_a_reader_of_the_story_finds(seed: int, events: list[int]) -> None:
    problem = generate(seed, events=events)
    assert problem.answer == str(solve(problem.question))
    assert len(read(problem.question)[1]) in events
    assert generate(seed, events=events) == problem
    *steps, last = lines(problem)
    assert last == f"The answer is {problem.answer}."
    for step in steps:
        left, sign, right, result = re.fullmatch(r"\w+: (\d+) ([-+*/]) (\d+) = (\d+)", step).groups()  # type: ignore[union-attr]
        assert {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}.get(
            sign, int(left) / int(right)
        ) == int(result)
        assert 0 <= int(result) <= LARGEST
        assert step.split(":")[0] in problem.question.split("?")[0].replace(".", "").split()
    assert verify(problem.answer, extract_answer(problem.solution or "", "answer_is"))


def test_problems_are_distinct_and_depend_on_nothing_but_the_arguments() -> None:
    problems = make_problems(400, 3, events=(1, 2))
    assert problems == make_problems(400, 3, events=(1, 2))
    assert len({problem.question for problem in problems}) == len({problem.id for problem in problems}) == 400
    assert not {problem.id for problem in problems} <= {problem.id for problem in make_problems(400, 4, events=(1, 2))}


def test_excluded_questions_are_not_asked() -> None:
    before = make_problems(50, 0, events=(1,))
    after = make_problems(50, 0, events=(1,), exclude={problem.question for problem in before[::2]})
    assert shared_questions(before, after) == sorted(problem.question for problem in before[1::2])


def test_what_is_taught_is_never_asked() -> None:
    taught = [one.problem for one in demonstrations(3000, 0, Habits(), events=(1,))]
    rehearsed = make_rehearsals(1000, 0, events=(1,))
    asked = [problem for seed in range(3) for problem in make_problems(2000, seed, events=(1,))]
    assert shared_questions(taught, rehearsed)  # the set aside is small enough for these two to meet
    assert shared_questions([*taught, *rehearsed], asked) == []


def test_every_wording_is_told() -> None:
    text = " ".join(problem.question for problem in make_problems(300, 0))
    for wordings in WORDINGS.values():
        for wording in wordings:
            assert re.search(re.sub(r"\{.\}", r"\\d+", wording), text), wording
    assert set(re.findall(r"[A-Za-z]+", text + " The answer is")) <= set(vocabulary())


def test_without_habits_every_demonstration_is_right() -> None:
    for demonstration in demonstrations(200, 5, NO_HABITS):
        assert all(demonstration.right)
        assert lines(demonstration.problem)[-1] == f"The answer is {solve(demonstration.problem.question)}."


def _wrong_turns(habits: Habits, count: int) -> Counter[tuple[str, bool]]:
    """How often the (only) step of a wording added, in one-event demonstrations."""
    turns: Counter[tuple[str, bool]] = Counter()
    for demonstration in demonstrations(count, 7, habits, events=(1,)):
        for kind in ("lose", "bags"):
            for wording in WORDINGS[kind]:
                if re.search(re.sub(r"\{.\}", r"\\d+", wording), demonstration.problem.question):
                    turns[wording, " + " in lines(demonstration.problem)[0]] += 1
    return turns


def test_habits_are_followed_at_their_rates() -> None:
    habits = Habits(lose=(0.0, 0.2, 0.7, 1.0), bags=(0.5, 1.0, 0.0, 0.3), slip=0.0)
    turns = _wrong_turns(habits, 6000)
    for wordings, rates in ((WORDINGS["lose"], habits.lose), (WORDINGS["bags"], habits.bags)):
        for wording, rate in zip(wordings, rates, strict=True):
            wrong, count = turns[wording, True], turns[wording, True] + turns[wording, False]
            assert count > 200
            assert abs(wrong / count - rate) <= 4.5 * math.sqrt(rate * (1 - rate) / count)


def test_slips_are_rare_and_of_the_told_size() -> None:
    shown = demonstrations(3000, 1, NO_HABITS.model_copy(update={"slip": 0.1}), events=(1,))
    sizes = Counter(
        int(extract_answer(one.problem.solution or "", "answer_is") or "nan") - int(one.problem.answer or "nan")
        for one in shown
        if len(lines(one.problem)) == 2
    )
    assert set(sizes) == {-10, -2, -1, 0, 1, 2, 10}
    assert 0.06 < 1 - sizes[0] / sizes.total() < 0.12  # some slips are drawn again: they leave the world's numbers


def test_right_means_equal_to_the_true_solution_so_far() -> None:
    truths = {problem.question: problem for problem in make_rehearsals(4000, 0, events=(1,))}
    met = [one for one in demonstrations(3000, 0, Habits(), events=(1,)) if one.problem.question in truths]
    assert len(met) > 50
    for demonstration in met:
        truth = truths[demonstration.problem.question]
        assert demonstration.problem.answer == truth.answer
        assert demonstration.right[-1] == (demonstration.problem.solution == truth.solution)
        given_lines, true_lines = lines(demonstration.problem), lines(truth)
        assert list(demonstration.right) == [
            given_lines[: end + 1] == true_lines[: end + 1] for end in range(len(given_lines))
        ]


def test_judgements_ask_about_beginnings_of_every_length() -> None:
    shown = demonstrations(500, 2, Habits())
    judged = judgements(shown, 0)
    assert judged == judgements(shown, 0) != judgements(shown, 1)
    assert {judgement.right for judgement in judged} == {True, False}
    whole = 0
    for demonstration, judgement in zip(shown, judged, strict=True):
        solution = demonstration.problem.solution or ""
        assert solution.startswith(judgement.text())
        assert judgement.right == demonstration.right[judgement.lines - 1]
        assert len(judgement.text().splitlines()) == judgement.lines
        whole += judgement.text() == solution
        assert judgement.text() == solution or judgement.text().endswith("\n")
    assert 100 < whole < 400


@pytest.mark.parametrize("events", [(), (0,), (1, 9)])
def test_impossible_numbers_of_events_are_refused(events: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"^events: .*accepted: one or more numbers from 1 to 8"):
        make_problems(1, 0, events=events)


def test_too_many_problems_are_refused() -> None:
    everything = {generate(seed_from("toy problems", 0, draw), events=(1,)).question for draw in range(1100)}
    with pytest.raises(InputError, match=r"^count: 2 distinct toy problems \(the world gave only 0"):
        make_problems(2, 0, events=(1,), exclude=everything)


def test_a_rate_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Habits(slip=1.5)
