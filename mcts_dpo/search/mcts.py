"""Runs Monte Carlo tree search over reasoning steps: each tree is a coroutine, and a runner drives many of them.

In: problems, an engine, settings. Out: a `Forest`. A simulation selects a leaf and then has four phases:

expand:   draw samples from the leaf and turn them into nodes.
verify:   check the solutions that end in new nodes.
evaluate: score the new nodes with every reward.
backup:   update values and visits from the new nodes up to the root.

Trees are independent of each other. runner.py decides when each tree is resumed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Engine, Request, Sample
from mcts_dpo.engines.coroutine import Concurrent, Coroutine, RequestError, Work, call, side_by_side
from mcts_dpo.engines.shaping import shape_of
from mcts_dpo.models.prompts import PromptSettings, step_stops
from mcts_dpo.rewards.base import Reward
from mcts_dpo.rewards.combine import combine, last_known
from mcts_dpo.rewards.outcome import outcome_settings, with_noise
from mcts_dpo.rewards.verification import Verification, read_solution, step_ending
from mcts_dpo.search import kernels
from mcts_dpo.search.acting import Acted
from mcts_dpo.search.allocation import Draw
from mcts_dpo.search.closing_child import add_closing
from mcts_dpo.search.drawing import Ask, Drawing, Drawn
from mcts_dpo.search.expansion import Step, acted_steps, attach, step_texts, whole_solution
from mcts_dpo.search.paths import solution_path, turns_of
from mcts_dpo.search.reference_child import add_reference
from mcts_dpo.search.result_log import ResultLog
from mcts_dpo.search.runner import Runner, Schedule
from mcts_dpo.search.runner_clock import RunnerClock
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.state import (
    Mode,
    SearchState,
    TreeState,
    begin,
    end,
    fail,
    simulations_left,
    steps_left,
    unspent_tokens,
)
from mcts_dpo.search.stopping import advance_or_end
from mcts_dpo.search.tree import FINISHES, LENGTH, Forest

NO_TOKENS = "samples without a token were dropped"


@dataclass(slots=True, eq=False)
class Simulation:
    """One simulation in flight.

    draw:     the leaf and what the allocation rule knows of it.
    index:    number of the simulation in its tree, from 0. The seed of its samples depends on it.
    last:     whether the samples run to the end of the solution. False: each sample is one step, and more may follow.
    request:  the request for the samples.
    reserved_tokens: tokens of the budget that are reserved for the simulation; see `TreeState`.
    new:      node ids of the new nodes. They are verified and evaluated.
    ends:     for each sample, the node id where it ends. Each entry is one visit.
    expanded: whether `expand` has handled the samples.
    """

    draw: Draw
    index: int
    last: bool
    request: Request
    reserved_tokens: int = 0
    new: Sequence[int] = ()
    ends: Sequence[int] = ()
    expanded: bool = False

    @property
    def leaf(self) -> int:
        """Node id of the leaf that the samples are drawn from."""
        return self.draw.leaf


# --- the search of many problems -------------------------------------------------------------------------


def search_problems(
    problems: Sequence[Problem],
    engine: Engine,
    *,
    prompt: PromptSettings,
    settings: SearchSettings,
    mode: Mode = "train",
    progress: Progress = silent,
    clock: RunnerClock | None = None,
) -> Forest:
    """Search one tree for each problem, and return the trees in the order of `problems`.

    mode:  "train" verifies outcomes against the reference answers. "solve" removes the reference answers first, so
           that no result can depend on them. A problem without a reference answer is searched as in "solve".
    clock: time spent is added to it.

    A tree ends as "failed" if its prompt leaves no room for a solution, or if the engine refuses one of its requests.
    Its `TreeInfo` holds the reason, and the other trees continue.

    Raises InputError if two problems share an id, because their samples would be the same. Raises EngineDiedError if
    the engine dies.
    """
    require_unique(problems)
    state = begin(problems, engine, prompt, settings, mode)
    with closing(Runner[None](engine, settings.schedule, alive=settings.alive, clock=clock)) as runner:
        admit(runner, 0, state)
        while runner.busy:
            runner.step()
            report(state, progress)
    return state.forest.by_tree()


def admit(runner: Runner[None], key: Hashable, state: SearchState, log: ResultLog | None = None) -> None:
    """Give the trees of a search to a runner.

    log: results of an earlier run. The trees replay them and then continue.

    Raises InputError for `seconds` with the synchronous schedule.
    """
    if state.settings.seconds is not None and state.settings.schedule == "synchronous":
        raise InputError(
            f"search.seconds: {state.settings.seconds:g}, but a synchronous search repeats its bytes; accepted: with "
            "search.schedule=asynchronous, or when solving"
        )
    runner.admit(key, [search_tree(state, tree, state.settings.schedule) for tree in state.trees], log)


def require_unique(problems: Sequence[Problem]) -> None:
    """Check that every problem has its own id. Raises InputError if two problems share one."""
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise InputError(f"problems: the id {problem.id!r} occurs twice; accepted: one problem per id")
        seen.add(problem.id)


def report(state: SearchState, progress: Progress) -> None:
    """Report progress, in problems.

    The number of problems done is the number of simulations done, divided by the simulations per problem. A tree that
    ended early counts as a whole problem.
    """
    totals = state.totals
    done = totals.simulations // state.settings.simulations
    solved = totals.solved / max(1, len(state.trees))
    progress("search", done, len(state.trees), tokens=float(totals.tokens), solved=solved)


# --- one tree --------------------------------------------------------------------------------------------


def search_tree(state: SearchState, tree: TreeState, schedule: Schedule) -> Coroutine[None]:
    """Search one tree until it ends.

    schedule: "synchronous" expands all parallel leaves together and backs them up together. "asynchronous" backs up
              each leaf as soon as its own results are there.

    The coroutine may be closed while work is in flight. The tree stays valid and its status becomes "cancelled".
    Samples that are already in the tree are backed up, even if they were not verified or evaluated yet.
    """
    together: Concurrent[None] = Concurrent()
    new: list[Work] = []
    tree.deadline.start()
    try:
        while True:
            for draws in _drawn(state, tree, schedule == "synchronous"):
                new += together.start(_simulate(state, tree, draws))
            if not together.running:
                if tree.running:
                    raise RuntimeError(f"tree {tree.index} has not ended, but it waits for no result")
                return
            new = together.deliver((yield new))
            if together.ended:
                together.ended.clear()
                advance_or_end(state, tree)
    except GeneratorExit:
        for simulation in together.running:
            simulation.close()
        if tree.running:
            end(state, tree, "cancelled")
        raise


def _drawn(state: SearchState, tree: TreeState, in_step: bool) -> list[list[Draw]]:
    """The draws to make now, in groups that are backed up together. [] if there is nothing to do now."""
    if not tree.running or (in_step and tree.in_flight):
        return []
    wanted = min(state.settings.parallel_leaves - tree.in_flight, simulations_left(state, tree))
    draws = tree.allocation.draws(state, tree, wanted) if wanted > 0 else []
    if not draws and not tree.in_flight:
        advance_or_end(state, tree)
    return [draws] if in_step and draws else [[draw] for draw in draws]


def _simulate(state: SearchState, tree: TreeState, draws: Sequence[Draw]) -> Coroutine[None]:
    """Run the simulations of some draws, and back them up together."""
    simulations = [plan(state, tree, draw) for draw in draws]
    try:
        drawn = yield from Drawing(state.thoughts, tree.acting).draw([_ask(state, tree, one) for one in simulations])
        for simulation, found in zip(simulations, drawn, strict=True):
            expand(state, tree, simulation, found)
        yield from verify(state, tree, [node for one in simulations for node in one.new])
        yield from evaluate(state, tree, [node for one in simulations for node in one.new])
    except GeneratorExit:
        for simulation in simulations:
            tree.reserved_tokens -= 0 if simulation.expanded else simulation.reserved_tokens
        backup(state, tree, simulations)
        raise
    backup(state, tree, simulations)
    for simulation in simulations:
        tree.allocation.learn(state, tree, simulation.draw, simulation.ends)


def _ask(state: SearchState, tree: TreeState, simulation: Simulation) -> Ask:
    """What a simulation asks for: its samples, after the solution up to its leaf."""
    forest, leaf = state.forest, simulation.leaf
    turns = () if tree.acting is None else turns_of(forest, leaf)
    return Ask(simulation.request, forest.solution_tokens(leaf), simulation.last, tree.limit, turns)


# --- expand ----------------------------------------------------------------------------------------------


def plan(state: SearchState, tree: TreeState, draw: Draw) -> Simulation:
    """Start the simulation of a draw: make the request for its samples and count it as in flight."""
    settings, forest, leaf = state.settings, state.forest, draw.leaf
    solution = forest.solution_tokens(leaf)
    last = settings.expand == "rollout" or steps_left(state, tree, leaf) <= 1
    # A merged step keeps the tokens of its first sample. A path can therefore be longer than the samples along it.
    room = max(1, tree.limit - len(solution))
    n, size, reserved = draw.samples, room if last else min(room, step_tokens(state.prompt, settings)), 0
    if settings.budget is not None and tree.info.mode == "solve":
        n, size, reserved = _affordable(state, tree, leaf, n, size)
    stop, visible = (state.prompt.stop, False) if last else step_stops(state.prompt)
    request = Request(
        id=-1,  # set when the request is sent
        prefix=(*tree.info.prompt_tokens, *solution),
        n=n,
        max_tokens=size,
        temperature=settings.temperature,
        top_p=settings.top_p,
        **shape_of(settings)._asdict(),
        generated=len(solution),
        stop=stop,
        visible=visible,
        seed=seed_from(settings.seed, tree.problem.id, tree.started),
    )
    simulation = Simulation(draw, tree.started, last, request, reserved)
    tree.started += 1
    tree.in_flight += 1
    tree.reserved_tokens += reserved
    return simulation


def _affordable(state: SearchState, tree: TreeState, leaf: int, n: int, size: int) -> tuple[int, int, int]:
    """Reduce n samples of at most `size` tokens to what the budget can pay.

    The tokens left are shared with the simulations that may run at the same time. Each sample also reserves the tokens
    of its own scores. There are fewer than n samples if the tokens do not suffice for n samples as long as the longest
    sample so far.

    Returns (samples, most tokens of each, tokens reserved).
    """
    settings = state.settings
    steps = steps_left(state, tree, leaf) if settings.expand == "rollout" else 1
    cost = sum(reward.cost * (steps if reward.settings.at == "all" else 1) for reward in tree.rewards)
    beside = settings.parallel_leaves if leaf != tree.info.root else 1  # no other leaf exists before the root's samples
    share = unspent_tokens(state, tree) // max(1, beside - tree.in_flight)
    n = min(n, max(1, share // (max(1, tree.longest) + cost)))
    size = max(1, min(size, share // n - cost))
    return n, size, n * (size + cost)


def step_tokens(prompt: PromptSettings, settings: SearchSettings) -> int:
    """The most tokens of a step that is sampled alone."""
    return prompt.steps.max_tokens or settings.max_step_tokens


def expand(state: SearchState, tree: TreeState, simulation: Simulation, drawn: Drawn) -> None:
    """Add samples to the tree, under the leaf of their simulation.

    The tree fails, and gains no node, if the engine refused the request or if no sample has a token. If only some
    samples have no token, these are dropped and `TreeInfo.notes` says so.
    """
    forest, settings = state.forest, state.settings
    tree.reserved_tokens -= simulation.reserved_tokens
    simulation.expanded = True
    completion = drawn.completion
    kept = [index for index, sample in enumerate(completion.samples) if sample.tokens]
    samples = [completion.samples[index] for index in kept]
    if completion.error is not None or not samples:
        fail(state, tree, completion.error or "the engine gave no sample that has a token")
        return
    if len(samples) < len(completion.samples) and NO_TOKENS not in tree.info.notes:
        tree.info.notes.append(NO_TOKENS)
    before = forest.solution_tokens(simulation.leaf)
    if tree.acting is None:
        steps = _steps(state, tree, simulation, samples, before)
    else:
        acted = [drawn.acted[index] for index in kept]
        steps = [
            _acted(state, tree, simulation, sample, one, before) for sample, one in zip(samples, acted, strict=True)
        ]
        tree.info.notes += sorted({one.failed for one in acted if one.failed} - set(tree.info.notes))
    simulation.new, simulation.ends = attach(forest, simulation.leaf, steps, settings.length_penalty, settings.merge)
    simulation.new = [*simulation.new, *add_reference(state, tree, simulation.leaf, before)]
    simulation.new += add_closing(state, tree, simulation.leaf, before)
    # Scores are charged to the budget now, because other simulations may start before the scores are requested.
    scores = sum(reward.cost * len(_scored(state, reward, simulation.new)) for reward in tree.rewards)
    tokens = drawn.tokens + scores
    tree.longest = max(tree.longest, *(len(sample.tokens) for sample in samples))
    tree.info.generated += tokens
    tree.info.simulations += 1
    state.totals.tokens += tokens
    state.totals.simulations += tree.running and tree.info.simulations <= settings.simulations


def _steps(
    state: SearchState, tree: TreeState, simulation: Simulation, samples: Sequence[Sample], before: Sequence[int]
) -> list[list[Step]]:
    """Cut each sample into steps."""
    settings = state.settings
    if settings.expand == "step" and not (simulation.last and state.prompt.steps.max_tokens):
        return [[_one_step(state, tree, simulation, sample, before)] for sample in samples]
    room = steps_left(state, tree, simulation.leaf)
    cuts = settings.allocation.cuts_per_sample()
    return [whole_solution(sample, before, state.engine.tokenizer, state.prompt, room, cuts) for sample in samples]


def _acted(
    state: SearchState, tree: TreeState, simulation: Simulation, sample: Sample, acted: Acted, before: Sequence[int]
) -> list[Step]:
    """Cut a sample that an environment has replied to into steps."""
    assert tree.acting is not None
    whole = simulation.last or state.settings.expand == "rollout"
    tokenizer, environment = state.engine.tokenizer, tree.acting.environment
    steps = acted_steps(sample, acted, before, tokenizer, state.prompt, environment, whole=whole)
    if sample.finish != "stop" or whole or acted.over:
        return steps
    full = len(before) + len(sample.tokens) >= tree.limit
    if acted.over is None:
        ending = step_ending(state.forest.written_text(simulation.leaf), steps[-1].text, state.thoughts)
        full = full and not ending
    else:
        ending = ""
    finish = "length" if full else ending
    return [*steps[:-1], replace(steps[-1], finish=FINISHES.index(finish))]


def _one_step(
    state: SearchState, tree: TreeState, simulation: Simulation, sample: Sample, before: Sequence[int]
) -> Step:
    """Make one step of a sample (`expand: step`). before: the solution's tokens up to the leaf."""
    (text,) = step_texts(before, sample.tokens, [len(sample.tokens)], state.engine.tokenizer)
    finish: str = sample.finish
    if finish == "stop" and not simulation.last:
        full = len(before) + len(sample.tokens) >= tree.limit
        ending = step_ending(state.forest.solution_text(simulation.leaf), text, state.thoughts)
        finish = ending or ("length" if full else "")
    return Step(sample.tokens, sample.logprobs, text, FINISHES.index(finish))


# --- verify ----------------------------------------------------------------------------------------------


def verify(state: SearchState, tree: TreeState, new: Sequence[int]) -> Coroutine[None]:
    """Verify the solutions that end in new nodes, and store their outcomes and answers in the forest."""
    forest = state.forest
    ends = [node for node in new if forest.terminal[node]]
    items = [
        (
            state.prompt.prefill + forest.written_text(node),
            bool(forest.finish[node] == LENGTH),
            forest.answers[node],
            tree.problem,
            state,
        )
        for node in ends
    ]
    found = yield from call(verified, items)
    for node, row in zip(ends, found, strict=True):
        result = Verification(*row)
        forest.outcome[node] = result.value
        forest.answers[node] = result.answer
        tree.info.unanswered += result.answer is None
        tree.info.unverified += not result.verified
        if result.value > 0 and not tree.solved:
            tree.solved = True
            state.totals.solved += 1


def verified(items: Sequence[tuple[str, bool, str | None, Problem, SearchState]]) -> list[list[Any]]:
    """Verify solutions, each given as (text, whether it was cut, answer that an environment read, problem, search).

    Returns the fields of one `Verification` per solution, as a list, so that a journal can store it.
    """
    return [list(astuple(_verification(*item))) for item in items]


def _verification(text: str, cut: bool, answer: str | None, problem: Problem, state: SearchState) -> Verification:
    found = read_solution(text, cut, problem, state.thoughts, answer)
    return with_noise(found, text, problem, outcome_settings(state.settings.rewards), state.settings.seed)


# --- evaluate --------------------------------------------------------------------------------------------


def evaluate(state: SearchState, tree: TreeState, new: Sequence[int]) -> Coroutine[None]:
    """Score new nodes with every reward. The rewards run concurrently. A refused request fails the tree."""
    yield from side_by_side([_score(state, tree, reward, _scored(state, reward, new)) for reward in tree.rewards])


def _scored(state: SearchState, reward: Reward, new: Sequence[int]) -> list[int]:
    """The new nodes that a reward scores: all of them (`at: all`), or the terminal ones."""
    everywhere = reward.settings.at == "all"
    return [node for node in new if everywhere or state.forest.terminal[node]]


def _score(state: SearchState, tree: TreeState, reward: Reward, nodes: Sequence[int]) -> Coroutine[None]:
    if not nodes:
        return
    try:
        found = yield from reward.scores([solution_path(state.forest, node, state.prompt.prefill) for node in nodes])
    except RequestError as error:
        fail(state, tree, str(error))
        return
    kind = reward.settings.kind
    state.forest.scores[kind][nodes] = [score if math.isfinite(score) else math.nan for score in found]
    missed = len(found) - sum(map(math.isfinite, found))
    if missed and reward.settings.judges:  # an outcome that is not known is counted in `unverified`
        tree.info.unscored[kind] = tree.info.unscored.get(kind, 0) + missed


# --- backup ----------------------------------------------------------------------------------------------


def backup(state: SearchState, tree: TreeState, simulations: Sequence[Simulation]) -> None:
    """Update the tree after simulations: rewards of the new nodes, priors, values and visits, virtual losses."""
    forest, settings = state.forest, state.settings
    tree.in_flight -= len(simulations)
    new = [node for simulation in simulations for node in simulation.new]
    set_rewards(forest, settings, np.array(new, np.int64))
    # The prior mass of every node that a sample runs through has grown, so its parent's priors change.
    touched = {int(forest.parent[node]) for one in simulations for node in {*_below(forest, one), *one.new}}
    kernels.set_priors(forest, np.array(sorted(touched), np.int64), settings.prior == "normalised")
    rule = kernels.PAPER if settings.backup == "paper" else kernels.MEAN
    unsampled = [node for one in simulations for node in one.new[::-1] if not forest.samples[node]]
    if unsampled:
        kernels.refresh(forest, np.array(unsampled), rule, settings.gamma)
    ends = [end for one in simulations for end in one.ends]
    kernels.back_up(forest, np.array(ends, np.int64), rule, settings.gamma)
    for expanded in (True, False):  # a refused request leaves its leaf without samples
        leaves = [one.leaf for one in simulations if bool(one.ends) == expanded]
        kernels.release(forest, np.array(leaves, np.int64), expanded)


def set_rewards(forest: Forest, settings: SearchSettings, nodes: NDArray[np.int64]) -> None:
    """Compute R of new states, and r of the steps that lead to them, from the scores (see `mcts_dpo.rewards.combine`).

    nodes: [n] node ids. Every parent is a root, among them, or was among those of an earlier call.
    """
    own = {kind: column[nodes] for kind, column in forest.scores.items()}
    everywhere = [one.kind for one in settings.rewards if one.at == "all" and one.kind in own]
    known = own | {kind: last_known(forest.scores[kind], forest.parent, nodes) for kind in everywhere}
    forest.state_reward[nodes] = combine(settings.rewards, known)
    if settings.accumulate == "difference":
        forest.reward[nodes] = forest.state_reward[nodes] - forest.state_reward[forest.parent[nodes]]
    else:
        forest.reward[nodes] = combine(settings.rewards, own)


def _below(forest: Forest, simulation: Simulation) -> set[int]:
    """The nodes that the samples of a simulation run through, from the leaf (excluded) to the samples' ends."""
    found: set[int] = set()
    for last in simulation.ends:
        node = last
        while node != simulation.leaf and node not in found:
            found.add(node)
            node = int(forest.parent[node])
    return found
