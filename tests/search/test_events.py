"""The event-driven search: the trees of the waves, whatever the engine finishes first."""

from __future__ import annotations

import random
import re
from collections.abc import Container, Iterable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.engines import load_engine
from mcts_dpo.engines.base import Completion, Occupancy, Request
from mcts_dpo.engines.settings import EngineSettings
from mcts_dpo.engines.transformers import TransformersEngine
from mcts_dpo.models import load_model, load_tokenizer
from mcts_dpo.problems import Problem
from mcts_dpo.prompts import prompt_tokens
from mcts_dpo.search import Forest, SearchClock, SearchSettings, SelfEvaluationSettings, search
from mcts_dpo.search.events import SLOTS, trees_alive
from mcts_dpo.search.lasting import EngineDiedError, LastingEngine
from tests.conftest import ToyWorld
from tests.reference.engine import PIECES, AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT, assert_sound, every_rule

MANY = [
    Problem(f"{index}", question, str(1 + index % 3))
    for index, question in enumerate(["a", "b", "ab", "ba", "aa", "bb", "aab", "aba"])
]
WIDE = SearchSettings(simulations=12, children=3, max_tokens=24, max_step_tokens=8, max_depth=5)
JUDGED = WIDE.model_copy(update={"self_evaluation": SelfEvaluationSettings(weight=0.5, at="all")})
STEPS = WIDE.model_copy(update={"expand": "step"})


class ShuffledEngine(AutomatonEngine):
    """Finishes a random few of what is under way at each poll, in a random order; notes how much was under way."""

    def __init__(self, order: int, model_seed: int = 6, **options: int) -> None:
        super().__init__(model_seed, **options)
        self._order = random.Random(order)
        self._under_way: list[Completion] = []
        self.busy: list[int] = []

    def poll(self, patience: float | None = None) -> list[Completion]:
        self._under_way += super().poll()
        self.busy.append(len(self._under_way))
        self._order.shuffle(self._under_way)
        count = self._order.randint(1, max(1, len(self._under_way)))
        done, self._under_way = self._under_way[:count], self._under_way[count:]
        return done

    def cancel(self, ids: Iterable[int]) -> None:
        gone = set(ids)
        super().cancel(gone)
        self._under_way = [completion for completion in self._under_way if completion.id not in gone]

    def occupancy(self) -> Occupancy:
        return Occupancy(len(self._waiting) + len(self._under_way))


def events(settings: SearchSettings, **changes: object) -> SearchSettings:
    return settings.model_copy(update={"schedule": "events", **changes})


def as_waves(forest: Forest, settings: SearchSettings) -> Forest:
    """The forest as if it had been searched in waves: nothing but the settings that it notes may differ."""
    ordered = forest.by_tree()
    ordered.settings = {**forest.settings, "search": settings.model_dump(mode="json")}
    return ordered


@hypothesis_settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(every_rule, st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 9))
def test_the_trees_are_those_of_the_waves(settings: SearchSettings, seed: int, order: int, alive: int) -> None:
    settings = settings.model_copy(update={"parallel_leaves": 1})
    waves = search(MANY, AutomatonEngine(seed), prompt=PROMPT, settings=settings)
    found = search(MANY, ShuffledEngine(order, seed), prompt=PROMPT, settings=events(settings, alive=alive))
    assert as_waves(found, settings) == as_waves(waves, settings)


@hypothesis_settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(every_rule, st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 9))
def test_with_several_leaves_out_every_forest_is_sound(
    settings: SearchSettings, seed: int, order: int, alive: int
) -> None:
    settings = events(settings, alive=alive)
    forest = search(PROBLEMS, ShuffledEngine(order, seed), prompt=PROMPT, settings=settings)
    assert_sound(forest, settings)
    assert {tree.status for tree in forest.trees} <= {"simulations", "budget", "exhausted", "decided", "advanced"}


@pytest.mark.parametrize("settings", [WIDE, JUDGED, STEPS])
def test_only_so_many_trees_are_alive_and_each_end_lets_the_next_in(settings: SearchSettings) -> None:
    engine = ShuffledEngine(1)
    forest = search(MANY, engine, prompt=PROMPT, settings=events(settings, alive=3))
    roots = [tuple(tree.prompt_tokens) for tree in forest.trees]
    first: list[int] = []
    for request in engine.requests:
        # The longest prompt that the request begins with is its own: no sample goes on with a whole other prompt.
        tree = max(
            (t for t, root in enumerate(roots) if request.prefix[: len(root)] == root), key=lambda t: len(roots[t])
        )
        if tree not in first:
            first.append(tree)
    assert first == list(range(len(MANY))), "problems are admitted in their order"
    if settings is not JUDGED:
        assert max(engine.busy) == 3


def test_few_trees_put_several_leaves_out() -> None:
    settings = events(STEPS, alive=8, simulations=24, max_depth=8, max_tokens=60)
    alone, together = ShuffledEngine(2), ShuffledEngine(2)
    search(PROBLEMS[:1], alone, prompt=PROMPT, settings=settings)
    search(PROBLEMS[:1], together, prompt=PROMPT, settings=settings.model_copy(update={"parallel_leaves": 4}))
    assert max(alone.busy) == 1
    assert max(together.busy) > 2


def test_the_bytes_say_nothing_of_the_order() -> None:
    forests = [
        search(MANY, ShuffledEngine(order), prompt=PROMPT, settings=events(JUDGED, alive=4)) for order in range(4)
    ]
    assert all(forest == forests[0] for forest in forests)
    tree = forests[0].tree[len(MANY) :]
    assert (np.diff(tree) >= 0).all()


def test_refused_and_roomless_problems_fail_and_the_others_go_on() -> None:
    problems = [Problem("long", "a" * 60, "1"), PROBLEMS[0], Problem("bad", "a;b", "1"), PROBLEMS[2]]
    engine = ShuffledEngine(3, context=50, refused=PIECES.index(";"))
    forest = search(problems, engine, prompt=PROMPT, settings=events(WIDE, alive=2, parallel_leaves=2))
    assert [tree.status == "failed" for tree in forest.trees] == [True, False, True, False]
    assert "leaves no room" in forest.trees[0].reason
    assert forest.trees[2].reason == f"refused: token {PIECES.index(';')}"
    assert (forest.virtual == 0).all()


def test_an_engine_that_loses_a_request_is_an_error() -> None:
    class Forgetful(AutomatonEngine):
        def submit(self, request: Request) -> None:
            if len(self.requests) < 3:
                super().submit(request)

    for settings in (WIDE, events(WIDE)):
        with pytest.raises(RuntimeError, match="the engine lost"):
            search(PROBLEMS, Forgetful(6), prompt=PROMPT, settings=settings)


def test_the_clock_tells_the_engine_from_the_rest() -> None:
    for settings in (JUDGED, events(JUDGED)):
        clock = SearchClock()
        search(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=settings, clock=clock)
        assert clock.engine > 0.0
        assert clock.other > 0.0
        assert clock.polls > 0
        assert 0.0 < clock.bookkeeping_share < 1.0
        before = clock.polls
        search(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=settings, clock=clock)
        assert clock.polls > before
    assert SearchClock().bookkeeping_share == 0.0


class Dying(AutomatonEngine):
    """Dies at the calls of `submit` or `poll` (`where`) whose numbers are in `deaths`, or answers with errors then."""

    def __init__(self, where: str, deaths: Container[int]) -> None:
        super().__init__(6)
        self.where, self.deaths = where, deaths
        self.calls, self.died = 0, 0

    def _dies(self, name: str) -> bool:
        self.calls += name == self.where
        dies = name == self.where and self.calls in self.deaths
        self.died += dies
        return dies

    def submit(self, request: Request) -> None:
        if self._dies("submit"):
            raise OSError("the device is gone\nand more lines")
        super().submit(request)

    def poll(self, patience: float | None = None) -> list[Completion]:
        if self._dies("poll"):
            raise OSError("the device is gone\nand more lines")
        done = super().poll()
        if self._dies("answer"):
            return [Completion(one.id, error="cannot be reached, tried 6 times") for one in done]
        return done


@pytest.mark.parametrize("schedule", ["waves", "events"])
@pytest.mark.parametrize("where", ["poll", "submit", "answer"])
def test_an_engine_that_dies_and_lives_again_changes_no_tree(schedule: str, where: str) -> None:
    """What was under way is sent again; a failure that lasts for one answer is none of the request's."""
    settings = JUDGED.model_copy(update={"schedule": schedule, "alive": 3, "simulations": 60})
    engine = Dying(where, {"poll": {30, 60}, "submit": {30, 200}, "answer": {30, 45}}[where])
    found = search(MANY, engine, prompt=PROMPT, settings=settings)
    assert engine.died > 1
    assert found == search(MANY, AutomatonEngine(6), prompt=PROMPT, settings=settings)


class Poisoned(ShuffledEngine):
    """Dies of one problem's prefixes, whenever it is to run one, and forgets all that was under way."""

    def __init__(self, where: str, poison: tuple[int, ...]) -> None:
        super().__init__(9)
        self.where, self.poison, self.died = where, poison, 0

    def _die(self, requests: Sequence[Request]) -> None:
        if any(request.prefix[: len(self.poison)] == self.poison for request in requests):
            self.died += 1
            self._waiting.clear()
            self._under_way.clear()
            raise OSError("the device is gone")

    def submit(self, request: Request) -> None:
        if self.where == "submit":
            self._die([request])
        super().submit(request)

    def poll(self, patience: float | None = None) -> list[Completion]:
        self._die(self._waiting)
        return super().poll()


@pytest.mark.parametrize("schedule", ["waves", "events"])
@pytest.mark.parametrize("where", ["poll", "submit"])
def test_a_problem_that_the_engine_dies_of_fails_and_the_rest_goes_on(schedule: str, where: str) -> None:
    settings = JUDGED.model_copy(update={"schedule": schedule, "alive": 4})
    poison = prompt_tokens(MANY[3], AutomatonEngine(6).tokenizer, PROMPT)
    engine = Poisoned(where, tuple(poison))
    found = search(MANY, engine, prompt=PROMPT, settings=settings)
    clean = search(MANY, AutomatonEngine(6), prompt=PROMPT, settings=settings)
    assert found.trees[3].status == "failed"
    assert found.trees[3].reason == "the engine died of it, twice and more (OSError: the device is gone)"
    assert 2 <= engine.died <= 4
    for index, tree in enumerate(found.trees):
        if index != 3:
            assert (tree.status, tree.simulations) == (clean.trees[index].status, clean.trees[index].simulations)
            for column in ("visits", "q", "v"):
                mine, theirs = (getattr(one, column)[one.nodes(index)] for one in (found, clean))
                assert mine.tolist() == theirs.tolist()


class Refusing(AutomatonEngine):
    """Answers what it gets first with errors, and dies twice of what is sent again after that."""

    def __init__(self) -> None:
        super().__init__(6)
        self.answered, self.deaths = 0, 2

    def submit(self, request: Request) -> None:
        if self.answered == 2 and self.deaths and request.id == 1:
            self.deaths -= 1
            raise OSError("the device is gone")
        super().submit(request)

    def poll(self, patience: float | None = None) -> list[Completion]:
        self.answered += 1
        done = super().poll()
        return [Completion(one.id, error="refused") for one in done] if self.answered == 1 else done


def test_whatever_happens_a_request_is_answered_once() -> None:
    """Refused, then sent again to an engine that dies of sending: neither lost nor answered twice."""
    lasting = LastingEngine(Refusing())
    for number in range(4):
        lasting.submit(Request(id=number, prefix=(3, 4), max_tokens=4, seed=number))
    answers: list[Completion] = []
    while len(answers) < 4:
        answers += lasting.poll()
    assert sorted(answer.id for answer in answers) == [0, 1, 2, 3]
    assert all(answer.error is None for answer in answers)
    assert not any([lasting.under_way, lasting.suspects, lasting.held, lasting.fatal])


@pytest.mark.parametrize("schedule", ["waves", "events"])
@pytest.mark.parametrize("where", ["poll", "submit", "answer"])
def test_an_engine_that_is_dead_ends_the_search(schedule: str, where: str) -> None:
    settings = JUDGED.model_copy(update={"schedule": schedule, "alive": 3, "simulations": 60})
    reason = "cannot be reached, tried 6 times" if where == "answer" else "OSError: the device is gone"
    with pytest.raises(EngineDiedError) as died:
        search(MANY, Dying(where, range(30, 10**9)), prompt=PROMPT, settings=settings)
    assert str(died.value) == f"the engine serves nothing any more ({reason})"


@pytest.mark.parametrize("schedule", ["waves", "events"])
def test_a_model_of_nan_fails_its_problems_and_not_the_search(schedule: str, toy_world: ToyWorld) -> None:
    """The engine lives: it says of every problem what is wrong with the model."""
    model = load_model(toy_world.policy, "float32")
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(torch.nan)
    engine = TransformersEngine(model, load_tokenizer(toy_world.policy), EngineSettings(slots=4, threads=1))
    found = search(PROBLEMS, engine, prompt=PROMPT, settings=JUDGED.model_copy(update={"schedule": schedule}))
    assert {tree.status for tree in found.trees} == {"failed"}
    assert all(re.fullmatch(r"the model's logits after \d+ tokens are NaN or infinite", t.reason) for t in found.trees)


def test_twice_as_many_trees_are_alive_as_the_engine_runs_sequences(toy_world: ToyWorld) -> None:
    engine = load_engine(str(toy_world.policy), settings=toy_world.config.engine.model_copy(update={"slots": 24}))
    assert trees_alive(engine, SearchSettings()) == 48
    assert trees_alive(engine, SearchSettings(alive=5)) == 5
    assert trees_alive(AutomatonEngine(0), SearchSettings()) == 2 * SLOTS  # which does not say
