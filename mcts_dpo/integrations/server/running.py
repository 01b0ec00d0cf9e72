"""Starting the server from settings, and stopping it.

In: a model and settings. Out: an exit code. The socket is bound before the model is loaded, so that a wrong address
fails at once. SIGTERM and SIGINT: new and waiting requests are refused, running ones may end; a second signal ends the
process.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import digest
from mcts_dpo.common.interrupts import end_at_once, left_to_others
from mcts_dpo.engines import Engine, load_engine
from mcts_dpo.engines.registry import engine_kind
from mcts_dpo.integrations.engine_thread import EngineThread, Key
from mcts_dpo.integrations.fair_queue import extra_places
from mcts_dpo.integrations.server.app import Service, create_app
from mcts_dpo.integrations.server.protocol import CHOICES, CompletionRequest, Serving, completion_questions
from mcts_dpo.integrations.server.settings import ServerSettings
from mcts_dpo.search.deadline import engine_step, require_longer
from mcts_dpo.solve import OnlineSolver

if TYPE_CHECKING:
    from mcts_dpo.pipeline.config import StageConfig

_log = logging.getLogger(__name__)
_MARGIN = 5.0
"""Seconds after `grace` for refusals to reach their clients."""


def serve(
    model: str, settings: ServerSettings, stage: StageConfig, ready: Callable[[str], None] = lambda address: None
) -> int:
    """Serve until a signal arrives. Returns the exit code: 0, 130 after SIGINT, 1 if the engine has failed.

    ready: called with the server's address once it accepts connections. Raises InputError if the address cannot be
    bound or the model cannot be loaded.
    """
    with _bound(settings.host, settings.port) as listening:
        engine = load_engine(model, settings=stage.engine)
        step = engine_step(engine)
        require_longer(stage.search.seconds, step)
        service = make_service(model, engine, settings, stage, step)
        if stage.prompt.style == "chat" and not engine.tokenizer.chat_template:
            _log.warning("the model has no chat template: chats are refused unless prompt.style=plain is given")
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        server = _Server(service, settings, lambda: ready(f"http://{host}:{listening.getsockname()[1]}"))
        # At its end uvicorn raises again the signals that it received; they are ignored then.
        before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            with left_to_others():
                server.run([listening])
        finally:
            service.thread.stop()
            for one, handler in before.items():
                signal.signal(one, handler)
    if service.thread.broken:
        _log.error("the engine has failed: %s", service.thread.broken)
        return 1
    return 130 if server.interrupted else 0


def make_service(
    model: str, engine: Engine, settings: ServerSettings, stage: StageConfig, step: float = 0.0
) -> Service:
    """The service of a loaded engine, with an engine thread that is not started yet. step: see `Serving`.

    Raises InputError for settings with which no question can be answered.
    """
    strategy, strategy_settings = settings.strategy, stage.evaluation.strategies
    alive = settings.concurrency or 2 * stage.engine.slots
    solver = OnlineSolver[Key](engine, alive + extra_places(alive), room=_room(engine))
    budget = settings.budget or stage.search.max_tokens
    thread = EngineThread(engine, solver, concurrency=alive, queue_length=settings.queue, unit=budget)
    name = settings.name or Path(model).name or model
    most = settings.max_budget or 4 * budget
    work = settings.max_work or CHOICES * most
    has = engine_kind(stage.engine.kind).sampling
    how = (strategy, strategy_settings, has, step)
    serving = Serving(name, stage.search, stage.prompt, budget, most, work, engine.context, *how)
    # A trial question: settings that suit no question fail now, and not for every client.
    (trial,) = completion_questions(CompletionRequest(model=name, prompt="1"), serving)
    OnlineSolver[str](engine).admit("trial", trial)
    about = [stage.model_dump(mode="json", include={"search", "prompt", "engine", "evaluation"}), strategy, budget]
    return Service(thread, serving, f"mcts-dpo-{digest(model, *about)[:12]}", settings)


def _room(engine: Engine) -> int:
    """Sequences that keep an engine busy, and few more: a new request must not wait behind thousands."""
    return engine.slots + max(1, engine.slots // 8)


class _Server(uvicorn.Server):
    """uvicorn's server, which passes signals to the engine thread and stops when the engine has failed."""

    def __init__(self, service: Service, settings: ServerSettings, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(service),
                log_level="warning",
                log_config=None,  # it logs as this package does
                access_log=False,
                timeout_graceful_shutdown=int(settings.grace + 2 * _MARGIN),
                server_header=False,
                proxy_headers=False,
                ws="none",
            )
        )
        self.interrupted = self._signalled = False
        self._service = service
        self._grace = settings.grace
        self._read_timeout = settings.read_timeout
        self._silent: dict[Any, tuple[Any, float]] = {}
        self._ready = ready
        service.thread.on_broken = self._give_up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._signalled:
            end_at_once()
        self._signalled = True
        self.interrupted |= sig == signal.SIGINT
        self._service.thread.drain(self._grace)
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if counter % 5 == 0:
            self._close_silent()
        return await super().on_tick(counter)

    def _close_silent(self) -> None:
        """Close connections that have had no request for long: their headers do not arrive or do not end, or they
        continue to send after an answer. (uvicorn closes those that send nothing after an answer.)"""
        now = time.monotonic()
        before, self._silent = self._silent, {}
        connections: set[Any] = set(self.server_state.connections)
        for one in connections:
            cycle = one.cycle
            if cycle is not None and not cycle.response_complete:
                continue
            known, since = before.get(one, (None, now))
            self._silent[one] = cycle, (since if known is cycle else now)
            if now - self._silent[one][1] > self._read_timeout and one.transport is not None:
                one.transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but bodies that have not arrived are dropped now, and unsent answers at the end."""
        self._service.bodies.stop()
        asyncio.get_running_loop().call_later(self._grace + _MARGIN, self._abort)
        await super().shutdown(sockets)

    def _abort(self) -> None:
        connections: set[Any] = set(self.server_state.connections)
        for one in connections:
            if one.transport is not None:
                one.transport.abort()

    def _give_up(self) -> None:
        self.should_exit = True


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: cannot be used ({error.strerror or error})") from None
