"""One simulation of one tree, in four steps: a leaf is planned, grown, asked about and settled.

In: a `Task` (a forest, its trees' states, an engine) and what the engine completed. Out: requests, and changes in
the forest. `plan` (a selected leaf → a request), `grow` (its completion → new nodes), `ask` (new nodes →
self-evaluation questions) and `settle` (rewards, priors, backup, release) know nothing of the other trees, nor of
when they are called: waves.py and events.py decide that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

import numpy as np

from mcts_dpo.engines.base import Completion, Engine, Request
from mcts_dpo.files import InputError, seed_from
from mcts_dpo.problems import Problem
from mcts_dpo.prompts import PromptSettings, prompt_tokens, step_stops
from mcts_dpo.search import kernels
from mcts_dpo.search.expansion import Step, attach, attach_unsampled, step_texts, whole_solution
from mcts_dpo.search.faithful import answer_end, confidence_value, outcome_value, reference_steps
from mcts_dpo.search.forest import FINISHES, LENGTH, NONE, Forest, TreeInfo
from mcts_dpo.search.journal import Journal
from mcts_dpo.search.rewards import (
    Outcome,
    Question,
    ends_with_answer,
    outcome,
    probability_of_yes,
    question,
    readable,
    value_model,
    with_noise,
)
from mcts_dpo.search.settings import SearchSettings

if TYPE_CHECKING:
    from mcts_dpo.engines.base import Sample
    from mcts_dpo.values import ValueModel

Mode = Literal["train", "solve"]
Texts = tuple[tuple[int, ...], Question | None]
"""A problem's prompt and its self-evaluation, as tokens."""

NOTHING = "samples without a token were dropped"

NO_ROOM = "leaves no room"
"""What is said of a prompt after which the engine's context has no place for a solution."""


@dataclass(slots=True, eq=False)
class Tree:
    """The state of one tree that is not in the forest.

    index:   in the forest.
    limit:   longest solution, in tokens (max_tokens, or less where the context is short).
    question: the self-evaluation, None if none is asked.
    started: simulations started; each has an index, from which its samples are seeded.
    flying:  simulations started and not settled.
    longest: tokens of the longest sample so far.
    promised: in mode "solve" with a budget: the most tokens that samples under way may take, questions included.
    lost:    indices of simulations that a killed process had begun and not finished; they are taken up again first.
    solved:  a right solution has been found.
    position: the node from which it is searched: the root, or where `advance: step` has come to. base: simulations that
             had been started when it came there. resting: no further simulation starts before those under way are in.
    noise:   seed of the root's Gumbel draws.
    steps, reference: of the reference solution (with `faithful.reference_child`), and of each node on its path
             the number of the step that comes next.
    """

    index: int
    problem: Problem
    info: TreeInfo
    limit: int
    question: Question | None
    started: int = 0
    flying: int = 0
    longest: int = 0
    promised: int = 0
    lost: list[int] = field(default_factory=list)
    solved: bool = False
    position: int = 0
    base: int = 0
    resting: bool = False
    noise: int = 0
    steps: list[tuple[int, ...]] = field(default_factory=list)
    reference: dict[int, int] = field(default_factory=dict)

    @property
    def living(self) -> bool:
        """Whether it is still being searched."""
        return self.info.status == "running"

    @property
    def least(self) -> int:
        """Tokens of a budget without which no simulation starts: one, and in mode "solve" a question about it."""
        return 1 + (self.question.cost if self.question and self.info.mode == "solve" else 0)


@dataclass(slots=True)
class Tally:
    """Running totals of a task. simulations: done; a tree that ended early counts as a whole one. tokens: sampled."""

    simulations: int = 0
    tokens: int = 0
    solved: int = 0


@dataclass(slots=True)
class Task:
    """A search under way: the forest, the trees' states, and what they share. journal: None keeps none. values: None
    asks none."""

    forest: Forest
    trees: list[Tree]
    engine: Engine
    prompt: PromptSettings
    settings: SearchSettings
    tally: Tally = field(default_factory=Tally)
    journal: Journal | None = None
    values: ValueModel | None = None


@dataclass(frozen=True, slots=True)
class Expansion:
    """One simulation under way: samples are being drawn from `leaf`.

    index: which of the tree's simulations. last: the sampled step is the last that may be. seed: of the samples.
    promised: see `Tree`.
    """

    tree: int
    leaf: int
    index: int
    last: bool
    seed: int
    promised: int = 0


@dataclass(frozen=True, slots=True)
class Growth:
    """A simulation whose samples are in the forest, but neither judged nor backed up.

    new: nodes to judge. ends: for each sample its last node; one visit each.
    """

    tree: int
    leaf: int
    index: int
    new: list[int]
    ends: list[int]


def start(
    problems: Sequence[Problem],
    engine: Engine,
    prompt: PromptSettings,
    settings: SearchSettings,
    mode: Mode,
    tokenizer: str | None = None,
    texts: Sequence[Texts] | None = None,
) -> Task:
    """Plant a root for every problem. Mode "solve" takes the reference answers away first.

    tokenizer: the digest of the engine's, for who knows it: making one takes as long as many steps of a small model.
    texts: of each problem, for who has tokenised them; None: they are tokenised here.
    """
    from mcts_dpo.models import tokenizer_digest  # not before a model is there: it brings torch along

    if mode == "solve" and settings.faithful.reference_child:
        raise InputError(
            "search.faithful.reference_child: true, but a solving search cannot see a reference; accepted: false"
        )
    about = {"search": settings.model_dump(mode="json"), "prompt": prompt.model_dump(mode="json")}
    task = Task(Forest(about, tokenizer or tokenizer_digest(engine.tokenizer)), [], engine, prompt, settings)
    task.values = value_model(settings.value_model, engine.tokenizer)
    for number, problem in enumerate(problems):
        shown = problem.without_answer() if mode == "solve" else problem
        _plant(task, shown, mode, _texts(shown, task) if texts is None else texts[number])
    return task


def _texts(problem: Problem, task: Task) -> Texts:
    tokens = tuple(prompt_tokens(problem, task.engine.tokenizer, task.prompt))
    return tokens, question(problem, task.engine.tokenizer, task.prompt, task.settings.self_evaluation)


def _plant(task: Task, problem: Problem, mode: Mode, texts: Texts) -> None:
    engine, prompt, settings, forest = task.engine, task.prompt, task.settings, task.forest
    tokens, asked = texts
    text = str(engine.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))
    index = forest.add_tree(problem.id, tokens, text, mode)
    info = forest.trees[index]
    room = engine.context - len(tokens) - (asked.room if asked else 0)
    tree = Tree(index, problem, info, min(settings.max_tokens, room), asked)
    tree.position = info.root
    tree.noise = seed_from(settings.seed, "gumbel", problem.id)
    if settings.faithful.reference_child:
        tree.steps = reference_steps(problem, engine.tokenizer, prompt)
        tree.reference[info.root] = 0
    task.trees.append(tree)
    if mode == "train" and problem.answer is None:
        info.notes.append("no reference answer: outcomes are not known")
    elif problem.answer is not None and not readable(problem):
        info.notes.append(f"the reference answer {problem.answer!r} cannot be parsed: outcomes are not known")
    if room < 1:
        fail(task, tree, f"a prompt of {len(tokens)} tokens {NO_ROOM} in a context of {engine.context}")
    elif settings.budget is not None and settings.budget < tree.least:
        end(task, tree, "budget")


def room_for(task: Task, tree: Tree) -> int:
    """Simulations that may still be started from where a tree is searched now: in mode "solve" as many as the budget
    pays beside those under way, each a token at least."""
    if tree.resting or not tree.living:
        return 0
    room = task.settings.simulations - (tree.started - tree.base)
    strict = task.settings.budget is not None and tree.info.mode == "solve"
    return min(room, max(0, _left(task, tree)) // tree.least) if strict else room


def select(task: Task, trees: Sequence[Tree], wanted: Sequence[int]) -> list[list[int]]:
    """For each tree up to so many leaves to expand, by the settings' rule; see `kernels.select`."""
    settings = task.settings
    gumbel = None
    if settings.selection == "gumbel":
        constants = settings.gumbel
        gumbel = kernels.Gumbel(
            seeds=np.array([tree.noise for tree in trees], np.int64),
            considered=constants.considered,
            simulations=settings.simulations - 1,  # one goes into the root itself
            c_visit=constants.c_visit,
            c_scale=constants.c_scale,
        )
    leaves = kernels.select(
        task.forest,
        np.array([tree.index for tree in trees], np.int64),
        np.array(wanted, np.int64),
        {"puct": kernels.PUCT, "uct": kernels.UCT, "gumbel": kernels.GUMBEL}[settings.selection],
        settings.c_puct,
        roots=np.array([tree.position for tree in trees], np.int64),
        gumbel=gumbel,
        root_twice=settings.faithful.root_twice,
    )
    return [[leaf for leaf in row if leaf != NONE] for row in leaves.tolist()]


def plan(task: Task, tree: Tree, leaf: int) -> tuple[Expansion, Request]:
    """The request for the samples of a selected leaf."""
    settings, forest = task.settings, task.forest
    index = tree.lost.pop(0) if tree.lost else tree.started
    solution = forest.solution_tokens(leaf)
    last = is_last(task, leaf)
    # Merged steps may stand for shorter ones that were sampled, so a path can be a little longer than its samples.
    room = max(1, tree.limit - len(solution))
    n, size = settings.children, room if last else min(room, settings.max_step_tokens)
    promised = 0
    if settings.budget is not None and tree.info.mode == "solve":
        n, size, promised = _affordable(task, tree, leaf, n, size)
    stop, visible = (task.prompt.stop, False) if last else step_stops(task.prompt)
    request = Request(
        id=-1,  # given when it is sent
        prefix=(*tree.info.prompt_tokens, *solution),
        n=n,
        max_tokens=size,
        temperature=settings.temperature,
        top_p=settings.top_p,
        stop=stop,
        visible=visible,
        seed=seed_from(settings.seed, tree.problem.id, index),
    )
    tree.started += 1
    tree.flying += 1
    tree.promised += promised
    return Expansion(tree.index, leaf, index, last, request.seed, promised), request


def is_last(task: Task, leaf: int) -> bool:
    """Whether what is sampled from a leaf goes on to the end of the solution."""
    return task.settings.expand == "rollout" or int(task.forest.depth[leaf]) + 1 >= task.settings.max_depth


def _affordable(task: Task, tree: Tree, leaf: int, n: int, size: int) -> tuple[int, int, int]:
    """What a budget still pays of n samples of `size` tokens at most: (samples, tokens each, tokens promised).

    The samples share what is left, which simulations that may fly beside this one share too. They are fewer where
    there is too little left for samples as long as the longest so far. Each keeps back the questions it may cost.
    """
    settings = task.settings
    questions = 1
    if settings.expand == "rollout" and settings.self_evaluation.at == "all":
        questions = settings.max_depth - int(task.forest.depth[leaf])
    cost = questions * tree.question.cost if tree.question else 0
    beside = settings.parallel_leaves if leaf != tree.info.root else 1  # the root is expanded alone
    share = _left(task, tree) // max(1, beside - tree.flying)
    n = min(n, max(1, share // (max(1, tree.longest) + cost)))
    size = max(1, min(size, share // n - cost))
    return n, size, n * (size + cost)


def _left(task: Task, tree: Tree) -> int:
    """Tokens of the budget that are neither spent nor promised."""
    return (task.settings.budget or 0) - tree.info.generated - tree.promised


def grow(task: Task, expansion: Expansion, samples: Sequence[Sample], error: str | None = None) -> Growth:
    """Hang samples under their leaf. A refused request (`error`) fails the tree and adds nothing, and so do samples
    none of which has a token; if some have, the others are dropped and noted."""
    tree, forest, settings = task.trees[expansion.tree], task.forest, task.settings
    tree.promised -= expansion.promised
    kept = [sample for sample in samples if sample.tokens]
    if error is None and not kept:
        error = "the engine gave no sample that has a token"
    if error is not None:
        fail(task, tree, error)
        return Growth(expansion.tree, expansion.leaf, expansion.index, [], [])
    if len(kept) < len(samples):
        samples = kept
        if NOTHING not in tree.info.notes:
            tree.info.notes.append(NOTHING)
    before = forest.solution_tokens(expansion.leaf)
    if settings.expand == "rollout":
        room = settings.max_depth - int(forest.depth[expansion.leaf])
        tokenizer = task.engine.tokenizer
        steps = [whole_solution(sample, before, tokenizer, task.prompt, room) for sample in samples]
    else:
        steps = [[_one_step(task, tree, expansion, sample, before)] for sample in samples]
    new, ends = attach(forest, expansion.leaf, steps, settings.length_penalty)
    new += _add_reference(task, tree, expansion.leaf, before)
    tokens = sum(len(sample.tokens) for sample in samples)
    tree.longest = max(tree.longest, *(len(sample.tokens) for sample in samples))
    tree.info.generated += tokens
    tree.info.simulations += 1
    task.tally.tokens += tokens
    task.tally.simulations += tree.living and tree.info.simulations <= settings.simulations
    return Growth(expansion.tree, expansion.leaf, expansion.index, new, ends)


def _add_reference(task: Task, tree: Tree, leaf: int, before: Sequence[int]) -> list[int]:
    """Where a leaf lies on the reference solution's path, what comes next there becomes a child. Returns new nodes."""
    place = tree.reference.get(leaf)
    if place is None or place >= len(tree.steps):
        return []
    settings, forest = task.settings, task.forest
    room = settings.max_depth - int(forest.depth[leaf])
    chain = tree.steps[place:]
    if len(chain) > room:
        chain = [*chain[: room - 1], tuple(token for step in chain[room - 1 :] for token in step)]
    whole = len(chain)
    if settings.expand == "step":
        chain = chain[:1]
    if sum(map(len, chain)) > tree.limit - len(before):
        return []
    ends = list(accumulate(map(len, chain)))
    texts = step_texts(before, [token for step in chain for token in step], ends, task.engine.tokenizer)
    last = FINISHES.index("end" if tree.steps[-1][-1] == answer_end(task.engine.tokenizer, task.prompt) else "answer")
    steps = [
        Step(tokens, (math.nan,) * len(tokens), text, last if turn == whole else 0)
        for turn, (tokens, text) in enumerate(zip(chain, texts, strict=True), 1)
    ]
    new, nodes = attach_unsampled(forest, leaf, steps)
    tree.reference.update((node, place + turn) for turn, node in enumerate(nodes, 1))
    return new


def judge(task: Task, growth: Growth, known: Sequence[Outcome] | None = None) -> list[Outcome]:
    """Verify the new solutions of a growth; `known`: what that gave when it was done before. One per new end."""
    tree, forest = task.trees[growth.tree], task.forest
    found: list[Outcome] = []
    for node in growth.new:
        if not forest.terminal[node]:
            continue
        if known is not None:
            end = known[len(found)]
        else:
            text = task.prompt.prefill + forest.solution_text(node)
            end = outcome(text, bool(forest.finish[node] == LENGTH), tree.problem, task.prompt.answer_style)
            end = with_noise(end, text, tree.problem, task.settings.noise, task.settings.seed)
        found.append(end)
        forest.outcome[node] = end.value
        forest.answers[node] = end.answer
        tree.info.unanswered += end.answer is None
        tree.info.unverified += not end.verified
        if end.value > 0 and not tree.solved:
            tree.solved = True
            task.tally.solved += 1
    return found


def _one_step(task: Task, tree: Tree, expansion: Expansion, sample: Sample, before: Sequence[int]) -> Step:
    """One sample of `expand: step`: a step, after the solution tokens `before`."""
    (text,) = step_texts(before, sample.tokens, [len(sample.tokens)], task.engine.tokenizer)
    finish: str = sample.finish
    if finish == "stop" and not expansion.last:
        full = len(before) + len(sample.tokens) >= tree.limit
        finish = _step_finish(task.prompt, task.forest.solution_text(expansion.leaf), text, full)
    return Step(sample.tokens, sample.logprobs, text, FINISHES.index(finish))


def _step_finish(prompt: PromptSettings, before: str, added: str, full: bool) -> str:
    """Why the solution ends with a step that met a stop string; "" if that was the end of the step only."""
    # A stop string may begin in the step before: a solution that ends with "\n\n" does, where steps end with "\n".
    if any((before + added).find(stop, max(0, len(before) - len(stop) + 1)) >= 0 for stop in prompt.stop):
        return "stop"
    if ends_with_answer(before, added, prompt):
        return "answer"
    return "length" if full else ""


def ask(task: Task, growth: Growth) -> list[tuple[int, Request]]:
    """The self-evaluation questions for new nodes: (node, request)."""
    tree, forest = task.trees[growth.tree], task.forest
    asked = tree.question
    if asked is None:
        return []
    everywhere = task.settings.self_evaluation.at == "all"
    requests = []
    for node in growth.new:
        if everywhere or forest.terminal[node]:
            solution = forest.solution_tokens(node)
            if FINISHES[forest.finish[node]] == "end":
                solution.pop()  # the question closes the turn itself
            prefix = (*tree.info.prompt_tokens, *solution, *asked.suffix)
            requests.append((node, Request(id=-1, prefix=prefix, choices=asked.choices)))
    tree.info.generated += asked.cost * len(requests)
    task.tally.tokens += asked.cost * len(requests)
    return requests


def settle(task: Task, growths: Sequence[Growth], answers: dict[int, Completion]) -> None:
    """Rewards of the new nodes from their outcomes and `answers` (by node), then priors, backup and release."""
    forest, settings = task.forest, task.settings
    for growth in growths:
        task.trees[growth.tree].flying -= 1
        for node in growth.new:
            text = task.prompt.prefill + forest.solution_text(node) if forest.outcome[node] > 0 else ""
            problem = task.trees[growth.tree].problem
            forest.reward[node] = outcome_value(settings.faithful, int(forest.outcome[node]), text, problem)
            answer = answers.get(node)
            if answer is not None and answer.error is not None:
                fail(task, task.trees[growth.tree], answer.error)
            elif answer is not None:
                forest.confidence[node] = probability_of_yes(answer.probabilities)
                depth = int(forest.depth[node])
                confidence = confidence_value(settings.faithful, float(forest.confidence[node]), depth)
                forest.reward[node] += settings.self_evaluation.weight * confidence
        _value(task, growth)
    ends = [end for growth in growths for end in growth.ends]
    # Every parent on the path of a sample, down from the leaf, has a child whose mass has grown.
    touched = {int(forest.parent[node]) for growth in growths for node in {*_below(forest, growth), *growth.new}}
    kernels.set_priors(forest, np.array(sorted(touched), np.int64), settings.prior == "normalised")
    rule = kernels.PAPER if settings.backup == "paper" else kernels.MEAN
    faithful = settings.faithful
    unsampled = [node for growth in growths for node in growth.new[::-1] if not forest.samples[node]]
    if unsampled:
        kernels.refresh(forest, np.array(unsampled), rule, settings.gamma, unvisited_as_one=faithful.unvisited_as_one)
    kernels.back_up(
        forest,
        np.array(ends, np.int64),
        rule,
        settings.gamma,
        root_twice=faithful.root_twice,
        unvisited_as_one=faithful.unvisited_as_one,
        leaves=np.array([growth.leaf for growth in growths if growth.ends], np.int64),
    )
    refused = [growth.leaf for growth in growths if not growth.ends]
    if refused:
        kernels.release(forest, np.array(refused, np.int64), expanded=False)


def _value(task: Task, growth: Growth) -> None:
    """Add what the value model says of the new nodes to their rewards."""
    settings, forest = task.settings.value_model, task.forest
    if task.values is None or settings is None:
        return
    judged = [node for node in growth.new if settings.at == "all" or forest.terminal[node]]
    prompt = task.trees[growth.tree].info.prompt_tokens
    found = task.values.confidences([(*prompt, *forest.solution_tokens(node)) for node in judged])
    forest.reward[judged] += settings.weight * found


def _below(forest: Forest, growth: Growth) -> set[int]:
    """The nodes that the samples of a growth run through, from below its leaf to their ends."""
    found: set[int] = set()
    for end in growth.ends:
        node = end
        while node != growth.leaf and node not in found:
            found.add(node)
            node = int(forest.parent[node])
    return found


def fail(task: Task, tree: Tree, reason: str) -> None:
    """Give a tree up, for a reason of one line; what it has stays."""
    if tree.living:
        end(task, tree, "failed")
    tree.info.status = "failed"
    tree.info.reason = tree.info.reason or reason


def end(task: Task, tree: Tree, status: str) -> None:
    """The search of a tree is over."""
    task.tally.simulations += max(0, task.settings.simulations - tree.info.simulations)
    tree.info.status = status
