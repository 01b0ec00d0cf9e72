"""The tables that the search gives to the trainer: preference pairs, lists of siblings, solutions, labelled steps.

A table holds columns of numbers, text and token ids in one Arrow table, and is written as one Parquet file. TRL reads
the columns `prompt`, `chosen`, `rejected` and `prompt`, `completion`. `datasets.load_dataset("parquet", ...)` reads all
columns. See `typed_table` for what all tables have in common.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mcts_dpo.common.errors import InputError
from mcts_dpo.preferences.typed_table import TOKENS, JaggedArray, TypedTable, schema_of

__all__ = ["JaggedArray", "Pairs", "Siblings", "Solutions", "Steps"]


class Pairs(TypedTable):
    """Step-level preferences: after the same prefix, one step is preferred to another. One row per pair.

    problem_id:      str, the problem of the tree.
    tree:            int32, which tree of its shard; parent, chosen_node, rejected_node: int32 node ids in it.
    prompt:          str, question prompt and the steps so far, as text; chosen, rejected: str, the two steps.
    prompt_tokens:   [≥ 1] int32, the question prompt only.
    prefix_tokens:   [≥ 0] int32, the policy's own steps before the pair.
    chosen_tokens, rejected_tokens: [≥ 1] int32, the step only; never equal.
    prefix_environment, chosen_environment, rejected_environment: [≥ 0] int32, see `typed_table.ENVIRONMENT`.
    chosen_q, rejected_q: float64, action values; margin: float64, their gap.
    chosen_visits, rejected_visits, chosen_samples, rejected_samples: int32, evidence counted in two ways.
    smoothing:       float64 in [0, 0.5), the probability that the label is reversed (0: none).
    weight:          float64 > 0, the weight of the pair in the mean.
    chosen_logprob, rejected_logprob: float64 ≤ 0 nats, log π of the step under the sampling policy; nan if unknown.

    Source of the columns: Xie et al. 2024, arXiv 2405.00451, section 2.2.
    """

    __slots__ = ()
    what: ClassVar[str] = "pairs"
    schema: ClassVar[Any] = schema_of(
        problem_id=pa.string(),
        tree=pa.int32(),
        parent=pa.int32(),
        chosen_node=pa.int32(),
        rejected_node=pa.int32(),
        prompt=pa.string(),
        chosen=pa.string(),
        rejected=pa.string(),
        prompt_tokens=TOKENS,
        prefix_tokens=TOKENS,
        chosen_tokens=TOKENS,
        rejected_tokens=TOKENS,
        prefix_environment=TOKENS,
        chosen_environment=TOKENS,
        rejected_environment=TOKENS,
        chosen_q=pa.float64(),
        rejected_q=pa.float64(),
        margin=pa.float64(),
        chosen_visits=pa.int32(),
        rejected_visits=pa.int32(),
        chosen_samples=pa.int32(),
        rejected_samples=pa.int32(),
        smoothing=pa.float64(),
        weight=pa.float64(),
        chosen_logprob=pa.float64(),
        rejected_logprob=pa.float64(),
    )

    def _check(self, where: str) -> None:
        self._check_tokens(where, "prompt_tokens", "chosen_tokens", "rejected_tokens")
        self._check_tokens(where, "prefix_tokens", empty=True)
        self._check_environment(where, "chosen", "rejected")
        self._check_environment(where, "prefix", prefix=True)
        self._check_finite(where, "chosen_q", "rejected_q", "margin")
        for column in ("chosen_logprob", "rejected_logprob"):
            self._refuse(where, column, np.isinf(self.numbers(column)), "a finite number, or nan for unknown")
        self._check_positive(where, "weight")
        smoothing = self.numbers("smoothing")
        self._refuse(where, "smoothing", ~((smoothing >= 0) & (smoothing < 0.5)), "from 0 to below 0.5")
        chosen, rejected = self.tokens("chosen_tokens"), self.tokens("rejected_tokens")
        for row in np.flatnonzero(chosen.lengths == rejected.lengths).tolist():
            if np.array_equal(chosen[row], rejected[row]):
                step = self.table.column("chosen")[row].as_py()
                raise InputError(f"{where}: row {row}: chosen equals rejected ({step!r}); a pair needs two steps")


class Solutions(TypedTable):
    """Whole solutions for supervised fine-tuning. One row per solution.

    problem_id:        str; tree, leaf: int32, which tree of its shard, and the node where the solution ends.
    prompt:            str, the question prompt; completion: str, the solution.
    prompt_tokens:     [≥ 1] int32; completion_tokens: [≥ 1] int32, the end of sequence included.
    completion_environment: [≥ 0] int32, see `typed_table.ENVIRONMENT`.
    q:                 float64, the value of the path.
    weight:            float64 > 0, the weight of the solution in the mean over tokens.
    """

    __slots__ = ()
    what: ClassVar[str] = "solutions"
    schema: ClassVar[Any] = schema_of(
        problem_id=pa.string(),
        tree=pa.int32(),
        leaf=pa.int32(),
        prompt=pa.string(),
        completion=pa.string(),
        prompt_tokens=TOKENS,
        completion_tokens=TOKENS,
        completion_environment=TOKENS,
        q=pa.float64(),
        weight=pa.float64(),
    )

    def _check(self, where: str) -> None:
        self._check_tokens(where, "prompt_tokens", "completion_tokens")
        self._check_environment(where, "completion")
        self._check_finite(where, "q")
        self._check_positive(where, "weight")


class Siblings(TypedTable):
    """Lists of alternative steps after the same prefix, from best to worst. One row per step.

    A list has at least two rows, and they are adjacent. `prompt`, `completion` and `label` are the columns of TRL's
    unpaired preferences, so the same file also serves losses over single steps.

    problem_id:    str; tree, parent, node: int32, which tree of its shard, and which nodes in it.
    rank:          int32, place in the list by `value`. A list begins with 0.
    prompt:        str, question prompt and the steps so far; completion: str, the step.
    label:         bool, whether the step is better than its parent: q > parent_value.
    prompt_tokens: [≥ 1] int32, the question prompt only; prefix_tokens: [≥ 0] int32, the policy's steps before.
    step_tokens:   [≥ 1] int32, the step only; different in every row of a list.
    prefix_environment, step_environment: [≥ 0] int32, see `typed_table.ENVIRONMENT`.
    q:             float64, action value; value: float64, Q', which ranks the list (`PreferenceSettings.shrinkage`).
    visits:        int32 ≥ 0; samples: int32 ≥ 1, how often the policy sampled the step.
    prior:         float64 ≥ 0, p(a|s) as selection used it; logprob: float64 ≤ 0 nats, under the sampling policy.
    parent_value:  float64, V of the parent; weight: float64 > 0, the weight of the list in the mean (equal in a list).
    """

    __slots__ = ()
    what: ClassVar[str] = "siblings"
    schema: ClassVar[Any] = schema_of(
        problem_id=pa.string(),
        tree=pa.int32(),
        parent=pa.int32(),
        node=pa.int32(),
        rank=pa.int32(),
        prompt=pa.string(),
        completion=pa.string(),
        label=pa.bool_(),
        prompt_tokens=TOKENS,
        prefix_tokens=TOKENS,
        step_tokens=TOKENS,
        prefix_environment=TOKENS,
        step_environment=TOKENS,
        q=pa.float64(),
        value=pa.float64(),
        visits=pa.int32(),
        samples=pa.int32(),
        prior=pa.float64(),
        logprob=pa.float64(),
        parent_value=pa.float64(),
        weight=pa.float64(),
    )

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each list begins: [lists + 1] int64. List i is rows offsets[i] … offsets[i + 1] − 1."""
        return np.append(np.flatnonzero(self.numbers("rank") == 0), len(self)).astype(np.int64)

    @property
    def lists(self) -> int:
        """The number of lists."""
        return len(self.offsets) - 1

    def _check(self, where: str) -> None:
        self._check_tokens(where, "prompt_tokens", "step_tokens")
        self._check_tokens(where, "prefix_tokens", empty=True)
        self._check_environment(where, "step")
        self._check_environment(where, "prefix", prefix=True)
        self._check_finite(where, "q", "value", "prior", "logprob", "parent_value")
        self._check_positive(where, "weight")
        self._refuse(where, "samples", self.numbers("samples") < 1, "1 or more")
        if not len(self):
            return
        rank = self.numbers("rank")
        wrong = np.append(rank[0] != 0, (rank[1:] != 0) & (rank[1:] != rank[:-1] + 1))
        self._refuse(where, "rank", wrong, "0, where a list begins, or one more than the row above")
        alone = np.append((rank[1:] == 0) & (rank[:-1] == 0), rank[-1] == 0)
        self._refuse(where, "rank", alone, "a list of at least two siblings; this one has none")
        self._check_lists(where, np.flatnonzero(rank != 0))

    def _check_lists(self, where: str, later: NDArray[np.int64]) -> None:
        """Check each list: its values do not rise, its rows agree on the other columns, and its steps differ.

        later: indices of the rows that do not begin a list.
        """
        value = self.numbers("value")
        rising = np.zeros(len(self), dtype=np.bool_)
        rising[later] = value[later] > value[later - 1]
        self._refuse(where, "value", rising, "at most the value of the row above, in a list")
        for column in ("parent_value", "weight"):
            numbers, unequal = self.numbers(column), np.zeros(len(self), dtype=np.bool_)
            unequal[later] = numbers[later] != numbers[later - 1]
            self._refuse(where, column, unequal, "the same in all rows of a list")
        prompt, prefix, steps = self.tokens("prompt_tokens"), self.tokens("prefix_tokens"), self.tokens("step_tokens")
        for row in later.tolist():
            if not (np.array_equal(prompt[row], prompt[row - 1]) and np.array_equal(prefix[row], prefix[row - 1])):
                raise InputError(f"{where}: row {row}: another prompt than the row above, in one list of siblings")
        for first, end in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            seen: dict[bytes, int] = {}
            for row in range(first, end):
                other = seen.setdefault(steps[row].tobytes(), row)
                if other != row:
                    step = self.table.column("completion")[row].as_py()
                    raise InputError(f"{where}: row {row}: the same step as row {other} ({step!r}), in one list")


class Steps(TypedTable):
    """Paths whose steps have Monte Carlo labels, for reward models that judge steps. One row per path.

    A path leads from the prompt to the last step below which an outcome is known: to the end of a solution, in a search
    that samples whole solutions. Paths of one tree share their first steps, with the same `nodes` and labels.

    problem_id:    str; tree, leaf: int32, which tree of its shard, and the node where the path ends.
    prompt:        str, the question prompt; completions: list of str, the steps; labels: list of bool, the hard labels:
                   whether a right solution was sampled below the step. These three are TRL's stepwise supervision.
    prompt_tokens: [≥ 1] int32; completion_tokens: [≥ 1] int32, all steps, the end of sequence included.
    completion_environment: [≥ 0] int32, see `typed_table.ENVIRONMENT`.
    step_ends:     [steps ≥ 1] int32, rising: for each step, the index in `completion_tokens` after its last token.
    nodes:         [steps] int32, the node that each step leads to.
    values:        [steps] float64 in [0, 1], the soft labels: the share of right solutions among the samples below.
    counts:        [steps] int32 ≥ 1, n: how many samples below have a known outcome, on which the label rests.

    Source of both labels: Wang et al. 2023 ("Math-Shepherd"), arXiv 2312.08935, section 3.3: hard and soft estimation.
    """

    __slots__ = ()
    what: ClassVar[str] = "steps"
    schema: ClassVar[Any] = schema_of(
        problem_id=pa.string(),
        tree=pa.int32(),
        leaf=pa.int32(),
        prompt=pa.string(),
        completions=pa.list_(pa.string()),
        labels=pa.list_(pa.bool_()),
        prompt_tokens=TOKENS,
        completion_tokens=TOKENS,
        completion_environment=TOKENS,
        step_ends=TOKENS,
        nodes=TOKENS,
        values=pa.list_(pa.float64()),
        counts=TOKENS,
    )

    def _check(self, where: str) -> None:
        self._check_tokens(where, "prompt_tokens", "completion_tokens", "step_ends", "nodes")
        self._check_environment(where, "completion")
        ends = self.tokens("step_ends")
        for column in ("completions", "labels", "nodes", "values", "counts"):
            lengths = pc.list_value_length(self.table.column(column)).to_numpy()
            self._refuse(where, column, lengths != ends.lengths, "one entry per step, as step_ends has")
        owner = np.repeat(np.arange(len(ends)), ends.lengths)
        before = np.where(np.diff(owner, prepend=-1) == 0, np.roll(ends.values, 1), 0)
        self._refuse_lists(where, "step_ends", ends.values <= before, owner, "rising indices above 0")
        last = ends.values[ends.offsets[1:] - 1] if len(ends) else ends.values
        wrong = last != self.tokens("completion_tokens").lengths
        self._refuse(where, "step_ends", wrong, "ending with the number of completion_tokens")
        values = self.tokens("values").values
        self._refuse_lists(where, "values", ~((values >= 0) & (values <= 1)), owner, "shares from 0 to 1")
        self._refuse_lists(where, "counts", self.tokens("counts").values < 1, owner, "1 or more")

    def _refuse_lists(
        self, where: str, column: str, wrong: NDArray[np.bool_], owner: NDArray[np.int64], accepted: str
    ) -> None:
        """`_refuse` the rows that own a wrong entry of a column of lists."""
        self._refuse(where, column, np.isin(np.arange(len(self)), owner[wrong]), accepted)
