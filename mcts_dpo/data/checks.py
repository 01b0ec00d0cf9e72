"""Checks of problem sets: which reference answers cannot be read, and which training problems are test problems."""

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
    """The problems whose reference answer cannot be read. No solution of such a problem is likely to count as right.

    An answer cannot be read if it is empty, has no letter or digit, has braces that do not match, or is unequal to
    itself for `verify`. For multiple choice: if it is not the letter of a choice. `load_problems` keeps these problems;
    callers count and report them. Problems without a reference answer (None) are not included.
    """
    return [problem for problem in problems if problem.answer is not None and not _readable(problem, problem.answer)]


def without_any_answer(problems: Sequence[Problem]) -> str | None:
    """A warning for a set in which no problem has a readable reference answer; None if at least one has."""
    if any(problem.answer is not None and _readable(problem, problem.answer) for problem in problems):
        return None
    missing = sum(problem.answer is None for problem in problems)
    how = {len(problems): "is missing", 0: "cannot be read"}.get(missing, f"is missing ({missing}) or cannot be read")
    given = next((problem for problem in problems if problem.answer is not None), None)
    example = "" if given is None else f", for instance {given.id}: {shown(given.answer)}"
    return f"the reference answer of every problem {how} ({len(problems)} problems{example})"


def require_answers(problems: Sequence[Problem], source: str) -> None:
    """Raise InputError unless every problem has a reference answer. Accuracy cannot be measured without one."""
    without = next((problem.id for problem in problems if problem.answer is None), None)
    if without is not None:
        what = without_any_answer(problems) or f"the problem {without} has no reference answer"
        raise InputError(f"{source}: {what}, so that no policy can be measured on it")


def _readable(problem: Problem, answer: str) -> bool:
    if problem.verifier:
        return bool(get_verifier(problem.verifier)(answer, answer))
    if problem.choices:
        return answer != "" and answer in ascii_uppercase[: len(problem.choices)]
    # `verify` calls equal texts equal even if they mean nothing. The first two conditions catch those.
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

    Two problems ask the same if their questions and choices are equal after case folding, and after white space and
    punctuation without mathematical meaning are removed. With `ngram`, they also ask the same if they share that many
    consecutive words. Source: 13 words in Brown et al. 2020 (arXiv 2005.14165), appendix C. Text that a data set
    repeats in every question then counts as overlap. The pairs are in the order of `train`, then of `test`.
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
    # Decimal points and mathematical signs stay: they tell 3.5 from 35, and a - b from a + b.
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|[,;:?!\"“”‘—–…]", " ", text)
    return text.split()
