"""The driver of the search: Monte Carlo tree search over reasoning steps, many problems at once.

In: problems, an engine, settings. Out: a `Forest`. Each tree is a small state machine, told what to do by four
functions that know nothing of the other trees: `plan` (a selected leaf → a request), `grow` (its completion → new
nodes), `ask` (new nodes → self-evaluation questions), `settle` (rewards, priors, backup, release). `search` runs
them in waves: in every wave all living trees select, all requests go to the engine together, and nothing moves on
before all are back. So the result depends on the problem, the settings and the policy alone: not on the order or
number of the problems, nor on which request the engine finishes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Literal

import numpy as np

from mcts_dpo.engines.base import Completion, Engine, Request, complete
from mcts_dpo.files import InputError, seed_from
from mcts_dpo.problems import Problem
from mcts_dpo.progress import Progress, silent
from mcts_dpo.prompts import PromptSettings, prompt_tokens
from mcts_dpo.search import kernels
from mcts_dpo.search.expansion import Step, attach, step_texts, whole_solution
from mcts_dpo.search.forest import EXHAUSTED, FINISHES, LENGTH, NONE, Forest, TreeInfo
from mcts_dpo.search.rewards import Question, outcome, probability_of_yes, question, readable, states_answer
from mcts_dpo.search.settings import SearchSettings

if TYPE_CHECKING:
    from mcts_dpo.engines.base import Sample

Mode = Literal["train", "solve"]


def search(
    problems: Sequence[Problem],
    engine: Engine,
    *,
    prompt: PromptSettings,
    settings: SearchSettings,
    mode: Mode = "train",
    progress: Progress = silent,
) -> Forest:
    """One tree per problem, in the order of `problems`.

    mode: "train" verifies outcomes against the reference answers; "solve" takes them away first, so that nothing
          here can depend on them. A problem without a reference answer is searched as in "solve".

    A problem whose prompt leaves no room, or one of whose requests the engine refuses, ends as "failed" with the
    reason in its `TreeInfo`; the others go on. Raises InputError if two problems share an id (their samples would
    be the same).
    """
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise InputError(f"problems: the id {problem.id!r} occurs twice; accepted: one problem per id")
        seen.add(problem.id)
    task = start([p.without_answer() if mode == "solve" else p for p in problems], engine, prompt, settings, mode)
    while _wave(task):
        _report(task, progress)
    _report(task, progress)
    return task.forest


@dataclass(slots=True)
class Tree:
    """The state of one tree that is not in the forest.

    limit:     longest solution, in tokens (max_tokens, or less where the context is short).
    question:  the self-evaluation, None if none is asked.
    started:   simulations started; each has an index, from which its samples are seeded.
    """

    problem: Problem
    info: TreeInfo
    limit: int
    question: Question | None
    started: int = 0

    @property
    def living(self) -> bool:
        """Whether it is still being searched."""
        return self.info.status == "running"


@dataclass(slots=True)
class Task:
    """A search under way: the forest, the trees' states, and what they share."""

    forest: Forest
    trees: list[Tree]
    engine: Engine
    prompt: PromptSettings
    settings: SearchSettings
    ids: Iterator[int] = field(default_factory=count)


@dataclass(frozen=True, slots=True)
class Expansion:
    """One simulation under way: samples are being drawn from `leaf`. last: its step is the last that may be."""

    tree: int
    leaf: int
    last: bool
    request: Request


@dataclass(frozen=True, slots=True)
class Growth:
    """A simulation whose samples are in the forest, but neither judged nor backed up.

    new: nodes to judge. ends: for each sample its last node; one visit each.
    """

    tree: int
    leaf: int
    new: list[int]
    ends: list[int]


def start(
    problems: Sequence[Problem], engine: Engine, prompt: PromptSettings, settings: SearchSettings, mode: Mode
) -> Task:
    """Plant a root for every problem."""
    from mcts_dpo.models import tokenizer_digest  # not before a model is there: it brings torch along

    about = {"search": settings.model_dump(mode="json"), "prompt": prompt.model_dump(mode="json")}
    forest = Forest(about, tokenizer_digest(engine.tokenizer))
    trees = []
    for problem in problems:
        tokens = tuple(prompt_tokens(problem, engine.tokenizer, prompt))
        text = str(engine.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))
        info = forest.trees[forest.add_tree(problem.id, tokens, text, mode)]
        asked = question(problem, engine.tokenizer, prompt, settings.self_evaluation)
        room = engine.context - len(tokens) - (asked.room if asked else 0)
        if room < 1:
            info.status = "failed"
            info.reason = f"a prompt of {len(tokens)} tokens leaves no room in a context of {engine.context}"
        if mode == "train" and problem.answer is None:
            info.notes.append("no reference answer: outcomes are not known")
        elif problem.answer is not None and not readable(problem):
            info.notes.append(f"the reference answer {problem.answer!r} cannot be parsed: outcomes are not known")
        trees.append(Tree(problem, info, min(settings.max_tokens, room), asked))
    return Task(forest, trees, engine, prompt, settings)


# --- one wave over all trees -------------------------------------------------------------------------


def _wave(task: Task) -> bool:
    """Select, expand, judge and back up once in every living tree. False if there was none."""
    living = [index for index, tree in enumerate(task.trees) if tree.living]
    if not living:
        return False
    settings = task.settings
    wanted = [min(settings.parallel_leaves, settings.simulations - task.trees[index].started) for index in living]
    rule = kernels.PUCT if settings.selection == "puct" else kernels.UCT
    leaves = kernels.select(task.forest, np.array(living), np.array(wanted), rule, settings.c_puct)
    expansions = [
        plan(task, tree, int(leaf)) for tree, row in zip(living, leaves, strict=True) for leaf in row if leaf != NONE
    ]
    completions = complete(task.engine, [expansion.request for expansion in expansions])
    growths = [grow(task, *pair) for pair in zip(expansions, completions, strict=True)]
    questions = [asked for growth in growths for asked in ask(task, growth)]
    answers = complete(task.engine, [request for _, request in questions])
    settle(task, growths, {node: answer for (node, _), answer in zip(questions, answers, strict=True)})
    for index in living:
        _end(task, task.trees[index])
    return True


def _end(task: Task, tree: Tree) -> None:
    """End a tree that is exhausted or has spent what it may."""
    settings, info = task.settings, tree.info
    if not tree.living:
        return
    if task.forest.closed[info.root] == EXHAUSTED:
        info.status = "exhausted"
    elif tree.started >= settings.simulations:
        info.status = "simulations"
    elif settings.budget is not None and info.generated >= settings.budget:
        info.status = "budget"


def _report(task: Task, progress: Progress) -> None:
    """Progress in problems, by the simulations done; a tree that ended early counts as a whole one."""
    each = task.settings.simulations
    done = sum(tree.info.simulations if tree.living else each for tree in task.trees) // each
    solved = np.zeros(len(task.trees), np.bool_)
    solved[task.forest.tree[task.forest.outcome > 0]] = True
    tokens = sum(tree.info.generated for tree in task.trees)
    progress("search", done, len(task.trees), tokens=float(tokens), solved=float(solved.sum()) / max(1, len(solved)))


# --- one simulation of one tree ----------------------------------------------------------------------


def plan(task: Task, index: int, leaf: int) -> Expansion:
    """The request for the samples of a selected leaf."""
    settings, tree, forest = task.settings, task.trees[index], task.forest
    solution = forest.solution_tokens(leaf)
    last = settings.expand == "rollout" or int(forest.depth[leaf]) + 1 >= settings.max_depth
    # Merged steps may stand for shorter ones that were sampled, so a path can be a little longer than its samples.
    room = max(1, tree.limit - len(solution))
    request = Request(
        id=next(task.ids),
        prefix=(*tree.info.prompt_tokens, *solution),
        n=settings.children,
        max_tokens=room if last else min(room, settings.max_step_tokens),
        temperature=settings.temperature,
        top_p=settings.top_p,
        stop=task.prompt.stop if last else (task.prompt.step_end, *task.prompt.stop),
        seed=seed_from(settings.seed, tree.problem.id, tree.started),
    )
    tree.started += 1
    return Expansion(index, leaf, last, request)


def grow(task: Task, expansion: Expansion, completion: Completion) -> Growth:
    """Hang the samples of a completion under their leaf. A refused request fails the tree and adds nothing."""
    tree, forest = task.trees[expansion.tree], task.forest
    if completion.error is not None:
        _fail(tree, completion.error)
        return Growth(expansion.tree, expansion.leaf, [], [])
    before = forest.solution_tokens(expansion.leaf)
    if task.settings.expand == "rollout":
        room = task.settings.max_depth - int(forest.depth[expansion.leaf])
        tokenizer = task.engine.tokenizer
        steps = [whole_solution(sample, before, tokenizer, task.prompt, room) for sample in completion.samples]
    else:
        steps = [[_one_step(task, tree, expansion, sample, before)] for sample in completion.samples]
    new, ends = attach(forest, expansion.leaf, steps, task.settings.length_penalty)
    tree.info.generated += sum(len(sample.tokens) for sample in completion.samples)
    tree.info.simulations += 1
    for node in new:
        if forest.terminal[node]:
            text = task.prompt.prefill + forest.solution_text(node)
            end = outcome(text, forest.finish[node] == LENGTH, tree.problem, task.prompt.answer_style)
            forest.outcome[node] = end.value
            forest.answers[node] = end.answer
            tree.info.unanswered += end.answer is None
            tree.info.unverified += not end.verified
    return Growth(expansion.tree, expansion.leaf, new, ends)


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
    if states_answer(added, prompt.answer_style):
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
            requests.append((node, Request(id=next(task.ids), prefix=prefix, choices=asked.choices)))
    tree.info.generated += asked.cost * len(requests)
    return requests


def settle(task: Task, growths: Sequence[Growth], answers: dict[int, Completion]) -> None:
    """Rewards of the new nodes from their outcomes and `answers` (by node), then priors, backup and release."""
    forest, settings = task.forest, task.settings
    for growth in growths:
        for node in growth.new:
            forest.reward[node] = float(forest.outcome[node])
            answer = answers.get(node)
            if answer is not None and answer.error is not None:
                _fail(task.trees[growth.tree], answer.error)
            elif answer is not None:
                forest.confidence[node] = probability_of_yes(answer.probabilities)
                forest.reward[node] += settings.self_evaluation.weight * forest.confidence[node]
    ends = [end for growth in growths for end in growth.ends]
    # Every parent on the path of a sample, down from the leaf, has a child whose mass has grown.
    touched = {int(forest.parent[node]) for growth in growths for node in _below(forest, growth)}
    kernels.set_priors(forest, np.array(sorted(touched), np.int64), settings.prior == "normalised")
    rule = kernels.PAPER if settings.backup == "paper" else kernels.MEAN
    kernels.back_up(forest, np.array(ends, np.int64), rule, settings.gamma)
    done = [growth.leaf for growth in growths if growth.ends]
    kernels.release(forest, np.array(done, np.int64))
    refused = [growth.leaf for growth in growths if not growth.ends]
    kernels.release(forest, np.array(refused, np.int64), expanded=False)


def _below(forest: Forest, growth: Growth) -> set[int]:
    """The nodes that the samples of a growth run through, from below its leaf to their ends."""
    found: set[int] = set()
    for end in growth.ends:
        node = end
        while node != growth.leaf and node not in found:
            found.add(node)
            node = int(forest.parent[node])
    return found


def _fail(tree: Tree, reason: str) -> None:
    tree.info.status = "failed"
    tree.info.reason = tree.info.reason or reason
