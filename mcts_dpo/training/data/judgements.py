"""Questions that teach a policy to judge its own steps, made from the labelled steps of trees.

In: labelled steps, the policy's tokenizer, and how its search asks. Out: `Solutions` whose prompt is a solution so far
with the question behind it, and whose completion is yes or no. The question is the one that the reward
`self_evaluation` asks, so what is taught is what a search reads.

`steps.correctness` says which steps are right, which are wrong, and what a first error is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.endings import endings
from mcts_dpo.models.prompts import PromptSettings, self_evaluation
from mcts_dpo.preferences.dataset import Solutions, Steps
from mcts_dpo.training.data.steps import correctness
from mcts_dpo.training.settings import SelfEvaluationLossSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class NoQuestionsError(InputError):
    """Labelled steps that hold no first error, so that there is nothing to ask about."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One step that is judged: its row in the table, its place on the path, and whether it and all before are right."""

    row: int
    step: int
    right: bool


def make_judgements(
    table: Steps,
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptSettings,
    settings: SelfEvaluationLossSettings,
    seed: int,
) -> Solutions:
    """Questions about steps: every first error once, and others in the shares of the settings.

    prompt: as the search has it. seed: of which other steps are asked about, and of the order.

    Raises NoQuestionsError, an InputError, if the table has no first error.
    """
    errors, before, known = _pools(table, settings.min_samples)
    if not errors:
        raise NoQuestionsError(
            f"{table.what}: no first error: no step of value 0 with {settings.min_samples} samples below it follows a "
            "state of a value above 0 (accepted: trees with more samples, or a lower "
            "training.self_evaluation.min_samples)"
        )
    generator = np.random.default_rng(seed)
    total = len(errors) / settings.first_errors
    chosen = [
        *errors,
        *_drawn(before, round(total * settings.before), generator),
        *_drawn(known, round(total * (1 - settings.first_errors - settings.before)), generator),
    ]
    order = generator.permutation(len(chosen)).tolist()
    return _questions(table, [chosen[index] for index in order], tokenizer, prompt)


def _pools(table: Steps, min_samples: int) -> tuple[list[Judgement], list[Judgement], list[Judgement]]:
    """First errors, steps before them, and all steps of which it is known whether they are right: each state once."""
    pools: tuple[dict[Any, Judgement], ...] = ({}, {}, {})
    for row, (right, error, states) in enumerate(zip(*correctness(table, min_samples), _states(table), strict=True)):
        for step in np.flatnonzero(~np.isnan(right)).tolist():
            found = Judgement(row, step, bool(right[step]))
            if error is not None and step <= error:
                pools[step < error].setdefault(states[step], found)
            pools[2].setdefault(states[step], found)
    return list(pools[0].values()), list(pools[1].values()), list(pools[2].values())


def _states(table: Steps) -> Iterator[list[bytes]]:
    """For each row, a digest of each step's state: its question and all tokens up to the step's end."""
    prompt, completion, ends = (table.tokens(name) for name in ("prompt_tokens", "completion_tokens", "step_ends"))
    for row in range(len(table)):
        running = hashlib.blake2b(len(prompt[row]).to_bytes(8, "big") + prompt[row].tobytes(), digest_size=16)
        found, start = [], 0
        for end in ends[row].tolist():
            running.update(completion[row][start:end].tobytes())
            found.append(running.digest())
            start = end
        yield found


def _drawn(pool: Sequence[Judgement], count: int, generator: np.random.Generator) -> list[Judgement]:
    """`count` of the pool, each as often as the others up to one; none of an empty pool."""
    if not pool:
        return []
    rounds = [generator.permutation(len(pool)) for _ in range(-(-count // len(pool)))]
    order: NDArray[np.int64] = np.concatenate(rounds)[:count] if rounds else np.empty(0, np.int64)
    return [pool[index] for index in order.tolist()]


def _questions(
    table: Steps, judged: Sequence[Judgement], tokenizer: PreTrainedTokenizerBase, prompt: PromptSettings
) -> Solutions:
    suffix, (yes, no) = self_evaluation(tokenizer, prompt)
    known = endings(tokenizer)
    closing = {known.sequence, known.turn, *known.others}
    start, completion, ends = (table.tokens(name) for name in ("prompt_tokens", "completion_tokens", "step_ends"))
    values, nodes = table.tokens("values"), table.tokens("nodes")
    problems, numbers = table.texts("problem_id"), table.numbers("tree")
    rows: list[dict[str, Any]] = []
    for one in judged:
        shown = completion[one.row][: ends[one.row][one.step]].tolist()
        # The question closes the turn itself.
        shown = shown[:-1] if shown[-1] in closing else shown
        context, reply = [*start[one.row].tolist(), *shown, *suffix], yes if one.right else no
        rows.append(
            {
                "problem_id": problems[one.row],
                "tree": numbers[one.row],
                "leaf": nodes[one.row][one.step],
                "prompt": tokenizer.decode(context),
                "completion": tokenizer.decode(reply),
                "prompt_tokens": context,
                "completion_tokens": reply,
                "q": float(values[one.row][one.step]),
                "weight": 1.0,
            }
        )
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return Solutions.from_columns(columns, table.tokenizer)
