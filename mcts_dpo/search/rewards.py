"""What a step is worth: R = O + w · C (Xie et al. 2024, arXiv 2405.00451, section 2.1).

O, the outcome, is +1 or -1 where a solution ends with an answer that is verified right or wrong, and 0 elsewhere.
Where no verdict was reached (a proof ran out of time twice, a verifier could not be asked) it is 0 as well.
An end without an answer, or cut by a limit, is wrong: that needs no reference answer to be known. C, the
self-evaluation, is the probability that the policy says yes when asked whether the reasoning so far is right.

In: texts, a problem, settings. Out: numbers, and the requests whose completions are C. With a problem that holds
no answer (`Problem.without_answer`, as a solving search is handed) O of an answered solution is 0: only C speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.models.prompts import PromptSettings, self_evaluation
from mcts_dpo.search.settings import NoiseSettings, SelfEvaluationSettings, ValueRewardSettings
from verifiers import Verdict, extract_answer, get_verifier, states_answer, verify, verify_choice

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mcts_dpo.models.value_head import ValueModel


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the end of a solution says.

    value:    O: +1, -1, or 0 if it cannot be known.
    answer:   the final answer as extracted; None without one, or if the solution was cut.
    verified: False if there is an answer and a reference, but no comparison was possible or none was reached.
    """

    value: int
    answer: str | None
    verified: bool = True


def outcome(solution: str, cut: bool, problem: Problem, style: str) -> Outcome:
    """O of a solution that ends here. cut: by a length limit. style: see `verifiers.extract_answer`."""
    answer = None if cut else extract_answer(solution, style)
    if answer is None:
        return Outcome(-1, None)
    if problem.answer is None or not readable(problem):
        return Outcome(0, answer)
    found = verdict(problem, answer)
    return Outcome(1 if found else 0 if found.undecided else -1, answer, found.outcome in ("equal", "unequal"))


def with_noise(found: Outcome, solution: str, problem: Problem, noise: NoiseSettings, seed: int) -> Outcome:
    """The outcome after `noise`: a function of the solution's text, the problem, the settings and the seed alone."""
    if found.value != -1 or found.answer is None:
        return found
    for rate, of, what in ((noise.per_rollout, "rollout", solution), (noise.per_answer, "answer", found.answer)):
        if rate and seed_from(seed, "noise", of, problem.id, what) < rate * 2**63:
            return replace(found, value=1)
    return found


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


def ends_with_answer(before: str, step: str, prompt: PromptSettings, opened: str = "") -> bool:
    """Whether the solution may end with `step`, because it states an answer (see `verifiers.states_answer`).

    before: the solution up to the step, without `prompt.prefill`. opened: see `prompts.opened_thought`. Tree search and
    beam search share this rule.
    """
    return states_answer(step, prompt.answer_style, before=opened + prompt.prefill + before)


@dataclass(frozen=True, slots=True)
class SelfEvaluationPrompt:
    """The self-evaluation of one problem: what is appended to the solution so far, and the answers yes and no."""

    suffix: tuple[int, ...]
    choices: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def cost(self) -> int:
        """What one question counts for in a budget of generated tokens: the longer answer."""
        return max(map(len, self.choices))

    @property
    def room(self) -> int:
        """Tokens that must be left in the context after a solution."""
        return len(self.suffix) + self.cost


def self_evaluation_prompt(
    problem: Problem, tokenizer: PreTrainedTokenizerBase, prompt: PromptSettings, settings: SelfEvaluationSettings
) -> SelfEvaluationPrompt | None:
    """The question to ask for this problem; None if self-evaluation has no weight."""
    if settings.weight == 0.0:
        return None
    hint = (problem.solution or problem.answer) if settings.hint else None
    suffix, (yes, no) = self_evaluation(tokenizer, prompt, hint)
    return SelfEvaluationPrompt(tuple(suffix), (tuple(yes), tuple(no)))


def value_model(settings: ValueRewardSettings | None, tokenizer: PreTrainedTokenizerBase) -> ValueModel | None:
    """The value model to ask; None if none has weight. Raises InputError if it cannot be loaded, or has other ids."""
    if settings is None or settings.weight == 0.0:
        return None
    from mcts_dpo.models.value_head import value_model_for  # not before it is wanted: it brings torch along

    return value_model_for(settings.path, tokenizer)


def probability_of_yes(probabilities: Sequence[float]) -> float:
    """C = P(yes) / (P(yes) + P(no)) from a completion over (yes, no), which an engine has normalised already."""
    return float(probabilities[0])
