"""Asks an environment for replies, beside everything else that a search does.

In: an environment, a problem, a path. Out: a reply, or the reason why there is none. Replies are computed in threads,
a bounded number at a time. A reply that takes too long is given up: its thread no longer counts, and the
others continue.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from mcts_dpo.data import Problem
from mcts_dpo.engines.coroutine import Coroutine, call
from mcts_dpo.environments.base import Environment, EnvironmentSettings, Reply, Turn
from mcts_dpo.environments.registry import environment_kind


class ReplyError(RuntimeError):
    """An environment gave no reply because it raised or took too long. The message is the reason, one line."""


@dataclass(slots=True, eq=False)
class _Pool:
    """Threads for the replies of one environment: at most `workers` that are waited for."""

    environment: Environment
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: deque[tuple[Future[list[Any]], Problem, Sequence[Turn]]] = field(default_factory=deque)
    running: int = 0

    def start(self, problem: Problem, path: Sequence[Turn]) -> Future[list[Any]]:
        """Compute a reply in a thread. Returns a future of a list with the reply as JSON."""
        ended: Future[list[Any]] = Future()
        with self.lock:
            self.waiting.append((ended, problem, path))
        self._next()
        return ended

    def _next(self) -> None:
        with self.lock:
            if not self.waiting or self.running >= self.environment.settings.workers:
                return
            self.running += 1
            work = self.waiting.popleft()
        # A daemon: a reply that never comes does not keep the process alive.
        threading.Thread(target=self._work, args=work, name="environment", daemon=True).start()

    def _work(self, ended: Future[list[Any]], problem: Problem, path: Sequence[Turn]) -> None:
        seconds = self.environment.settings.seconds
        late = threading.Timer(seconds, self._end, (ended, {"error": f"no reply within {seconds:g} seconds"}))
        late.daemon = True
        late.start()
        try:
            reply = self.environment.reply(problem, path)
            found: Any = None if reply is None else asdict(reply)
        except BaseException as error:  # whatever an environment raises is the end of one path only
            reason = " ".join(str(error).split())
            found = {"error": f"{type(error).__name__}: {reason}"[:300]}
        late.cancel()
        self._end(ended, found)

    def _end(self, ended: Future[list[Any]], found: Any) -> None:
        with self.lock:
            if ended.done():  # it was given up
                return
            ended.set_result([found])
            self.running -= 1
        self._next()


@lru_cache(maxsize=16)
def environment_of(settings: EnvironmentSettings) -> Environment | None:
    """The environment of some settings, made once per process; None for "none". Raises InputError as its maker does."""
    if settings.kind == "none":
        return None
    made: Environment = environment_kind(settings.kind).make(settings)
    return made


@lru_cache(maxsize=16)
def _pool(environment: Environment) -> _Pool:
    return _Pool(environment)


def replied(items: Sequence[tuple[Environment, Problem, Sequence[Turn]]]) -> Future[list[Any]]:
    """Start the reply to one path, which `items` consists of. A future of it as JSON, so that a journal can store it.

    JSON: null without a reply, the fields of a `Reply`, or {"error": reason}.
    """
    ((environment, problem, path),) = items
    return _pool(environment).start(problem, path)


def reply_to(environment: Environment, problem: Problem, path: Sequence[Turn]) -> Coroutine[Reply | None]:
    """The reply to the last step of a path; None if there is none. Raises ReplyError."""
    (found,) = yield from call(replied, [(environment, problem, tuple(path))], starts=True)
    if found is None:
        return None
    if "error" in found:
        raise ReplyError(f"the environment {environment.settings.kind} failed: {found['error']}")
    return Reply(**found)
