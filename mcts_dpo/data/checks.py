"""Checks of problem sets: reference answers that cannot be read, training problems that are test problems."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from string import ascii_uppercase

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import shown
from mcts_dpo.data.problem import Problem
from verifiers import get_verifier, verify


def unparsable_answers(problems: Iterable[Problem]) -> list[Problem]:
    """The problems whose reference answer cannot be read, so that no solution of theirs is likely to be right.

    That is: empty, without a letter or digit, with braces that do not match, or unequal to itself for `verify`;
    of a multiple-choice problem, no letter of a choice. They are kept by `load_problems`; callers count and report
    them. Problems without any reference answer (None) are not among them.
    """
    return [problem for problem in problems if problem.answer is not None and not _readable(problem, problem.answer)]


def without_any_answer(problems: Sequence[Problem]) -> str | None:
    """What is to be said of problems none of which has a reference answer that can be read; None where one has.

    Stops at the first that has one.
    """
    if any(problem.answer is not None and _readable(problem, problem.answer) for problem in problems):
        return None
    missing = sum(problem.answer is None for problem in problems)
    how = {len(problems): "is missing", 0: "cannot be read"}.get(missing, f"is missing ({missing}) or cannot be read")
    given = next((problem for problem in problems if problem.answer is not None), None)
    example = "" if given is None else f", for instance {given.id}: {shown(given.answer)}"
    return f"the reference answer of every problem {how} ({len(problems)} problems{example})"


def require_answers(problems: Sequence[Problem], source: str) -> None:
    """Raise InputError unless every problem has a reference answer, without which no policy can be measured on it."""
    without = next((problem.id for problem in problems if problem.answer is None), None)
    if without is not None:
        what = without_any_answer(problems) or f"the problem {without} has no reference answer"
        raise InputError(f"{source}: {what}, so that no policy can be measured on it")


def _readable(problem: Problem, answer: str) -> bool:
    if problem.verifier:
        return bool(get_verifier(problem.verifier)(answer, answer))
    if problem.choices:
        return answer != "" and answer in ascii_uppercase[: len(problem.choices)]
    # Equal texts are equal answers to `verify`, whether or not they mean anything: hence the first two.
    return any(map(str.isalnum, answer)) and _balanced(answer) and bool(verify(answer, answer))


def _balanced(text: str) -> bool:
    braces = re.findall(r"\\.|([{}])", text, re.DOTALL)  # \{ and \} are printed braces
    depth = 0
    for brace in braces:
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return depth == 0


def overlap(train: Iterable[Problem], test: Iterable[Problem], ngram: int | None = None) -> list[tuple[str, str]]:
    """Pairs (training id, test id) of problems that ask the same: a check for contamination.

    Two problems ask the same if their questions (with their choices) are equal after case folding and
    without white space and punctuation that carries no mathematics. With `ngram` also if they share that
    many consecutive words (13 in Brown et al. 2020, *Language Models are Few-Shot Learners*, appendix C;
    boilerplate in a data set then counts as overlap). In the order of `train`, then of `test`.
    """

    def keys(problem: Problem) -> set[str]:
        words = _words(problem)
        spans = range(len(words) - ngram + 1) if ngram else ()
        return {"\n".join(words)} | {" ".join(words[start : start + ngram]) for start in spans if ngram}

    by_key: dict[str, list[int]] = {}
    tests = list(test)
    for index, problem in enumerate(tests):
        for key in keys(problem):
            by_key.setdefault(key, []).append(index)
    pairs = []
    for problem in train:
        found = sorted({index for key in keys(problem) for index in by_key.get(key, ())})
        pairs += [(problem.id, tests[index].id) for index in found]
    return pairs


def _words(problem: Problem) -> list[str]:
    text = unicodedata.normalize("NFKC", " ".join([problem.question, *problem.choices])).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)  # 1,000 is 1000
    text = re.sub(r"['’`]", "", text)
    # A point between digits and the signs of mathematics tell questions apart: 3.5 from 35, a - b from a + b.
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|[,;:?!\"“”‘—–…]", " ", text)
    return text.split()
