"""Is a solution right? Its final answer is extracted and compared with the problem's.

In: texts and a problem. Out: verifications and verdicts. With a problem that holds no answer
(`Problem.without_answer`, which a solving search gets) an answered solution is neither right nor wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from mcts_dpo.data import Problem
from mcts_dpo.models.phases import without_thoughts
from mcts_dpo.models.prompts import PromptSettings, Thoughts
from verifiers import Verdict, extract_answer, get_verifier, states_answer, verify, verify_choice


@dataclass(frozen=True, slots=True)
class Verification:
    """What the end of a solution says.

    value:    +1 right, -1 wrong, or 0 if it cannot be known.
    answer:   the final answer as extracted; None without one, or if the solution was cut.
    verified: False if there is an answer and a reference, but no comparison was possible or none was reached.
    """

    value: int
    answer: str | None
    verified: bool = True


def verify_solution(solution: str, cut: bool, problem: Problem, style: str) -> Verification:
    """Verify a solution that ends here. cut: by a length limit. style: see `verifiers.extract_answer`."""
    answer = None if cut else extract_answer(solution, style)
    return Verification(-1, None) if answer is None else _verification(answer, problem)


def _verification(answer: str, problem: Problem) -> Verification:
    if problem.answer is None or not readable(problem):
        return Verification(0, answer)
    found = verdict(problem, answer)
    return Verification(1 if found else 0 if found.undecided else -1, answer, found.outcome in ("equal", "unequal"))


def readable(problem: Problem) -> bool:
    """Whether the reference answer can be parsed; if not, nothing can be verified against it."""
    return problem.answer is not None and bool(verdict(problem, problem.answer))


def verdict(problem: Problem, answer: str | None) -> Verdict:
    """Whether `answer` is the problem's, as a letter or as mathematics. None, or no reference answer: unparsed.

    A verdict that was not reached (see `Verdict.undecided`) is tried once more, and is never kept for the next time.
    """
    if answer is None or (problem.answer is None and not problem.verifier):
        return verify(problem.answer or "", answer)  # at once, and nothing of it is kept: a server is asked for ever
    question = (problem.answer or "", answer, problem.choices, problem.verifier)
    try:
        return _decided(*question)
    except _UndecidedError:
        pass
    try:
        return _decided(*question)
    except _UndecidedError as again:
        return again.verdict


class _UndecidedError(Exception):
    """No verdict was reached. An exception, because a cache keeps none."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


@lru_cache(maxsize=1 << 16)
def _decided(reference: str, answer: str, choices: tuple[str, ...], verifier: str) -> Verdict:
    # The same few answers come again and again in one tree, and a symbolic comparison takes milliseconds.
    try:
        found = _asked(reference, answer, choices, verifier)
    except OSError as error:  # a verifier of the user's, say, whose server is not there
        found = Verdict("timeout", reason=f"no verdict: {type(error).__name__}: {error}")
    if found.undecided:
        raise _UndecidedError(found)
    return found


def _asked(reference: str, answer: str, choices: tuple[str, ...], verifier: str) -> Verdict:
    if verifier:
        return get_verifier(verifier)(reference, answer)
    return verify_choice(reference, answer, options=choices) if choices else verify(reference, answer)


def read_solution(
    text: str, cut: bool, problem: Problem, thoughts: Thoughts, answer: str | None = None
) -> Verification:
    """Verify a solution of a policy. text: it begins with `prompt.prefill`. An answer in a thought does not count.

    answer: what an environment has read off the end (`environments.Reply.answer`); it counts instead of the text's.
    """
    if answer is not None:
        return _verification(answer, problem)
    return verify_solution(thoughts.stated(text), cut, problem, thoughts.settings.answer_style)


def step_ending(before: str, step: str, thoughts: Thoughts) -> Literal["stop", "answer", ""]:
    """Why the solution ends with `step`: it meets a stop string of whole solutions, or states an answer; "" if neither.

    before: the solution up to the step, without `prompt.prefill`. A stop string may begin in it: steps end with one
    line break, say, and solutions with two. Inside a thought nothing ends a solution. Tree search and beam search share
    this rule.
    """
    prompt = thoughts.settings
    if thoughts.phase(prompt.prefill + before + step) == "thought":
        return ""
    whole = before + step
    if any(whole.find(stop, max(0, len(before) - len(stop) + 1)) >= 0 for stop in prompt.stop):
        return "stop"
    return "answer" if ends_with_answer(before, step, prompt, thoughts.opened) else ""


def ends_with_answer(before: str, step: str, prompt: PromptSettings, opened: str = "") -> bool:
    """Whether the solution may end with `step`, because it states an answer (see `verifiers.states_answer`).

    before: the solution up to the step, without `prompt.prefill`. opened: see `prompts.opened_thought`.
    """
    lead = opened + prompt.prefill + before
    if prompt.thought_marks:
        step, lead = without_thoughts(step, prompt.thought_marks, lead), ""
    return states_answer(step, prompt.answer_style, before=lead)
