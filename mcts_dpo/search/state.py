"""The state of a search: its forest, the state of each tree, and what all trees share.

In: problems, an engine, settings. Out: a `SearchState` whose forest has one root per problem.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Engine
from mcts_dpo.environments import environment_of, instructed
from mcts_dpo.models.prompts import PromptSettings, Thoughts, prompt_tokens, thoughts_of
from mcts_dpo.rewards.base import Reward, RewardContext
from mcts_dpo.rewards.registry import active, make_rewards
from mcts_dpo.rewards.verification import readable
from mcts_dpo.search.acting import Acting
from mcts_dpo.search.allocation import Allocation, make_allocation
from mcts_dpo.search.allocation.fixed import Fixed
from mcts_dpo.search.deadline import Clock, Deadline
from mcts_dpo.search.reference_steps import reference_steps
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.tree import Forest, TreeInfo

Mode = Literal["train", "solve"]
Prepared = tuple[tuple[int, ...], tuple[Reward, ...]]
"""A problem's prompt as token ids, and its rewards: those of `search.rewards` with a weight above 0, in order."""

NOT_KNOWN = "outcomes are not known"
"""The end of the notes about a missing reference answer."""

NO_ROOM = "leaves no room"
"""Part of the message for a prompt that leaves no tokens of the engine's context for a solution."""


@dataclass(slots=True, eq=False)
class TreeState:
    """The state of one tree, as far as the forest does not hold it.

    index:           of the tree in the forest.
    limit:           the longest solution, in tokens: `max_tokens`, or less if the context is short.
    rewards:         they score the tree's paths.
    allocation:      it chooses where samples are drawn.
    started:         simulations started. Each has an index, which seeds its samples.
    in_flight:       simulations started and not backed up.
    longest:         tokens of the longest sample so far.
    reserved_tokens: in mode "solve" with a budget: the most tokens that samples in flight may take, scores included.
    solved:          whether a right solution has been found.
    search_root:     the node from which the tree is searched: the root, or the node that `advance: step` has reached.
    base:            how many simulations had been started when the search reached `search_root`.
    draining:        True: no further simulation starts before those in flight are backed up.
    noise:           seed of the root's Gumbel draws.
    steps:           with `reference_child`: the steps of the reference solution, as token ids.
    reference:       for each node on the reference's path, the number of the step that comes next.
    acting:          what replies to steps; None if nothing does.
    """

    index: int
    problem: Problem
    info: TreeInfo
    limit: int
    rewards: tuple[Reward, ...]
    allocation: Allocation = field(default_factory=Fixed)
    started: int = 0
    in_flight: int = 0
    longest: int = 0
    reserved_tokens: int = 0
    solved: bool = False
    search_root: int = 0
    base: int = 0
    draining: bool = False
    noise: int = 0
    steps: list[tuple[int, ...]] = field(default_factory=list)
    reference: dict[int, int] = field(default_factory=dict)
    deadline: Deadline = field(default_factory=lambda: Deadline(None))
    acting: Acting | None = None

    @property
    def running(self) -> bool:
        """Whether the tree is still being searched."""
        return self.info.status == "running"

    @property
    def least_tokens(self) -> int:
        """The least tokens that must be left to start a simulation: 1, plus the cost of its scores in mode "solve"."""
        return 1 + (sum(reward.cost for reward in self.rewards) if self.info.mode == "solve" else 0)


@dataclass(slots=True)
class Totals:
    """The counts of a search so far.

    simulations: simulations done. A tree that ended early counts with all its simulations. tokens: sampled tokens.
    solved:      trees with a right solution.
    """

    simulations: int = 0
    tokens: int = 0
    solved: int = 0


@dataclass(slots=True)
class SearchState:
    """A running search: the forest, the states of its trees, and what they share."""

    forest: Forest
    trees: list[TreeState]
    engine: Engine
    prompt: PromptSettings
    settings: SearchSettings
    thoughts: Thoughts
    totals: Totals = field(default_factory=Totals)


def begin(
    problems: Sequence[Problem],
    engine: Engine,
    prompt: PromptSettings,
    settings: SearchSettings,
    mode: Mode,
    tokenizer: str | None = None,
    prepared: Sequence[Prepared] | None = None,
    clock: Clock = time.monotonic,
) -> SearchState:
    """Start a search: make a tree with its root for every problem. Mode "solve" removes the reference answers first.

    tokenizer: digest of the engine's tokenizer. None: it is computed here, which takes as long as many steps of a
               small model.
    prepared:  the prompt and the rewards of each problem; `prompt` tells the policy about the environment already.
               None: they are made here.
    clock:     measures `search.seconds`.

    Raises InputError for `reference_child` in mode "solve".
    """
    from mcts_dpo.models.loading import tokenizer_digest  # imported late, because it imports torch

    if mode == "solve" and settings.reference_child:
        raise InputError("search.reference_child: true, but a solving search cannot see a reference; accepted: false")
    prompt = instructed(prompt, settings.environment) if prepared is None else prompt
    about = {"search": settings.model_dump(mode="json"), "prompt": prompt.model_dump(mode="json")}
    kinds = [entry.kind for entry in active(settings.rewards)]
    forest = Forest(about, tokenizer or tokenizer_digest(engine.tokenizer), kinds)
    search = SearchState(forest, [], engine, prompt, settings, thoughts_of(engine.tokenizer, prompt))
    for number, problem in enumerate(problems):
        shown = problem.without_answer() if mode == "solve" else problem
        _plant(search, shown, mode, _prepare(shown, search) if prepared is None else prepared[number])
        search.trees[-1].deadline = Deadline(settings.seconds, clock)
    return search


def _prepare(problem: Problem, search: SearchState) -> Prepared:
    tokenizer, settings = search.engine.tokenizer, search.settings
    context = RewardContext(problem, tokenizer, search.prompt, settings.seed)
    return tuple(prompt_tokens(problem, tokenizer, search.prompt)), make_rewards(settings.rewards, context)


def _plant(search: SearchState, problem: Problem, mode: Mode, prepared: Prepared) -> None:
    engine, prompt, settings, forest = search.engine, search.prompt, search.settings, search.forest
    tokens, rewards = prepared
    text = str(engine.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))
    index = forest.add_tree(problem.id, tokens, text, mode)
    info = forest.trees[index]
    room = engine.context - len(tokens) - max((reward.room for reward in rewards), default=0)
    tree = TreeState(
        index, problem, info, min(settings.max_tokens, room), rewards, make_allocation(settings.allocation)
    )
    environment = environment_of(settings.environment)
    tree.acting = None if environment is None else Acting(environment, problem)
    tree.search_root = info.root
    tree.noise = seed_from(settings.seed, "gumbel", problem.id)
    if settings.reference_child:
        tree.steps = reference_steps(problem, engine.tokenizer, prompt)
        tree.reference[info.root] = 0
    search.trees.append(tree)
    info.notes += reference_notes(problem, mode)
    if room < 1:
        fail(search, tree, f"a prompt of {len(tokens)} tokens {NO_ROOM} in a context of {engine.context}")
    elif settings.budget is not None and settings.budget < tree.least_tokens:
        end(search, tree, "budget")


def reference_notes(problem: Problem, mode: str) -> list[str]:
    """Why outcomes are not known, for `TreeInfo.notes`; [] if they are, or if a solving search withholds the answer."""
    if mode == "train" and problem.answer is None:
        return [f"no reference answer: {NOT_KNOWN}"]
    if problem.answer is not None and not readable(problem):
        return [f"the reference answer {problem.answer!r} cannot be parsed: {NOT_KNOWN}"]
    return []


def fail(search: SearchState, tree: TreeState, reason: str) -> None:
    """End a tree as failed and keep its nodes. reason: one line; the first reason is kept."""
    if tree.running:
        end(search, tree, "failed")
    tree.info.status = "failed"
    tree.info.reason = tree.info.reason or reason


def end(search: SearchState, tree: TreeState, status: str) -> None:
    """End the search of a tree with a status. Its remaining simulations count as done in the totals."""
    search.totals.simulations += max(0, search.settings.simulations - tree.info.simulations)
    tree.info.status = status


def unspent_tokens(search: SearchState, tree: TreeState) -> int:
    """The tokens of the budget (0 without one) that are neither spent nor reserved."""
    return (search.settings.budget or 0) - tree.info.generated - tree.reserved_tokens


def steps_left(search: SearchState, tree: TreeState, node: int) -> int:
    """How many more steps a solution may have after a node, at least 1: a long rest may be cut into further steps."""
    start = int(search.forest.depth[tree.search_root]) if search.settings.depth_from == "advanced" else 0
    return max(1, start + search.settings.max_depth - int(search.forest.depth[node]))


def simulations_left(search: SearchState, tree: TreeState) -> int:
    """How many more simulations may start at the tree's search root now.

    In mode "solve" with a budget, the unspent and unreserved tokens must pay `least_tokens` for each.
    """
    if tree.draining or not tree.running:
        return 0
    left = search.settings.simulations - (tree.started - tree.base)
    strict = search.settings.budget is not None and tree.info.mode == "solve"
    return min(left, max(0, unspent_tokens(search, tree)) // tree.least_tokens) if strict else left
