"""A Python interpreter along the paths of a search: a block sees what the blocks before it on its path have defined.

After a block, its process waits as the state of the path so far; the next block runs in a process forked from it. So
siblings share their past and never see each other. States above a bound are dropped, the least recently used first; a
path that needs a dropped state runs its blocks again.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from mcts_dpo.common.errors import InputError
from mcts_dpo.environments.python.bubblewrap import SandboxKind
from mcts_dpo.environments.python.limits import PythonLimits
from mcts_dpo.environments.python.process import Ended, Lost, Process, Result
from mcts_dpo.environments.python.sandbox import Sandbox

ATTEMPTS = 20
"""Times that one call starts its path again because states or the sandbox ended meanwhile."""
MOST_FAILURES = 100_000
"""Failed blocks that are remembered."""

Key = bytes


@dataclass
class State:
    """A process that waits after its block.

    key:       of its path.
    result:    of its block.
    memory_mb: its own memory, in MiB.
    users:     calls that fork from it now; it is not dropped meanwhile.
    """

    key: Key
    process: Process
    result: Result
    memory_mb: float
    users: int = 1


@dataclass
class World:
    """One sandbox, and the states in it by path, the least recently used first."""

    sandbox: Sandbox
    states: OrderedDict[Key, State] = field(default_factory=OrderedDict)


class Interpreter:
    """Runs blocks of Python along paths. Several threads may call it.

    Args:
        settings: the limits of a block.
        sandbox:  "bubblewrap"; or "none", which runs code as this user, with limits that code can undo.

    Raises InputError, in one line, if this machine cannot enforce the sandbox or the limits do not fit together.
    """

    def __init__(self, settings: PythonLimits, sandbox: SandboxKind) -> None:
        if settings.live < 2 * settings.concurrent:
            raise InputError(
                f"concurrent: {settings.concurrent} is out of range: each running block needs a second process, and "
                f"`live` is {settings.live} (accepted: an integer ≥ 1 and ≤ {settings.live // 2})"
            )
        self._limits, self._kind = settings, sandbox
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(settings.concurrent)
        self._running: dict[Key, threading.Event] = {}
        self._failed: OrderedDict[Key, Result] = OrderedDict()
        self._strikes: dict[Key, int] = {}
        self._closed = False
        self._world = World(Sandbox(settings, sandbox))

    def run(self, blocks: Sequence[str]) -> Result:
        """Run the last block after the others, and return what came of it.

        blocks: the code of all blocks of the path, in order; at least one.

        A block that hits a limit, or ends its process, changes nothing: its error is its reply, and the next block
        continues from the state before it. An exception keeps what was defined before it. A path that is asked for
        again is answered with its former result while its state lives.
        """
        if not blocks:
            raise ValueError("blocks: a path has at least one block")
        keys = path_keys(blocks)
        with self._slots:
            for _ in range(ATTEMPTS):
                world = self._current()
                try:
                    return self._reach(world, keys, blocks)
                except Lost:
                    time.sleep(0 if world.sandbox.alive() else 0.01)
        raise RuntimeError(f"the python environment could not run a block in {ATTEMPTS} attempts")

    def close(self) -> None:
        """End all processes. A call that is under way fails."""
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            self._world.sandbox.close()
            with self._lock:
                self._world.states.clear()

    def __enter__(self) -> Interpreter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- paths ----------------------------------------------------------------------------------------

    def _reach(self, world: World, keys: Sequence[Key], blocks: Sequence[str]) -> Result:
        """The result of the last block; what is missing on the way to it is run. Raises Lost."""
        done, state = self._deepest(world, keys)
        result = state.result if state else None
        try:
            for key, block in zip(keys[done:], blocks[done:], strict=True):
                child, result = self._step(world, state, key, block)
                if child is not None:
                    state = self._let_go(state, child)
        finally:
            self._let_go(state)
        assert result is not None
        return result

    def _deepest(self, world: World, keys: Sequence[Key]) -> tuple[int, State | None]:
        """How many blocks the longest path with a living state has, and that state, held; 0 and None at the start."""
        with self._lock:
            for done in range(len(keys), 0, -1):
                state = world.states.get(keys[done - 1])
                if state is None:
                    continue
                if state.process.alive():
                    state.users += 1
                    world.states.move_to_end(state.key)
                    return done, state
                self._drop(world, state)
        return 0, None

    def _step(self, world: World, parent: State | None, key: Key, block: str) -> tuple[State | None, Result]:
        """Run one block after `parent`, unless that was done. Returns its state, held, or None if it failed."""
        while True:
            with self._lock:
                if key in self._failed:
                    return None, self._failed[key]
                state = world.states.get(key)
                if state is not None:
                    state.users += 1
                    return state, state.result
                other = self._running.get(key)
                if other is None:
                    finished = self._running[key] = threading.Event()
                    self._make_room(world)
                    break
            other.wait()
        try:
            return self._execute(world, parent, key, block)
        finally:
            with self._lock:
                del self._running[key]
            finished.set()

    def _execute(self, world: World, parent: State | None, key: Key, block: str) -> tuple[State | None, Result]:
        if len(block) > self._limits.block_chars:
            error = f"ValueError: the block has more than {self._limits.block_chars} characters"
            return None, self._fail(key, Result("", error, False))
        sandbox, scratch = world.sandbox, secrets.token_hex(16)
        try:
            process = sandbox.fork(parent.process if parent else sandbox.first, scratch, block)
        except Lost:
            if parent is not None and sandbox.alive():
                self._strike(world, parent)
            raise
        if parent is not None:
            self._strikes.pop(parent.key, None)
        try:
            result = process.reply(self._limits.cpu_seconds, self._limits.wall_seconds)
        except BaseException as error:
            sandbox.end(process)
            sandbox.remove(scratch)
            if not isinstance(error, Ended):
                raise
            if self._closed or not sandbox.alive(grace=0.01):
                raise Lost from None  # the block need not be the reason
            return None, self._fail(key, Result("", str(error), False))
        sandbox.remove(scratch)
        output = result.output[: self._limits.output_chars]
        result = Result(output, result.error, result.cut or len(output) < len(result.output))
        state = State(key, process, result, max(0.0, process.resident_mb() - sandbox.first_mb))
        with self._lock:
            world.states[key] = state
        return state, result

    # --- bookkeeping ----------------------------------------------------------------------------------

    def _current(self) -> World:
        """The sandbox; a new one if it has ended."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the python environment is closed")
            if not self._world.sandbox.alive():
                self._world.sandbox.close()
                self._world = World(Sandbox(self._limits, self._kind))
            return self._world

    def _make_room(self, world: World) -> None:
        """Drop states until another block may run. The caller holds the lock."""
        idle = [state for state in world.states.values() if not state.users]
        surplus = len(world.states) + len(self._running) - self._limits.live
        memory = sum(state.memory_mb for state in world.states.values())
        for state in idle:
            if surplus <= 0 and memory <= self._limits.total_mb:
                return
            self._drop(world, state)
            surplus -= 1
            memory -= state.memory_mb

    def _drop(self, world: World, state: State) -> None:
        """End a state. The caller holds the lock."""
        del world.states[state.key]
        world.sandbox.end(state.process)

    def _let_go(self, state: State | None, successor: State | None = None) -> State | None:
        """The call needs `state` no more; it has `successor`."""
        if state is not None:
            with self._lock:
                state.users -= 1
        return successor

    def _strike(self, world: World, state: State) -> None:
        """A state did not fork. At the second time its block counts as failed: it changes nothing, its reply stays.

        Several calls may notice one state's end; it counts once.
        """
        with self._lock:
            if world.states.get(state.key) is not state:
                return
            self._drop(world, state)
            strikes = self._strikes[state.key] = self._strikes.pop(state.key, 0) + 1
            if len(self._strikes) > MOST_FAILURES:
                del self._strikes[next(iter(self._strikes))]
        if strikes > 1:
            self._fail(state.key, state.result)

    def _fail(self, key: Key, result: Result) -> Result:
        """Remember a block that changes nothing, by its path."""
        with self._lock:
            self._failed[key] = result
            if len(self._failed) > MOST_FAILURES:
                self._failed.popitem(last=False)
        return result


def path_keys(blocks: Sequence[str]) -> list[Key]:
    """A key for each prefix of a path: equal for equal prefixes, and for no others."""
    keys, key = [], b""
    for block in blocks:
        key = hashlib.blake2b(key + block.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        keys.append(key)
    return keys
