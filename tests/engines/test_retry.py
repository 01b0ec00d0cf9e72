"""Engines that crash, refuse and recover: whatever happens, every request is answered once."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

import pytest
import torch

from mcts_dpo.engines.base import Completion, Request
from mcts_dpo.engines.retry import EngineDiedError, RetryingEngine
from mcts_dpo.engines.settings import EngineSettings
from mcts_dpo.engines.transformers.engine import TransformersEngine
from mcts_dpo.models.loading import load_model, load_tokenizer
from mcts_dpo.models.prompts import prompt_tokens
from mcts_dpo.search import search_problems
from mcts_dpo.search.runner import Runner
from tests.conftest import ToyWorld
from tests.reference.engine import AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT
from tests.search.test_runner import JUDGED, MANY, ShuffledEngine
from tests.search.test_runner_errors import calling, results_of


class Dying(AutomatonEngine):
    """Crashes at those calls of `submit` or `poll` (`where`) whose numbers are in `deaths`, or answers with errors."""

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
def test_an_engine_that_crashes_and_recovers_changes_no_tree(schedule: str, where: str) -> None:
    """Requests in flight are sent again. A request does not fail because of one failed answer."""
    settings = JUDGED.model_copy(update={"schedule": schedule, "alive": 3, "simulations": 60})
    engine = Dying(where, {"poll": {30, 60}, "submit": {30, 200}, "answer": {30, 45}}[where])
    found = search_problems(MANY, engine, prompt=PROMPT, settings=settings)
    assert engine.died > 1
    assert found == search_problems(MANY, AutomatonEngine(6), prompt=PROMPT, settings=settings)


class Poisoned(ShuffledEngine):
    """Crashes whenever it runs a prefix of one problem, and forgets all requests in flight."""

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
def test_a_problem_that_crashes_the_engine_fails_and_the_others_continue(schedule: str, where: str) -> None:
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
    """Answers the first requests with errors, and crashes twice when they are sent again."""

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
    """A request is refused and sent again, and the engine crashes then. It is neither lost nor answered twice."""
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
    """The engine does not crash. Each problem fails with what is wrong with the model."""
    model = load_model(toy_world.policy, "float32")
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(torch.nan)
    engine = TransformersEngine(model, load_tokenizer(toy_world.policy), EngineSettings(slots=4, threads=1))
    found = search_problems(PROBLEMS, engine, prompt=PROMPT, settings=JUDGED.model_copy(update={"schedule": schedule}))
    assert {tree.status for tree in found.trees} == {"failed"}
    assert all(re.fullmatch(r"the model's logits after \d+ tokens are NaN or infinite", t.reason) for t in found.trees)


class Short(ShuffledEngine):
    """Raises an error, such as a lack of memory, whenever it runs the request with seed 1."""

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
def test_a_request_that_needs_too_much_memory_fails_alone(where: str) -> None:
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
def test_an_exception_that_only_mentions_memory_is_a_crash(where: str) -> None:
    runner: Runner[int] = Runner(Short(where, KeyError("memory of the poet")))
    for item in (1, 2):
        runner.admit(item, [calling(item)])
    found = results_of(runner)
    assert found[2] == 1
    assert "KeyError: 'memory of the poet'" in str(found[1])


def test_a_health_check_is_cancelled_with_the_requests_that_it_was_made_for() -> None:
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
