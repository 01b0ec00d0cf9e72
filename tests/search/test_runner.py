"""One runner, two schedules: the same trees, whatever the engine finishes first, dies of or is cancelled."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.data import Problem
from mcts_dpo.engines import load_engine
from mcts_dpo.engines.base import Completion, Engine, Occupancy, Request
from mcts_dpo.engines.coroutine import Call, Coroutine, RequestError, Returned, Work, call, completions, side_by_side
from mcts_dpo.engines.retry import EngineDiedError, RetryingEngine
from mcts_dpo.engines.settings import EngineSettings
from mcts_dpo.engines.transformers.engine import TransformersEngine
from mcts_dpo.models.loading import load_model, load_tokenizer
from mcts_dpo.models.prompts import prompt_tokens
from mcts_dpo.rewards import OutcomeSettings, RewardSettings, SelfEvaluationSettings
from mcts_dpo.rewards.likelihood import LikelihoodSettings
from mcts_dpo.search import Forest, RunnerClock, SearchSettings, search_problems
from mcts_dpo.search.journal import Journal, identity
from mcts_dpo.search.mcts import admit
from mcts_dpo.search.runner import CALL_THREADS, Runner, Schedule, alive_by_default
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


def asynchronous(settings: SearchSettings, **changes: object) -> SearchSettings:
    return settings.model_copy(update={"schedule": "asynchronous", **changes})


def said_of(forest: Forest, settings: SearchSettings) -> Forest:
    """The forest as if it had been searched with these settings: nothing but what it notes of them may differ."""
    forest.settings = {**forest.settings, "search": settings.model_dump(mode="json")}
    return forest


@hypothesis_settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
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


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
@pytest.mark.parametrize("where", ["poll", "submit", "answer"])
def test_an_engine_that_dies_and_lives_again_changes_no_tree(schedule: str, where: str) -> None:
    """What was under way is sent again; a failure that lasts for one answer is none of the request's."""
    settings = JUDGED.model_copy(update={"schedule": schedule, "alive": 3, "simulations": 60})
    engine = Dying(where, {"poll": {30, 60}, "submit": {30, 200}, "answer": {30, 45}}[where])
    found = search_problems(MANY, engine, prompt=PROMPT, settings=settings)
    assert engine.died > 1
    assert found == search_problems(MANY, AutomatonEngine(6), prompt=PROMPT, settings=settings)


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


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
@pytest.mark.parametrize("where", ["poll", "submit"])
def test_a_problem_that_the_engine_dies_of_fails_and_the_rest_goes_on(schedule: str, where: str) -> None:
    settings = JUDGED.model_copy(update={"schedule": schedule, "alive": 4})
    poison = prompt_tokens(MANY[3], AutomatonEngine(6).tokenizer, PROMPT)
    engine = Poisoned(where, tuple(poison))
    found = search_problems(MANY, engine, prompt=PROMPT, settings=settings)
    clean = search_problems(MANY, AutomatonEngine(6), prompt=PROMPT, settings=settings)
    assert found.trees[3].status == "failed"
    assert found.trees[3].reason == "the engine crashed on this request, twice or more (OSError: the device is gone)"
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
    retrying = RetryingEngine(Refusing())
    for number in range(4):
        retrying.submit(Request(id=number, prefix=(3, 4), max_tokens=4, seed=number))
    answers: list[Completion] = []
    while len(answers) < 4:
        answers += retrying.poll()
    assert sorted(answer.id for answer in answers) == [0, 1, 2, 3]
    assert all(answer.error is None for answer in answers)
    assert not any([retrying.in_flight, retrying.quarantined, retrying.held, retrying.fatal])


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
@pytest.mark.parametrize("where", ["poll", "submit", "answer"])
def test_an_engine_that_is_dead_ends_the_search(schedule: str, where: str) -> None:
    settings = JUDGED.model_copy(update={"schedule": schedule, "alive": 3, "simulations": 60})
    reason = "cannot be reached, tried 6 times" if where == "answer" else "OSError: the device is gone"
    with pytest.raises(EngineDiedError) as died:
        search_problems(MANY, Dying(where, range(30, 10**9)), prompt=PROMPT, settings=settings)
    assert str(died.value) == f"the engine serves no requests any more ({reason})"


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_a_model_of_nan_fails_its_problems_and_not_the_search(schedule: str, toy_world: ToyWorld) -> None:
    """The engine lives: it says of every problem what is wrong with the model."""
    model = load_model(toy_world.policy, "float32")
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(torch.nan)
    engine = TransformersEngine(model, load_tokenizer(toy_world.policy), EngineSettings(slots=4, threads=1))
    found = search_problems(PROBLEMS, engine, prompt=PROMPT, settings=JUDGED.model_copy(update={"schedule": schedule}))
    assert {tree.status for tree in found.trees} == {"failed"}
    assert all(re.fullmatch(r"the model's logits after \d+ tokens are NaN or infinite", t.reason) for t in found.trees)


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


@hypothesis_settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
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


# --- coroutines that raise -------------------------------------------------------------------------------


def halves(items: Sequence[int]) -> list[int]:
    """Half of each; raises for all of them when one is odd."""
    for item in items:
        if item % 2:
            raise ValueError(f"{item} is odd")
    return [item // 2 for item in items]


def calling(item: int) -> Coroutine[int]:
    """One completion, then a call."""
    yield from completions([Request(id=-1, prefix=(3, 4), max_tokens=4, seed=item)])
    found: list[int] = yield from call(halves, [item])
    return found[0]


def results_of(runner: Runner[int]) -> dict[object, object]:
    found: dict[object, object] = {}
    while runner.busy:
        found.update({one.key: one.results[0] for one in runner.step(60.0)})
    return found


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_a_call_that_raises_ends_the_coroutine_that_made_it_and_no_other(schedule: Schedule) -> None:
    """What is pending of one function is called together, so that all share the exception of one."""
    engine = AutomatonEngine(6)
    runner: Runner[int] = Runner(engine, schedule, contain=True)
    for item in range(8):
        runner.admit(item, [calling(item)])
    found = results_of(runner)
    runner.close()
    assert [found[item] for item in range(0, 8, 2)] == [0, 1, 2, 3]
    for item in range(1, 8, 2):
        assert isinstance(found[item], RequestError)
        assert str(found[item]) == f"the search failed (ValueError: {item} is odd)"


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_where_nothing_is_contained_a_call_that_raises_ends_the_run(schedule: Schedule) -> None:
    runner: Runner[int] = Runner(AutomatonEngine(6), schedule)
    runner.admit(0, [calling(1)])
    with pytest.raises(ValueError, match="1 is odd"):
        results_of(runner)
    runner.close()


def test_a_call_that_raises_after_its_coroutine_was_cancelled_is_nobodys() -> None:
    go = threading.Event()

    def late(items: Sequence[int]) -> list[int]:
        assert go.wait(600.0)
        raise ValueError("too late")

    def waits() -> Coroutine[int]:
        found: list[int] = yield from call(late, [1])
        return found[0]

    runner: Runner[int] = Runner(AutomatonEngine(6), contain=True)
    runner.admit("gone", [waits()])
    runner.step(0.0)
    runner.cancel("gone")
    go.set()
    runner.admit("stays", [calling(4)])
    assert results_of(runner) == {"stays": 2}
    runner.close()


def test_a_slow_function_takes_no_threads_of_the_others_and_gathers_what_comes_meanwhile() -> None:
    go, sizes = threading.Event(), []

    def slow(items: Sequence[int]) -> Sequence[int]:
        sizes.append(len(items))
        assert go.wait(600.0)
        return items

    def asks(item: int) -> Coroutine[int]:
        found: list[int] = yield from call(slow, [item])
        return found[0]

    runner: Runner[int] = Runner(AutomatonEngine(6), alive=100)
    for item in range(10):
        runner.admit(item, [asks(item)])
        runner.step(0.0)
    runner.admit("quick", [calling(4)])
    ended: list[object] = []
    while not ended:
        ended += [one.key for one in runner.step(60.0)]
    assert ended == ["quick"]
    go.set()
    assert results_of(runner) == {item: item for item in range(10)}
    assert sizes == [1] * CALL_THREADS + [10 - CALL_THREADS]
    runner.close()


def gives_up(first: Sequence[Work]) -> Coroutine[int]:
    """Raises as soon as one of several results is back."""
    returned: list[Returned] = yield first
    raise KeyError(f"{len(returned)} of {len(first)}")


def test_a_coroutine_that_raises_with_work_out_leaves_nothing_and_harms_none() -> None:
    """Whether its other results come in the same poll, in a later one or from a thread."""
    for order in range(20):
        engine = ShuffledEngine(order)
        runner: Runner[int] = Runner(engine, contain=True)
        requests = [Request(id=-1, prefix=(3, 4), max_tokens=4, seed=seed) for seed in range(6)]
        runner.admit("raises", [gives_up([*requests, Call(halves, [2])])])
        runner.admit("lives", [calling(4)])
        found = results_of(runner)
        assert found["lives"] == 2
        assert str(found["raises"]) == "the search failed (KeyError: '1 of 7')"
        assert engine.occupancy().requests == 0
        runner.close()


def test_a_coroutine_that_raises_as_it_is_cancelled_harms_none() -> None:
    def stubborn() -> Coroutine[int]:
        try:
            yield from completions([Request(id=-1, prefix=(3, 4), max_tokens=4)])
        finally:
            raise ValueError("will not close")

    runner: Runner[int] = Runner(AutomatonEngine(6), contain=True)
    runner.admit("stubborn", [stubborn()])
    runner.admit("lives", [calling(4)])
    runner.cancel("stubborn")  # not begun: nothing to close
    runner.admit("stubborn", [stubborn()])
    runner._start()
    runner.cancel("stubborn")
    assert results_of(runner) == {"lives": 2}
    runner.close()


class Short(ShuffledEngine):
    """Wants more memory than there is, or says something of memory, whenever it is to run the poisoned request."""

    def __init__(self, where: str, error: Exception) -> None:
        super().__init__(3)
        self.where, self.error = where, error

    def submit(self, request: Request) -> None:
        if self.where == "submit" and request.seed == 1:
            raise self.error
        super().submit(request)

    def poll(self, patience: float | None = None) -> list[Completion]:
        if any(request.seed == 1 for request in self._waiting):
            self._waiting.clear()
            self._under_way.clear()
            raise self.error
        return super().poll(patience)


@pytest.mark.parametrize("where", ["submit", "poll"])
def test_a_request_that_the_memory_does_not_suffice_for_fails_alone(where: str) -> None:
    runner: Runner[int] = Runner(Short(where, MemoryError("no room")), contain=True)
    for item in (1, 2, 4):
        runner.admit(item, [calling(item)])
    found = results_of(runner)
    assert (found[2], found[4]) == (1, 2)
    assert str(found[1]) == "the engine crashed on this request, twice or more (MemoryError: no room)"
    alone: Runner[int] = Runner(Short(where, MemoryError("no room")))
    alone.admit(0, [calling(1)])
    with pytest.raises(MemoryError):  # a search says so at once
        results_of(alone)


@pytest.mark.parametrize("where", ["submit", "poll"])
def test_an_exception_that_only_speaks_of_memory_is_a_crash(where: str) -> None:
    runner: Runner[int] = Runner(Short(where, KeyError("memory of the poet")))
    for item in (1, 2):
        runner.admit(item, [calling(item)])
    found = results_of(runner)
    assert found[2] == 1
    assert "KeyError: 'memory of the poet'" in str(found[1])


def test_a_health_check_goes_with_the_requests_that_it_was_made_for() -> None:
    class Erring(AutomatonEngine):
        def poll(self, patience: float | None = None) -> list[Completion]:
            return [Completion(one.id, error="busy") for one in super().poll(patience)]

    engine = Erring(6)
    retrying = RetryingEngine(engine)
    retrying.submit(Request(id=0, prefix=(3, 4), max_tokens=4))
    retrying._sorted(engine.poll())
    assert engine.occupancy().requests == 1, "the health check"
    retrying.cancel([0])
    assert engine.occupancy().requests == 0
    assert not any([retrying.in_flight, retrying.held, retrying.retried])


class Storm(ShuffledEngine):
    """Crashes at random, answers with errors at random, and always crashes of the requests with seed 13."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._chance = random.Random(seed)

    def submit(self, request: Request) -> None:
        if request.seed == 13 and self._chance.random() < 0.5:
            raise KeyError("at the door")
        super().submit(request)

    def poll(self, patience: float | None = None) -> list[Completion]:
        if any(request.seed == 13 for request in self._waiting):
            self._waiting.clear()
            self._under_way.clear()
            raise MemoryError("of one request")
        done = super().poll(patience)
        return [
            Completion(one.id, error="not now") if one.id >= 0 and self._chance.random() < 0.1 else one for one in done
        ]


def stormy(chance: random.Random, depth: int) -> Coroutine[int]:
    """Asks for requests and calls, some side by side, some of which raise; may raise itself, also when it is closed."""
    try:
        for _ in range(chance.randint(0, 3)):
            seeds = [chance.choice([1, 2, 3, 13 if chance.random() < 0.2 else 4]) for _ in range(chance.randint(1, 3))]
            work: list[Work] = [Request(id=-1, prefix=(3, 4), max_tokens=3, seed=seed) for seed in seeds]
            work += [Call(halves, [chance.choice([2, 4, 3])]) for _ in range(chance.randint(0, 2))]
            out = len(work)
            returned = yield work
            while (out := out - len(returned)) > 0:
                if chance.random() < 0.1:
                    raise ZeroDivisionError("in the middle")
                returned = yield []
            if depth and chance.random() < 0.3:
                yield from side_by_side([stormy(chance, depth - 1) for _ in range(3)])
    finally:
        if depth and chance.random() < 0.05:
            raise LookupError("at the end")
    return 1


@hypothesis_settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.sampled_from(["synchronous", "asynchronous"]), st.integers(1, 6), st.booleans())
@example(208550, "synchronous", 2, False)
@example(608867, "synchronous", 4, False)
@example(34763, "asynchronous", 1, True)
def test_whatever_raises_every_group_ends_once_and_nothing_is_left(
    seed: int, schedule: Schedule, alive: int, shared: bool
) -> None:
    chance, engine = random.Random(seed), Storm(seed)
    runner: Runner[int] = Runner(engine, schedule, alive=alive, contain=True, room=3 if shared else None)
    ended: list[int] = []
    gone: list[int] = []
    admitted = 0
    while admitted < 12 or runner.busy:
        if admitted < 12 and (not runner.busy or chance.random() < 0.4):
            count = chance.randint(1, 3)
            runner.admit(
                admitted, [stormy(random.Random(seed + admitted), 1) for _ in range(count)], share=admitted % 3
            )
            admitted += 1
        if chance.random() < 0.1:
            key = chance.randrange(admitted)
            if key not in (*ended, *gone):
                runner.cancel(key)
                gone.append(key)
        for one in runner.step(60.0):
            assert isinstance(one.key, int)
            assert all(result == 1 or isinstance(result, RequestError) for result in one.results)
            ended.append(one.key)
    runner.close()
    assert sorted([*ended, *gone]) == list(range(12))
    assert engine.occupancy().requests == 0
    assert (runner._crowd, runner._requests, runner._unsent) == (0, {}, [])
    assert runner._shares is None or (runner._shares._inside, runner._shares._waiting, runner._shares._taken) == (
        {},
        {},
        0,
    )
    assert not any([runner._engine.in_flight, runner._engine.held, runner._engine.quarantined, runner._engine.retried])
