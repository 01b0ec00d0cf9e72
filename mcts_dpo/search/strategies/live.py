"""Questions answered by a strategy as they come, all over one engine, each of which can be taken back: for a server.

In: questions (problems without answers) with a budget each, whenever somebody has one. Out: a `Reply` to each. What
`strategies.solve` does for problems that are all known at the beginning, with the same draws: the reply to a question
is its attempt. Two kinds, one interface (`Solver`): `TreeSolver` for the tree search, over the loop of events.py;
`DialogueSolver` for all other strategies. Knows neither threads nor time nor who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from mcts_dpo.decoding import decode
from mcts_dpo.engines.base import Completion, Engine, Request, Sample
from mcts_dpo.files import InputError
from mcts_dpo.problems import Problem
from mcts_dpo.prompts import PromptSettings, prompt_tokens
from mcts_dpo.search import simulation
from mcts_dpo.search.answers import mean_logprob, tree_answer
from mcts_dpo.search.events import SLOTS, Loop
from mcts_dpo.search.forest import LENGTH, Forest
from mcts_dpo.search.rewards import Question as SelfEvaluation
from mcts_dpo.search.rewards import question as self_evaluation
from mcts_dpo.search.settings import SearchSettings, SelfEvaluationSettings
from mcts_dpo.search.strategies import beams, sampling
from mcts_dpo.search.strategies.budget import Attempt, Task, make_task
from mcts_dpo.search.strategies.dialogues import Dialogue, Dialogues
from mcts_dpo.search.strategies.registry import REGISTERED, Strategy
from mcts_dpo.search.strategies.settings import Plan, StrategySettings, plan
from mcts_dpo.search.strategies.tree import tree_settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Prepared:
    """A question's texts as tokens. tokens: the prompt. asked: the self-evaluation, None if none is asked."""

    tokens: tuple[int, ...]
    asked: SelfEvaluation | None


@dataclass(frozen=True, slots=True)
class Question:
    """What a strategy is asked: a problem, how it is put, how solutions are sampled, what may be spent (tokens).

    prepared: by `Solver.prepare`; None: `Solver.admit` does it.
    """

    problem: Problem
    prompt: PromptSettings
    search: SearchSettings
    budget: int
    prepared: Prepared | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a question.

    text:       the solution that stands for the answer. Where none states one: the likeliest of what was sampled.
    steps:      the same in steps; joined they are `text`.
    answer:     as the solution states it; None without one.
    cut:        the solution was cut by a limit or by the end of the budget.
    prompt:     tokens of the prompt.
    spent:      tokens that were generated, each self-evaluation counted as its longer answer.
    expansions: prefixes from which samples were drawn; for a tree its simulations.
    error:      why the engine could not serve the question, else None.
    """

    text: str = ""
    steps: tuple[str, ...] = ()
    answer: str | None = None
    cut: bool = False
    prompt: int = 0
    spent: int = 0
    expansions: int = 0
    error: str | None = None


class Solver(Protocol):
    """One strategy at work over one engine. A question is known by a key that is its asker's own."""

    @property
    def busy(self) -> bool:
        """Whether any question has been neither answered nor cancelled."""
        ...

    def prepare(self, question: Question, tokenizer: PreTrainedTokenizerBase) -> Prepared:
        """Tokenise what a question needs. May be called from any thread, with a copy of the engine's tokenizer that no
        other thread uses. Raises InputError if its prompt cannot be rendered or leaves no room for a solution."""
        ...

    def admit(self, key: Hashable, question: Question, share: Hashable = None) -> None:
        """Take a question up. Raises InputError as `prepare` does.

        share: whoever asks; the engine's work is shared evenly between all who ask.
        """
        ...

    def step(self, patience: float | None = None) -> list[tuple[Hashable, Reply]]:
        """Do what can be done and wait for the engine once, at most `patience` seconds (None: as long as it takes).
        Returns what has been answered."""
        ...

    def cancel(self, key: Hashable) -> None:
        """Give a question up; everything it holds is free. One that is not under way is left alone."""
        ...

    def decided(self, key: Hashable) -> Sequence[str]:
        """The first steps of the reply, as far as they cannot change any more; () for an unknown key."""
        ...


def _room(engine: Engine) -> int:
    """Sequences that keep an engine busy, and hardly more: who comes then finds no queue of thousands in it."""
    slots = int(getattr(getattr(engine, "settings", None), "slots", SLOTS))
    return slots + max(1, slots // 8)


def _prepare(
    question: Question, tokenizer: PreTrainedTokenizerBase, settings: SelfEvaluationSettings, context: int
) -> Prepared:
    problem = question.problem.without_answer()
    tokens = tuple(prompt_tokens(problem, tokenizer, question.prompt))
    if len(tokens) < context:  # the question about a solution may be long as well: not for a prompt that cannot be
        asked = self_evaluation(problem, tokenizer, question.prompt, settings)
        if len(tokens) + (asked.room if asked else 0) < context:
            return Prepared(tokens, asked)
    raise InputError(f"a prompt of {len(tokens)} tokens leaves no room in a context of {context}")


def solver_for(strategy: Strategy, engine: Engine, dials: StrategySettings, alive: int) -> Solver:
    """The solver of a strategy. alive: trees searched at a time; those of further questions wait."""
    if strategy == "mcts":
        return TreeSolver(engine, dials, alive)
    return DialogueSolver(engine, strategy, dials)


class TreeSolver:
    """The tree search, one tree for each question. With `advance: step` every move decides a step."""

    def __init__(self, engine: Engine, dials: StrategySettings, alive: int) -> None:
        from mcts_dpo.models import tokenizer_digest  # not before a model is there: it brings torch along

        self._engine = engine
        self._dials = dials
        self._loop = Loop(engine, alive, room=_room(engine))
        self._tokenizer = tokenizer_digest(engine.tokenizer)
        self._tasks: dict[Hashable, simulation.Task] = {}
        self._keys: dict[int, Hashable] = {}

    @property
    def busy(self) -> bool:
        """See `Solver`."""
        return bool(self._tasks)

    def prepare(self, question: Question, tokenizer: PreTrainedTokenizerBase) -> Prepared:
        """See `Solver`."""
        return _prepare(question, tokenizer, question.search.self_evaluation, self._engine.context)

    def admit(self, key: Hashable, question: Question, share: Hashable = None) -> None:
        """See `Solver`."""
        prepared = question.prepared or self.prepare(question, self._engine.tokenizer)
        follows = plan(question.budget, self._dials, question.search)
        settings = tree_settings(question.search, question.budget, follows)
        texts = [(prepared.tokens, prepared.asked)]
        task = simulation.start(
            [question.problem], self._engine, question.prompt, settings, "solve", self._tokenizer, texts
        )
        if task.trees[0].info.status == "failed":
            raise InputError(task.trees[0].info.reason)
        self._tasks[key] = task
        self._keys[id(task)] = key
        self._loop.admit(task, share)

    def step(self, patience: float | None = None) -> list[tuple[Hashable, Reply]]:
        """See `Solver`."""
        found = []
        for task in self._loop.step(patience):
            key = self._keys.pop(id(task))
            del self._tasks[key]
            found.append((key, _reply(partial(tree_reply, task))))
        return found

    def cancel(self, key: Hashable) -> None:
        """See `Solver`."""
        task = self._tasks.pop(key, None)
        if task is not None:
            del self._keys[id(task)]
            self._loop.cancel(task)

    def decided(self, key: Hashable) -> Sequence[str]:
        """See `Solver`."""
        task = self._tasks.get(key)
        return () if task is None else _with_prefill(task, task.trees[0].info.moves)


def tree_reply(task: simulation.Task) -> Reply:
    """What a finished tree answers."""
    forest, tree = task.forest, task.trees[0]
    info = tree.info
    cost = Reply(prompt=len(info.prompt_tokens), spent=info.generated, expansions=info.simulations)
    if info.status == "failed":
        return replace(cost, error=info.reason)
    found = tree_answer(forest, 0)
    leaf = found.leaf if found.leaf >= 0 else _likeliest(forest, tree.position)
    steps = _with_prefill(task, forest.path(leaf)[1:])
    cut = not forest.terminal[leaf] or bool(forest.finish[leaf] == LENGTH)
    return replace(cost, text="".join(steps), steps=steps, answer=found.answer, cut=cut)


def _with_prefill(task: simulation.Task, nodes: Sequence[int]) -> tuple[str, ...]:
    texts = [task.forest.texts[node] for node in nodes]
    return (task.prompt.prefill + texts[0], *texts[1:]) if texts else ()


def _likeliest(forest: Forest, below: int) -> int:
    """Where no solution states an answer: the end that speaks most for itself; a whole one before a cut one."""
    nodes = [int(node) for node in forest.nodes(int(forest.tree[below])) if below in forest.path(int(node))]

    def rank(node: int) -> tuple[bool, int, float]:
        whole = bool(forest.terminal[node]) and forest.finish[node] != LENGTH
        return whole, int(forest.visits[node] if whole else forest.depth[node]), mean_logprob(forest, node)

    return max((node for node in nodes if forest.depth[node] > 0), key=rank, default=below)


@dataclass(slots=True, eq=False)
class _Talk:
    """A dialogue under way. spent, expansions: so far. draft: the best that was sampled without regard to answers:
    (whole, tokens), and its own tokens."""

    task: Task
    dialogue: Dialogue[Attempt]
    spent: int = 0
    expansions: int = 0
    rank: tuple[bool, int] = (False, 0)
    draft: tuple[int, ...] = ()


class DialogueSolver:
    """Every strategy but the tree search. Nothing of its reply is decided before the end."""

    def __init__(self, engine: Engine, strategy: Strategy, dials: StrategySettings) -> None:
        self._engine = engine
        self._strategy = strategy
        self._dials = dials
        self._together: Dialogues[Attempt] = Dialogues(engine, contain=True, room=_room(engine))
        self._talks: dict[Hashable, _Talk] = {}
        self._keys: dict[Dialogue[Attempt], Hashable] = {}

    @property
    def busy(self) -> bool:
        """See `Solver`."""
        return bool(self._talks)

    def prepare(self, question: Question, tokenizer: PreTrainedTokenizerBase) -> Prepared:
        """See `Solver`."""
        return _prepare(question, tokenizer, SelfEvaluationSettings(weight=1.0), self._engine.context)

    def admit(self, key: Hashable, question: Question, share: Hashable = None) -> None:
        """See `Solver`."""
        prepared = question.prepared or self.prepare(question, self._engine.tokenizer)
        texts = (prepared.tokens, prepared.asked)
        task = make_task(question.problem, self._engine, question.prompt, question.search, texts)
        follows = plan(question.budget, self._dials, question.search)
        talk = _Talk(task, dialogue_for(self._strategy, task, question.budget, follows))
        talk.dialogue = _watched(talk.dialogue, talk)
        self._talks[key] = talk
        self._keys[talk.dialogue] = key
        self._together.admit(talk.dialogue, share)

    def step(self, patience: float | None = None) -> list[tuple[Hashable, Reply]]:
        """See `Solver`."""
        found = []
        for dialogue, result in self._together.step(patience):
            key = self._keys.pop(dialogue)
            found.append((key, _reply(partial(_dialogue_reply, self._talks.pop(key), result))))
        return found

    def cancel(self, key: Hashable) -> None:
        """See `Solver`."""
        talk = self._talks.pop(key, None)
        if talk is not None:
            del self._keys[talk.dialogue]
            self._together.cancel(talk.dialogue)

    def decided(self, key: Hashable) -> Sequence[str]:
        """See `Solver`."""
        return ()


def _reply(read: Callable[[], Reply]) -> Reply:
    """A reply; where reading it off a search raises, one that says so."""
    try:
        return read()
    except Exception as error:
        return Reply(error=f"the answer cannot be read ({type(error).__name__}: {error})")


def dialogue_for(strategy: Strategy, task: Task, budget: int, follows: Plan) -> Dialogue[Attempt]:
    """One question to any strategy but "mcts", within a budget of generated tokens."""
    if strategy in REGISTERED:
        return REGISTERED[strategy](task, budget)
    if strategy == "greedy":
        return sampling.greedy(task, budget)
    for rule in sampling.RULES:
        if rule == strategy:
            return _sampled(task, rule, budget)
    run = beams.dvts if strategy == "dvts" else beams.beam
    return run(task, budget, follows.width, follows.children, follows.depth)


def no_room(task: Task, engine: Engine) -> str:
    """Why a task whose limit is below 1 cannot be served."""
    return f"a prompt of {len(task.prefix)} tokens leaves no room in a context of {engine.context}"


def _sampled(task: Task, rule: sampling.Rule, budget: int) -> Dialogue[Attempt]:
    judged = rule in sampling.JUDGED
    stream = yield from sampling.draw(task, 0 if judged else budget, budget if judged else 0)
    return sampling.answer_from(stream, rule, budget, task.cost)


def _watched(dialogue: Dialogue[Attempt], talk: _Talk) -> Dialogue[Attempt]:
    """The same dialogue, its cost and its best draft noted as it goes."""
    try:
        requests = next(dialogue)
        while True:
            completions = yield requests
            for request, completion in zip(requests, completions, strict=True):
                _note(talk, request, completion)
            requests = dialogue.send(completions)
    except StopIteration as stop:
        result: Attempt = stop.value
        return result


def _note(talk: _Talk, request: Request, completion: Completion) -> None:
    if request.choices is not None:
        talk.spent += max(map(len, request.choices))
        return
    talk.expansions += 1
    before = tuple(request.prefix[len(talk.task.prefix) :])
    last = request.stop == talk.task.prompt.stop

    def whole(sample: Sample) -> bool:
        return len(sample.tokens) > 1 and (sample.finish == "end" or (sample.finish == "stop" and last))

    for sample in completion.samples:
        talk.spent += len(sample.tokens)
        # The first whole solution; before there is one, the longest beginning.
        rank = (whole(sample), 0 if whole(sample) else len(before) + len(sample.tokens))
        if rank > talk.rank:
            talk.rank, talk.draft = rank, (*before, *sample.tokens)


def _dialogue_reply(talk: _Talk, result: Attempt | str) -> Reply:
    task = talk.task
    cost = Reply(prompt=len(task.prefix), spent=talk.spent, expansions=talk.expansions)
    if isinstance(result, str):
        return replace(cost, error=result)
    text, cut = result.text, False
    if result.answer is None:
        text = task.prompt.prefill + decode(task.tokenizer, talk.draft)
        cut = not talk.rank[0]
    return replace(cost, text=text, steps=split_text(text, task.prompt.step_end), answer=result.answer, cut=cut)


def split_text(text: str, step_end: str) -> tuple[str, ...]:
    """A text in pieces that end with `step_end`, the last perhaps without; joined they are the text."""
    pieces = [piece + step_end for piece in text.split(step_end)]
    pieces[-1] = pieces[-1].removesuffix(step_end)
    return tuple(piece for piece in pieces if piece)
