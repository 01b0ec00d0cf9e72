"""The one thread that runs an engine and all searches on it, for the server and for harnesses with many threads.

In: jobs (the questions of one request), at any time, from any thread. Out: events, sent from the engine's thread as
things happen. The searches of all jobs run together in one `OnlineSolver`, about `concurrency` at a time. Up to
`queue_length` more wait in a `FairQueue`; further ones are refused.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.base import Engine, Occupancy
from mcts_dpo.integrations.fair_queue import FairQueue
from mcts_dpo.integrations.stop_strings import before_stop
from mcts_dpo.models.prompts import thoughts_of
from mcts_dpo.solve.online import DIED, Asked, OnlineSolver
from mcts_dpo.solve.question import PromptTexts, tokenised
from mcts_dpo.solve.solution import Solution

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PATIENCE = 0.02
"""Seconds after which a wait for the engine is interrupted to read new messages."""
JOB_GAP, JOB_WAIT = 0.003, 0.05
"""When a job has just arrived and there is room for more, the engine's next step waits JOB_GAP seconds for another job,
and at most JOB_WAIT seconds in all. A step with few sequences costs nearly as much as one with many, and jobs arrive in
bursts."""
UNLIMITED = 1 << 30
STOPPING = "the server is stopping"


@dataclass(frozen=True, slots=True)
class Started:
    """The first search of a job has started."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Further steps of a solution are decided. index: which of the job's questions. steps: all decided steps."""

    index: int
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Solved:
    """A question is solved.

    index: which of the job's questions. text: the solution's, before the first stop string. tokens: of `text`, by the
    policy's tokenizer.
    """

    index: int
    solution: Solution
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The whole job has ended without solutions.

    status: as in HTTP: 400 the question is wrong, 500 the engine or the search failed, 503 the thread stops.
    """

    status: int
    reason: str


Event = Started | Decided | Solved | Refused


class QueueFull(Exception):
    """The queue has no room. The argument: seconds after which it probably has."""


class Unavailable(Exception):
    """No more jobs are accepted. The argument: why."""


@dataclass(slots=True, eq=False)
class Job:
    """One request.

    on_event: called from the engine's thread; it must return at once and not raise.
    stream:   whether `Decided` events are wanted.
    client:   who sent it; places are shared between clients.
    started:  `time.monotonic()` of its first search. steps: by question, how many were sent as `Decided`.
    """

    questions: Sequence[Asked]
    on_event: Callable[[Event], None]
    stream: bool = False
    client: str = ""
    started: float | None = None
    steps: dict[int, int] = field(default_factory=dict)


Key = tuple[Job, int]


class EngineThread:
    """See the module. Call `start` before use; `stop` ends the thread.

    Args:
        engine: used by this thread alone from `start` on.
        solver: over that engine; None makes one without limits.
        concurrency: searches that run at a time.
        queue_length: searches that may wait.
        unit: tokens of a default budget; see `FairQueue`.
    """

    def __init__(
        self,
        engine: Engine,
        solver: OnlineSolver[Key] | None = None,
        *,
        concurrency: int = UNLIMITED,
        queue_length: int = 0,
        unit: int = 1,
    ) -> None:
        self.engine = engine
        self.concurrency = concurrency
        self.queue_length = queue_length
        self.broken: str | None = None
        self.on_broken: Callable[[], None] = lambda: None
        self.most_active = 0
        self._solver: OnlineSolver[Key] = solver or OnlineSolver(engine)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._queue: FairQueue[Job] = FairQueue(concurrency, unit)
        self._deciding: set[Key] = set()
        self._lock = threading.Lock()
        self._load = 0
        self._loads: Counter[str] = Counter()
        self._seconds = 1.0
        self._closed: str | None = None
        self._deadline: float | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="mcts-dpo-engine", daemon=True)

    # --- called from other threads -----------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def prepare(self, asked: Asked, tokenizer: PreTrainedTokenizerBase) -> PromptTexts:
        """As `tokenised`; may be called from any thread that has its own tokenizer."""
        return tokenised(asked.problem, asked.prompt, tokenizer, self.engine.context, asked.search.environment)

    def solve(self, question: Asked) -> tuple[Job, Future[Solution]]:
        """Submit one question. Returns its job, which `cancel` takes, and its solution to come.

        The future raises InputError for a question that is wrong, and RuntimeError if the engine fails. Raises as
        `submit`.
        """
        found: Future[Solution] = Future()

        def on_event(event: Event) -> None:
            if isinstance(event, Solved):
                found.set_result(event.solution)
            elif isinstance(event, Refused):
                found.set_exception((InputError if event.status == 400 else RuntimeError)(event.reason))

        job = Job([question], on_event)
        self.submit(job)
        return job, found

    def submit(self, job: Job) -> None:
        """Accept a job. Raises QueueFull; raises Unavailable when the thread stops or the engine has failed."""
        count = len(job.questions)
        with self._lock:
            if self._closed is not None:
                raise Unavailable(self._closed)
            if not self._has_room(job.client, count):
                excess = self._load + count - self.concurrency
                raise QueueFull(min(60.0, max(1.0, self._seconds * excess / self.concurrency)))
            self._load += count
            self._loads[job.client] += count
        budgets = [question.budget for question in job.questions]
        self._inbox.put(lambda: self._queue.add(job, job.client, budgets))

    def _has_room(self, client: str, count: int) -> bool:
        """Whether `count` more searches may wait. A job larger than all places is accepted when there is no other.

        An eighth of the places is reserved for small jobs, and as many again for clients that have no job here, so that
        a few large jobs do not shut out everybody else.
        """
        room = self.concurrency + self.queue_length
        reserved = room // 8
        small = count <= max(1, reserved // 8)
        if small and not self._loads[client]:
            room += reserved if self._loads else 0
        elif not small:
            room -= reserved
        return not self._load or self._load + count <= room

    def cancel(self, job: Job) -> None:
        """Drop a job; it sends no more events. A job that has ended is left alone."""
        self._inbox.put(lambda: self._drop(job))

    def drain(self, grace: float) -> None:
        """Refuse waiting and new jobs, let running ones end within `grace` seconds, and refuse the rest.

        Safe in a signal handler: takes no lock.
        """
        self._closed = self._closed or STOPPING

        def close() -> None:
            self._deadline = time.monotonic() + grace
            for job in self._queue.jobs:
                if job.started is None:
                    self._refuse(job, 503, STOPPING)

        self._inbox.put(close)

    def stop(self) -> None:
        """End the thread; jobs that are left are refused. May be called twice."""
        self._closed = self._closed or STOPPING

        def stop() -> None:
            self._stopping = True

        self._inbox.put(stop)
        if self._thread.ident is not None:
            self._thread.join()
        self._refuse_left(503, STOPPING)  # what arrived while the thread ended

    def occupancy(self, timeout: float = 10.0) -> Occupancy | None:
        """What requests in flight hold in the engine; None if the thread has ended or does not answer in time."""
        found: Future[Occupancy] = Future()

        def look() -> None:
            try:
                found.set_result(self.engine.occupancy())
            except Exception as error:
                found.set_exception(error)

        self._inbox.put(look)
        try:
            return found.result(timeout if self._thread.is_alive() else 0.0)
        except Exception:
            return None

    @property
    def active(self) -> int:
        """Searches that run. `most_active` is the largest number so far."""
        return self._queue.active

    @property
    def waiting(self) -> int:
        """Searches that wait."""
        return max(0, self._load - self._queue.active)

    @property
    def closed(self) -> str | None:
        """Why no more jobs are accepted, or None."""
        return self._closed

    # --- the engine's thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._receive()
                self._admit()
                if self._solver.busy:
                    for key, solution in self._solver.step(PATIENCE):
                        self._finish(key, solution)
                    self._send_decided()
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    self._refuse_all(503, f"{STOPPING} and could not finish in time")
            self._refuse_all(503, STOPPING)
        except BaseException as error:  # whatever it is, the engine's state is unknown now
            self.broken = f"{type(error).__name__}: {error}"
            self._closed = f"the engine has failed ({self.broken})"
            self._refuse_left(500, self._closed)
            self.on_broken()

    def _refuse_left(self, status: int, reason: str) -> None:
        """Refuse all jobs that are left, without the engine: nothing is searched any more."""
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                break
            with suppress(Exception):
                message()
        for job in self._queue.jobs:
            self._queue.drop(job)
            _send(job, Refused(status, reason))
        self._deciding.clear()

    def _receive(self) -> None:
        """Run the messages of other threads. Wait for one if there is nothing else to do, and for more jobs if one has
        just arrived."""
        waiting = self._queue.waiting
        if not self._solver.busy and not waiting and not self._stopping:
            self._inbox.get()()
        until = time.monotonic() + JOB_WAIT
        while True:
            room = self.concurrency - self._queue.active
            more = waiting < self._queue.waiting < room and time.monotonic() < until
            waiting = self._queue.waiting
            try:
                message = self._inbox.get(timeout=JOB_GAP) if more else self._inbox.get_nowait()
            except queue.Empty:
                return
            message()

    def _admit(self) -> None:
        while (key := self._queue.take()) is not None:
            job, index = key
            try:
                self._solver.admit((job, index), job.questions[index], (job.client, job))
            except Exception as error:  # only this job is affected
                known = isinstance(error, InputError)
                reason = str(error) if known else f"the request cannot be put to the model: {_one_line(error)}"
                self._refuse(job, 400, reason)
                continue
            # Other searches decide nothing before their end.
            if job.stream and job.questions[index].search.advance == "step":
                self._deciding.add((job, index))
            if job.started is None:
                job.started = time.monotonic()
                _send(job, Started())
        self.most_active = max(self.most_active, self._queue.active)

    def _finish(self, key: Key, solution: Solution) -> None:
        job, index = key
        if not self._queue.running(job, index):
            return  # another question of its job has ended the job in the same step
        if solution.error is not None and solution.error.startswith(DIED):
            # The caller starts again, with a new engine.
            raise RuntimeError(solution.error)
        self._queue.end(job, index)
        self._deciding.discard(key)
        self._release(job, 1)
        if solution.error is not None:
            self._refuse(job, 500, solution.error)
            return
        if job.started is not None:
            self._seconds += 0.1 * (time.monotonic() - job.started - self._seconds)
        try:
            prompt = job.questions[index].prompt
            start = thoughts_of(self.engine.tokenizer, prompt).answer_start(solution.text)
            text = before_stop(solution.text, prompt.stop, start)
            tokens = self.engine.tokenizer(text, add_special_tokens=False)["input_ids"]
        except Exception as error:
            self._refuse(job, 500, f"the answer cannot be read: {_one_line(error)}")
            return
        _send(job, Solved(index, solution, text, len(tokens)))

    def _send_decided(self) -> None:
        for job, index in list(self._deciding):
            try:
                steps = self._solver.decided((job, index))
            except Exception as error:  # only this job is affected
                self._refuse(job, 500, f"the answer cannot be read: {_one_line(error)}")
                continue
            if len(steps) > job.steps.get(index, 0):
                job.steps[index] = len(steps)
                _send(job, Decided(index, tuple(steps)))

    def _refuse(self, job: Job, status: int, reason: str) -> None:
        self._drop(job)
        _send(job, Refused(status, reason))

    def _refuse_all(self, status: int, reason: str) -> None:
        for job in self._queue.jobs:
            self._refuse(job, status, reason)

    def _drop(self, job: Job) -> None:
        """Remove all searches of a job."""
        waiting, active = self._queue.drop(job)
        for index in active:
            self._solver.cancel((job, index))
            self._deciding.discard((job, index))
        self._release(job, waiting + len(active))

    def _release(self, job: Job, count: int) -> None:
        with self._lock:
            self._load -= count
            self._loads[job.client] -= count
            if self._loads[job.client] <= 0:
                del self._loads[job.client]


def solve_alone(asked: Asked, engine: Engine) -> Solution:
    """Solve one question in this thread, on an engine that has nothing else to do. Raises InputError as
    `OnlineSolver.admit`."""
    solver = OnlineSolver[int](engine)
    solver.admit(0, asked)
    while solver.busy:
        for _, solution in solver.step():
            return solution
    raise AssertionError("an admitted question has a solution")


def _send(job: Job, event: Event) -> None:
    """Send an event. A receiver that fails (its event loop has ended) is ignored."""
    with suppress(Exception):
        job.on_event(event)


def _one_line(error: Exception) -> str:
    said = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}{': ' if said else ''}{said[:200]}"
