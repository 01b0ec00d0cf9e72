"""One runner, two schedules: the same trees, whatever the engine finishes first and whatever is cancelled."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.data import Problem
from mcts_dpo.engines import load_engine
from mcts_dpo.engines.base import Completion, Engine, Occupancy, Request
from mcts_dpo.rewards import OutcomeSettings, RewardSettings, SelfEvaluationSettings
from mcts_dpo.rewards.likelihood import LikelihoodSettings
from mcts_dpo.search import Forest, RunnerClock, SearchSettings, search_problems
from mcts_dpo.search.journal import Journal, identity
from mcts_dpo.search.mcts import admit
from mcts_dpo.search.runner import Runner, alive_by_default
from mcts_dpo.search.state import SearchState, begin
from tests.conftest import ToyWorld
from tests.reference.engine import PIECES, AutomatonEngine
from tests.reference.invariants import violations
from tests.search.support import PROBLEMS, PROMPT, assert_sound, every_rule

MANY = [
    Problem(f"{index}", question, str(1 + index % 3))
    for index, question in enumerate(["a", "b", "ab", "ba", "aa", "bb", "aab", "aba"])
]
WIDE = SearchSettings(simulations=12, children=3, max_tokens=24, max_step_tokens=8, max_depth=5)
JUDGED = WIDE.model_copy(update={"rewards": (OutcomeSettings(), SelfEvaluationSettings(weight=0.5, at="all"))})
STEPS = WIDE.model_copy(update={"expand": "step"})


class ShuffledEngine(AutomatonEngine):
    """Finishes a few random requests at each poll, in a random order. busy: how many were in flight at each poll."""

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


def asynchronous(settings: SearchSettings, **changes: object) -> SearchSettings:
    return settings.model_copy(update={"schedule": "asynchronous", **changes})


def said_of(forest: Forest, settings: SearchSettings) -> Forest:
    """The forest as if it had been searched with these settings: nothing but what it notes of them may differ."""
    forest.settings = {**forest.settings, "search": settings.model_dump(mode="json")}
    return forest


@hypothesis_settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(every_rule, st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 9))
def test_both_schedules_grow_the_same_trees(settings: SearchSettings, seed: int, order: int, alive: int) -> None:
    settings = settings.model_copy(update={"parallel_leaves": 1})
    expected = search_problems(MANY, AutomatonEngine(seed), prompt=PROMPT, settings=settings)
    found = search_problems(
        MANY, ShuffledEngine(order, seed), prompt=PROMPT, settings=asynchronous(settings, alive=alive)
    )
    assert said_of(found, settings) == expected


@hypothesis_settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(every_rule, st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 9))
def test_with_several_leaves_out_every_forest_is_sound(
    settings: SearchSettings, seed: int, order: int, alive: int
) -> None:
    settings = asynchronous(settings, alive=alive)
    forest = search_problems(PROBLEMS, ShuffledEngine(order, seed), prompt=PROMPT, settings=settings)
    assert_sound(forest, settings)
    assert {tree.status for tree in forest.trees} <= {"simulations", "budget", "exhausted", "decided", "advanced"}


@pytest.mark.parametrize("settings", [WIDE, JUDGED, STEPS])
def test_only_so_many_trees_are_alive_and_each_end_lets_the_next_in(settings: SearchSettings) -> None:
    engine = ShuffledEngine(1)
    forest = search_problems(MANY, engine, prompt=PROMPT, settings=asynchronous(settings, alive=3))
    roots = [tuple(tree.prompt_tokens) for tree in forest.trees]
    first: list[int] = []
    for request in engine.requests:
        # The longest prompt that the request begins with is its own: no sample continues with a whole other prompt.
        tree = max(
            (t for t, root in enumerate(roots) if request.prefix[: len(root)] == root), key=lambda t: len(roots[t])
        )
        if tree not in first:
            first.append(tree)
    assert first == list(range(len(MANY))), "problems are admitted in their order"
    if settings is not JUDGED:
        assert max(engine.busy) == 3


def test_parallel_leaves_put_several_leaves_out() -> None:
    settings = asynchronous(STEPS, alive=8, simulations=24, max_depth=8, max_tokens=60)
    alone, together = ShuffledEngine(2), ShuffledEngine(2)
    search_problems(PROBLEMS[:1], alone, prompt=PROMPT, settings=settings)
    search_problems(PROBLEMS[:1], together, prompt=PROMPT, settings=settings.model_copy(update={"parallel_leaves": 4}))
    assert max(alone.busy) == 1
    assert max(together.busy) > 2


def test_the_bytes_say_nothing_of_the_order() -> None:
    forests = [
        search_problems(MANY, ShuffledEngine(order), prompt=PROMPT, settings=asynchronous(JUDGED, alive=4))
        for order in range(4)
    ]
    assert all(forest == forests[0] for forest in forests)
    tree = forests[0].tree[len(MANY) :]
    assert (np.diff(tree) >= 0).all()


def test_refused_and_roomless_problems_fail_and_the_others_go_on() -> None:
    problems = [Problem("long", "a" * 60, "1"), PROBLEMS[0], Problem("bad", "a;b", "1"), PROBLEMS[2]]
    engine = ShuffledEngine(3, context=50, refused=PIECES.index(";"))
    forest = search_problems(problems, engine, prompt=PROMPT, settings=asynchronous(WIDE, alive=2, parallel_leaves=2))
    assert [tree.status == "failed" for tree in forest.trees] == [True, False, True, False]
    assert "leaves no room" in forest.trees[0].reason
    assert forest.trees[2].reason == f"refused: token {PIECES.index(';')}"
    assert (forest.virtual == 0).all()


def test_an_engine_that_loses_a_request_is_an_error() -> None:
    class Forgetful(AutomatonEngine):
        def submit(self, request: Request) -> None:
            if len(self.requests) < 3:
                super().submit(request)

    for settings in (WIDE, asynchronous(WIDE)):
        with pytest.raises(RuntimeError, match="the engine lost"):
            search_problems(PROBLEMS, Forgetful(6), prompt=PROMPT, settings=settings)


def test_the_clock_tells_the_engine_from_the_rest() -> None:
    for settings in (JUDGED, asynchronous(JUDGED)):
        clock = RunnerClock()
        search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=settings, clock=clock)
        assert clock.engine > 0.0
        assert clock.other > 0.0
        assert clock.polls > 0
        assert 0.0 < clock.bookkeeping_share < 1.0
        before = clock.polls
        search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=settings, clock=clock)
        assert clock.polls > before
    assert RunnerClock().bookkeeping_share == 0.0


def test_twice_as_many_trees_are_alive_as_the_engine_runs_sequences(toy_world: ToyWorld) -> None:
    engine = load_engine(str(toy_world.policy), settings=toy_world.config.engine.model_copy(update={"slots": 24}))
    assert alive_by_default(engine) == 48


# --- groups that come and go -----------------------------------------------------------------------------

ONE_BY_ONE = JUDGED.model_copy(update={"schedule": "asynchronous"})


def grow(engine: Engine, state: SearchState, log: Journal | None = None) -> None:
    """Grow the trees of a search to their end."""
    runner: Runner[None] = Runner(engine, state.settings.schedule, alive=state.settings.alive)
    admit(runner, 0, state, log)
    while runner.busy:
        runner.step()
    runner.close()


@hypothesis_settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    every_rule,
    st.integers(0, 1000),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from(["train", "solve"]),
)
def test_whatever_is_cancelled_the_rest_is_searched_as_if_it_had_been_alone(
    settings: SearchSettings, seed: int, alive: int, leaves: int, mode: str
) -> None:
    settings = asynchronous(settings, parallel_leaves=leaves)
    if mode == "solve":
        settings = settings.model_copy(update={"reference_child": False})
    chance = random.Random(seed)
    engine = ShuffledEngine(seed, 6)
    runner: Runner[None] = Runner(engine, alive=alive)

    def start(index: int) -> SearchState:
        return begin(MANY[index : index + 2], engine, PROMPT, settings, mode)

    waiting = list(range(0, len(MANY), 2)) * 2
    ended: list[int] = []
    cancelled: list[int] = []
    admitted: list[tuple[int, SearchState]] = []
    while waiting or runner.busy:
        if waiting and (not runner.busy or chance.random() < 0.3):
            admitted.append((waiting[0], start(waiting.pop(0))))
            admit(runner, len(admitted) - 1, admitted[-1][1])
        under_way = [key for key in range(len(admitted)) if key not in (*ended, *cancelled)]
        if under_way and chance.random() < 0.1:
            cancelled.append(chance.choice(under_way))
            runner.cancel(cancelled[-1])
            runner.cancel(cancelled[-1])  # a second time changes nothing
        ended += [int(str(one.key)) for one in runner.step()]
    runner.close()
    assert engine.occupancy().requests == 0
    assert len(ended) + len(cancelled) == len(admitted) == len(MANY)
    for key in cancelled:
        # What ends in the middle has had fewer visits than a whole search, but every value is what it should be.
        state = admitted[key][1]
        assert violations(state.forest, settings) == []
        begun = [tree for tree in state.trees if tree.started]
        assert not any(tree.running or tree.in_flight or tree.reserved_tokens for tree in begun)
    for key, (index, state) in enumerate(admitted):
        if key in ended and leaves == 1:
            alone = start(index)
            grow(engine, alone)
            assert state.forest.by_tree() == alone.forest.by_tree()


def test_what_is_cancelled_leaves_the_engine_at_once() -> None:
    engine = ShuffledEngine(1)
    runner: Runner[None] = Runner(engine, alive=100)
    first, second = (begin(MANY[:4], engine, PROMPT, ONE_BY_ONE, "train") for _ in range(2))
    admit(runner, 1, first)
    admit(runner, 2, second)
    while engine.occupancy().requests < 6:
        runner.step()
    both = engine.occupancy().requests
    runner.cancel(1)
    assert 0 < engine.occupancy().requests < both
    assert {tree.info.status for tree in first.trees} == {"cancelled"}
    runner.cancel(2)
    assert engine.occupancy().requests == 0
    assert not runner.busy
    assert runner.step() == []


def test_groups_beyond_what_may_be_alive_wait_and_can_be_cancelled_there() -> None:
    engine = ShuffledEngine(1)
    runner: Runner[None] = Runner(engine, alive=2)
    states = [begin(MANY[:2], engine, PROMPT, ONE_BY_ONE, "train") for _ in range(3)]
    assert runner.has_room
    for key, state in enumerate(states):
        admit(runner, key, state)
    assert not runner.has_room
    runner.step()
    assert {tree.info.simulations + tree.in_flight for state in states[1:] for tree in state.trees} == {0}
    runner.cancel(1)
    ended: list[object] = []
    while runner.busy:
        ended += [one.key for one in runner.step()]
    assert sorted(map(str, ended)) == ["0", "2"]
    assert {tree.started for tree in states[1].trees} == {0}


@pytest.mark.parametrize("judge", [SelfEvaluationSettings(weight=0.5, at="all"), LikelihoodSettings()])
def test_a_cancelled_group_goes_on_from_its_journal(tmp_path: Path, judge: RewardSettings) -> None:
    settings = asynchronous(WIDE, alive=9, rewards=(OutcomeSettings(), judge))
    engine = ShuffledEngine(5)

    def opened() -> Journal:
        return Journal(tmp_path / "journal", identity(settings, PROMPT, MANY, "train", ""))

    runner: Runner[None] = Runner(engine, alive=9)
    journal = opened()
    admit(runner, 0, begin(MANY, engine, PROMPT, settings, "train"), journal)
    for _ in range(20):
        runner.step()
    runner.cancel(0)
    journal.close()
    again, whole = (begin(MANY, engine, PROMPT, settings, "train") for _ in range(2))
    asked, journal = len(engine.requests), opened()
    grow(engine, again, journal)
    some = len(engine.requests) - asked
    journal.close()
    grow(engine, whole)
    assert again.forest.by_tree() == whole.forest.by_tree()
    assert some < len(engine.requests) - asked - some


def test_patience_is_no_loss_but_an_engine_that_loses_is_an_error() -> None:
    class Slow(AutomatonEngine):
        """Has nothing for the first few polls."""

        polls = 0

        def poll(self, patience: float | None = None) -> list:
            self.polls += 1
            return super().poll() if self.polls > 3 else []

    class Forgetful(AutomatonEngine):
        def submit(self, request: Request) -> None:
            pass

    runner: Runner[None] = Runner(Slow(6), alive=9)
    admit(runner, 0, begin(MANY[:1], Slow(6), PROMPT, ONE_BY_ONE, "train"))
    assert runner.step(patience=0.0) == []
    while runner.busy:
        runner.step(patience=0.0)
    forgetful: Runner[None] = Runner(Forgetful(6), alive=9)
    admit(forgetful, 0, begin(MANY[:1], Slow(6), PROMPT, ONE_BY_ONE, "train"))
    with pytest.raises(RuntimeError, match="the engine lost"):
        forgetful.step(patience=60.0)
