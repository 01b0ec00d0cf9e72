"""The thread that owns the engine and every search in it. All other threads only leave it messages.

In: jobs (the questions of one request), at any time, from any thread. Out: events, told from the engine's thread as
things happen. Searches of all jobs run together in one `OnlineSolver`, about `concurrency` at a time; `queue` more wait
(see `line`), and what comes beyond that is refused. Knows neither HTTP nor the OpenAI protocol.
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
from mcts_dpo.integrations.server.line import Line
from mcts_dpo.integrations.server.stops import before_stop
from mcts_dpo.solve.online import DIED, Asked, OnlineSolver
from mcts_dpo.solve.question import PromptTexts, tokenised
from mcts_dpo.solve.solution import Solution

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PATIENCE = 0.02
"""Seconds after which the engine is left for a moment, to see who has come or gone."""
NEXT, MOST = 0.003, 0.05
"""Seconds that the engine's next step waits for another job when one has just come and there is room for more, and the
most that it waits in all. A step with few sequences costs nearly what one with many costs, and jobs come in crowds."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The first search of a job is in the engine."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Further steps of an answer are decided. index: which of the job's questions. steps: all that are decided."""

    index: int
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """A question is answered. text: the reply's, before the first stop string; tokens: how many it has, by the
    policy's tokenizer."""

    index: int
    solution: Solution
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The job is given up as a whole. status: as HTTP counts: 400 the question's fault, 500 ours, 503 we stop."""

    status: int
    reason: str


Event = Begun | Decided | Answered | Refused


class Full(Exception):
    """No room in the queue. The argument: seconds after which there probably is."""


class Unavailable(Exception):
    """Nothing is taken up any more. The argument: why."""


@dataclass(slots=True, eq=False)
class Job:
    """One request: its questions, and who is told of what comes of them.

    told:   called from the engine's thread; must return at once and never raise.
    stream: whether `Decided` is wanted.
    client: who asks; places are shared between clients.
    """

    questions: Sequence[Asked]
    told: Callable[[Event], None]
    stream: bool = False
    client: str = ""
    begun: float | None = None
    steps: dict[int, int] = field(default_factory=dict)


Key = tuple[Job, int]


class Dispatcher:
    """See the module. `start` before use; `stop` ends its thread. unit: tokens of a usual budget, see `Line`."""

    def __init__(self, engine: Engine, solver: OnlineSolver, *, concurrency: int, queue_length: int, unit: int) -> None:
        self.engine = engine
        self.concurrency = concurrency
        self.queue = queue_length
        self._solver = solver
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._line: Line[Job] = Line(concurrency, unit)
        self._deciding: set[Key] = set()
        self._lock = threading.Lock()
        self._load = 0
        self._loads: Counter[str] = Counter()
        self._seconds = 1.0
        self._closed: str | None = None
        self._deadline: float | None = None
        self._over = False
        self._thread = threading.Thread(target=self._run, name="mcts-dpo-engine")
        self.broken: str | None = None
        self.on_broken: Callable[[], None] = lambda: None

    # --- called from other threads -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def prepare(self, asked: Asked, tokenizer: PreTrainedTokenizerBase) -> PromptTexts:
        """As `tokenised`, from any thread with a tokenizer of its own."""
        return tokenised(asked.problem, asked.prompt, tokenizer, self.engine.context)

    def submit(self, job: Job) -> None:
        """Take a job. Raises Full, or Unavailable once the server stops or the engine has failed."""
        count = len(job.questions)
        with self._lock:
            if self._closed is not None:
                raise Unavailable(self._closed)
            if not self._has_room(job.client, count):
                excess = self._load + count - self.concurrency
                raise Full(min(60.0, max(1.0, self._seconds * excess / self.concurrency)))
            self._load += count
            self._loads[job.client] += count
        budgets = [question.budget for question in job.questions]
        self._inbox.put(lambda: self._line.add(job, job.client, budgets))

    def _has_room(self, client: str, count: int) -> bool:
        """Whether so many more searches may wait. A job larger than all places is taken when there is nothing else.

        An eighth of the places is kept for small jobs, and as many again for clients that have nothing here yet, so
        that a few large jobs do not shut out everybody else.
        """
        room = self.concurrency + self.queue
        kept = room // 8
        small = count <= max(1, kept // 8)
        if small and not self._loads[client]:
            room += kept if self._loads else 0
        elif not small:
            room -= kept
        return not self._load or self._load + count <= room

    def cancel(self, job: Job) -> None:
        """Give a job up; nothing more is told of it. One that has ended is left alone."""
        self._inbox.put(lambda: self._drop(job))

    def drain(self, grace: float) -> None:
        """Refuse what waits and what comes, let what is under way end within `grace` seconds, refuse the rest.

        Safe in a signal handler: takes no lock.
        """
        self._closed = self._closed or "the server is stopping"

        def close() -> None:
            self._deadline = time.monotonic() + grace
            for job in self._line.jobs:
                if job.begun is None:
                    self._refuse(job, 503, "the server is stopping")

        self._inbox.put(close)

    def stop(self) -> None:
        """End the thread; what is still under way is refused. Stopping twice is no error."""
        self._closed = self._closed or "the server is stopping"

        def over() -> None:
            self._over = True

        self._inbox.put(over)
        if self._thread.ident is not None:
            self._thread.join()
        self._end(503, "the server is stopping")  # what came in while the thread ended

    def occupancy(self, timeout: float = 10.0) -> Occupancy | None:
        """What requests under way hold in the engine; None once it is gone, or does not say in time."""
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
        """Searches in the engine."""
        return self._line.active

    @property
    def waiting(self) -> int:
        """Searches that wait for their turn."""
        return max(0, self._load - self._line.active)

    @property
    def closed(self) -> str | None:
        """Why nothing is taken up any more, or None."""
        return self._closed

    # --- the engine's thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._over:
                self._hear()
                self._admit()
                if self._solver.busy:
                    for key, solution in self._solver.step(PATIENCE):
                        self._answer(key, solution)  # type: ignore[arg-type]
                    self._tell_decided()
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    self._refuse_all(503, "the server is stopping and could not finish in time")
            self._refuse_all(503, "the server is stopping")
        except BaseException as error:  # whatever it was, the engine cannot be trusted with another step
            self.broken = f"{type(error).__name__}: {error}"
            self._closed = f"the engine has failed ({self.broken})"
            self._end(500, self._closed)
            self.on_broken()

    def _end(self, status: int, reason: str) -> None:
        """Refuse whatever is left without touching the engine: nothing is searched any more."""
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                break
            with suppress(Exception):
                message()
        for job in self._line.jobs:
            self._line.drop(job)
            _tell(job, Refused(status, reason))
        self._deciding.clear()

    def _hear(self) -> None:
        """Do what others have asked for; wait for it if there is nothing else to do, and a moment for what comes with
        it."""
        waiting = self._line.waiting
        if not self._solver.busy and not waiting and not self._over:
            self._inbox.get()()
        until = time.monotonic() + MOST
        while True:
            room = self.concurrency - self._line.active
            more = waiting < self._line.waiting < room and time.monotonic() < until
            waiting = self._line.waiting
            try:
                message = self._inbox.get(timeout=NEXT) if more else self._inbox.get_nowait()
            except queue.Empty:
                return
            message()

    def _admit(self) -> None:
        while (key := self._line.take()) is not None:
            job, index = key
            try:
                self._solver.admit((job, index), job.questions[index], (job.client, job))
            except Exception as error:  # whatever it is, it is this request's own
                known = isinstance(error, InputError)
                self._refuse(
                    job, 400, str(error) if known else f"the request cannot be put to the model: {_one_line(error)}"
                )
                continue
            # No other search decides anything before its end.
            if job.stream and job.questions[index].search.advance == "step":
                self._deciding.add((job, index))
            if job.begun is None:
                job.begun = time.monotonic()
                _tell(job, Begun())

    def _answer(self, key: Key, solution: Solution) -> None:
        job, index = key
        if not self._line.under_way(job, index):
            return  # another question of its job has ended in the same step, and the job with it
        if solution.error is not None and solution.error.startswith(DIED):
            # Whoever keeps the server running starts it anew, with a sound engine.
            raise RuntimeError(solution.error)
        self._line.end(job, index)
        self._deciding.discard(key)
        self._release(job, 1)
        if solution.error is not None:
            self._refuse(job, 500, solution.error)
            return
        if job.begun is not None:
            self._seconds += 0.1 * (time.monotonic() - job.begun - self._seconds)
        try:
            text = before_stop(solution.text, job.questions[index].prompt.stop)
            tokens = self.engine.tokenizer(text, add_special_tokens=False)["input_ids"]
        except Exception as error:
            self._refuse(job, 500, f"the answer cannot be read: {_one_line(error)}")
            return
        _tell(job, Answered(index, solution, text, len(tokens)))

    def _tell_decided(self) -> None:
        for job, index in list(self._deciding):
            try:
                steps = self._solver.decided((job, index))
            except Exception as error:  # as in `_answer`: it is this request's own
                self._refuse(job, 500, f"the answer cannot be read: {_one_line(error)}")
                continue
            if len(steps) > job.steps.get(index, 0):
                job.steps[index] = len(steps)
                _tell(job, Decided(index, tuple(steps)))

    def _refuse(self, job: Job, status: int, reason: str) -> None:
        self._drop(job)
        _tell(job, Refused(status, reason))

    def _refuse_all(self, status: int, reason: str) -> None:
        for job in self._line.jobs:
            self._refuse(job, status, reason)

    def _drop(self, job: Job) -> None:
        """Take all searches of a job out."""
        waiting, active = self._line.drop(job)
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


def _tell(job: Job, event: Event) -> None:
    """Tell of an event; whoever cannot be told (its loop has ended) is nobody's concern."""
    with suppress(Exception):
        job.told(event)


def _one_line(error: Exception) -> str:
    said = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}{': ' if said else ''}{said[:200]}"
