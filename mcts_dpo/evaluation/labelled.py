"""Solutions whose steps are known to be right or wrong: from trees, and from files with the first wrong step.

In: a file. Out: `LabelledProblem`s, whose paths a reward can score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mcts_dpo.common.errors import InputError
from mcts_dpo.data import Problem
from mcts_dpo.data.rows import read_rows
from mcts_dpo.models.encoding import Guard
from mcts_dpo.models.prompts import PromptSettings, prompt_tokens
from mcts_dpo.preferences.steps import outcomes_below
from mcts_dpo.rewards.base import SolutionPath
from mcts_dpo.search import Forest
from mcts_dpo.search.paths import solution_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEWEST = 4
"""A step without a right solution below it counts as wrong from so many verified samples on. Fewer: not known."""


@dataclass(frozen=True, slots=True)
class LabelledSolution:
    """One solution. paths: [k] up to each step. right, final_right, shared: as in `judges.JudgedSolution`.

    Solutions of one tree share the path objects of the steps that they have in common.
    """

    paths: tuple[SolutionPath, ...]
    right: tuple[bool | None, ...]
    final_right: bool | None
    shared: int = 0


@dataclass(frozen=True, slots=True)
class LabelledProblem:
    """A problem and its solutions. group: what intervals take as one; "": the problem's id."""

    problem: Problem
    solutions: Sequence[LabelledSolution]
    group: str = ""


# --- trees -------------------------------------------------------------------------------------------------


def labelled_trees(
    file: Path, problems: Mapping[str, Problem], prompt: PromptSettings, fewest: int = FEWEST
) -> list[LabelledProblem]:
    """The sampled solutions of a file of trees, with labels from outcomes.

    A solution is right if its outcome is. A step before the end is right if a right solution was sampled below it, and
    wrong if none was, of at least `fewest` verified samples (Math-Shepherd's hard label, Wang et al. 2024, arXiv
    2312.08935, section 3.3).

    problems: those of the trees, by id. Raises InputError for a file that is no forest, or a problem that is missing.
    """
    forest = Forest.load(file)
    known, right = outcomes_below(forest)
    found = []
    for info, nodes in zip(forest.trees, forest.nodes_by_tree(), strict=True):
        if info.problem_id not in problems:
            raise InputError(
                f"{file}: its problem {info.problem_id!r} is not in --problems; accepted: all problems of the trees"
            )
        paths: dict[int, SolutionPath] = {}
        labels: dict[int, bool | None] = {}
        solutions = []
        for leaf in _in_depth_order(forest, int(nodes[0])):
            way = forest.path(leaf)[1:]
            shared = sum(node in paths for node in way)
            for node in way[shared:]:
                paths[node] = solution_path(forest, node, prompt.prefill)
                labels[node] = _label(forest, node, int(known[node]), int(right[node]), fewest)
            outcome = int(forest.outcome[leaf])
            solutions.append(
                LabelledSolution(
                    tuple(paths[node] for node in way),
                    tuple(labels[node] for node in way),
                    outcome > 0 if outcome else None,
                    shared,
                )
            )
        if solutions:
            found.append(LabelledProblem(problems[info.problem_id], solutions))
    return found


def _in_depth_order(forest: Forest, root: int) -> list[int]:
    """The sampled ends of a tree in depth-first order, so that what an end shares with earlier ends is a prefix."""
    found, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        waiting += reversed(forest.children(node))
        if forest.terminal[node] and forest.samples[node]:
            found.append(node)
    return found


def _label(forest: Forest, node: int, known: int, right: int, fewest: int) -> bool | None:
    if right:
        return True
    enough = known >= (1 if forest.terminal[node] else fewest)
    return False if enough else None


# --- files of labelled steps ---------------------------------------------------------------------------------


def labelled_steps(
    file: Path, prompt: PromptSettings, tokenizer: PreTrainedTokenizerBase | None = None
) -> list[LabelledProblem]:
    """The solutions of a file (.jsonl, .json, .csv, .parquet) whose rows say which step is the first wrong one.

    A row has `question` (or `problem`), `steps` (a list of texts), `first_error` (or `label`: the index of the first
    wrong step from 0; -1: all are right), and may have `final_answer_correct`. So ProcessBench's rows are read, too.

    tokenizer: the policy's. The steps then have tokens, each step tokenised by itself, so that tokens end where steps
    do. None: paths are text only, for judges with a tokenizer of their own.

    Raises InputError that names the row for a row of another form, or if there is none.
    """
    found = []
    for row in read_rows(file):
        if isinstance(row, InputError):
            raise row
        found.append(_labelled_row(dict(row.values), row.where, prompt, tokenizer))
    if not found:
        raise InputError(f"{file}: no rows; accepted: rows with `question`, `steps`, `first_error`")
    return found


def _labelled_row(
    row: dict[str, Any], where: str, prompt: PromptSettings, tokenizer: PreTrainedTokenizerBase | None
) -> LabelledProblem:
    question, steps = row.get("question", row.get("problem")), row.get("steps")
    error = row.get("first_error", row.get("label"))
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{where}: no text under 'question'; accepted: `question` (or `problem`), a text")
    steps = steps.tolist() if isinstance(steps, np.ndarray) else steps
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
        raise InputError(f"{where}: no texts under 'steps'; accepted: `steps`, a list of one text or more")
    if isinstance(error, bool) or not isinstance(error, int) or not -1 <= error < len(steps):
        raise InputError(
            f"{where}: first_error is {error!r}; accepted: -1 (all steps are right) to {len(steps) - 1}, an integer"
        )
    right = tuple(error < 0 or index < error for index in range(len(steps) if error < 0 else error + 1))
    final = row.get("final_answer_correct")
    if final is not None and not isinstance(final, bool | np.bool_):
        raise InputError(f"{where}: final_answer_correct is {final!r}; accepted: true, false, or null")
    problem = Problem(str(row.get("id", where)), question)
    solution = LabelledSolution(
        _text_paths(problem, steps, prompt, tokenizer),
        right + (None,) * (len(steps) - len(right)),
        bool(final) if final is not None else error < 0,
    )
    return LabelledProblem(problem, (solution,), question)


def _text_paths(
    problem: Problem, steps: Sequence[str], prompt: PromptSettings, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[SolutionPath, ...]:
    """The path up to each step. Every step but the last ends with `prompt.step_end`."""
    last = len(steps) - 1
    texts = [
        step if index == last or step.endswith(prompt.step_end) else step + prompt.step_end
        for index, step in enumerate(steps)
    ]
    before: tuple[int, ...] = ()
    ids: list[tuple[int, ...]] = [() for _ in texts]
    if tokenizer is not None:
        before = prompt_tokens(problem, tokenizer, prompt)
        guard = Guard(tokenizer, texts, prompt.special_tokens)
        ids = [guard.ids(guard.text(text)) for text in texts]
    ends = tuple(accumulate(map(len, ids)))
    tokens = tuple(token for step in ids for token in step)
    return tuple(
        SolutionPath(
            prompt=before,
            tokens=tokens[: ends[index]],
            text=prompt.prefill + "".join(texts[: index + 1]),
            steps=tuple(texts[: index + 1]),
            ends=ends[: index + 1],
            terminal=index == last,
        )
        for index in range(len(texts))
    )
