"""The HTTP application: routes, access, streams, and clients that disconnect (which leave nothing behind).

In: an engine thread, and the settings that requests are answered with. Out: a FastAPI application.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from mcts_dpo.integrations.engine_thread import (
    Decided,
    EngineThread,
    Event,
    Job,
    QueueFull,
    Refused,
    Solved,
    Unavailable,
)
from mcts_dpo.integrations.server.access import Access, client
from mcts_dpo.integrations.server.metrics import CONTENT_TYPE, DISCONNECTED, Metrics
from mcts_dpo.integrations.server.protocol import (
    ApiError,
    ChatRequest,
    CompletionRequest,
    Serving,
    chat_questions,
    completion_questions,
    prepared,
    read,
    shown,
)
from mcts_dpo.integrations.server.request_bodies import Bodies, parse
from mcts_dpo.integrations.server.responses import Answer
from mcts_dpo.integrations.server.settings import ServerSettings
from mcts_dpo.integrations.server.text_workers import Busy, TextWorkers
from mcts_dpo.models.prompts import Thoughts, thoughts_of
from mcts_dpo.solve import Asked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEEP_ALIVE = 15.0
"""Seconds without an event after which a stream sends a comment, which clients ignore."""


class _Disconnected(Exception):
    """The client has closed its connection."""


@dataclass(slots=True)
class _Pending:
    """A request that is being answered. arrived: its `time.monotonic()`."""

    endpoint: str
    arrived: float
    answer: Answer
    questions: Sequence[Asked]
    events: AsyncIterator[Event]

    @property
    def step_end(self) -> str:
        return self.questions[0].prompt.step_end


class Service:
    """The state that the routes share."""

    def __init__(self, thread: EngineThread, serving: Serving, fingerprint: str, settings: ServerSettings) -> None:
        self.thread = thread
        self.serving = serving
        self.metrics = Metrics(thread)
        self.created = int(time.time())
        self.access = Access(settings.key)
        self.bodies = Bodies(settings.max_body_bytes, settings.read_timeout)
        self.workers = TextWorkers(thread.engine.tokenizer)
        self._fingerprint = fingerprint

    async def admit(self, request: Request) -> None:
        """Raise ApiError unless the request may be answered; see `Access`."""
        self.access.check(request)

    def model(self) -> dict[str, Any]:
        """The one model, as `/v1/models` lists it."""
        serving = self.serving
        about = {"id": serving.name, "object": "model", "created": self.created, "owned_by": "mcts-dpo"}
        return about | {"max_model_len": serving.context}

    async def answer(self, request: Request, endpoint: str) -> Response:
        """Answer a request for a completion, at once or as a stream."""
        arrived = time.monotonic()
        self.metrics.in_flight.inc()
        try:
            pending, stream, usage = await self._ask(request, endpoint, arrived)
            if stream:
                # After the first event a request is no longer refused. `_stream` counts its end.
                chunks = self._stream(pending, usage)
                return StreamingResponse(chunks, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
            async for event in pending.events:
                if isinstance(event, Solved):
                    pending.answer.done[event.index] = event
            self._end(pending, 200)
            return JSONResponse(pending.answer.whole())
        except _Disconnected:
            self._count(endpoint, DISCONNECTED, arrived)
            return Response(status_code=DISCONNECTED)
        except ApiError as error:
            self._count(endpoint, error.status, arrived)
            raise
        except BaseException as error:  # a cancelled task is not a failure
            self._count(endpoint, 500 if isinstance(error, Exception) else DISCONNECTED, arrived)
            raise

    async def _ask(self, request: Request, endpoint: str, arrived: float) -> tuple[_Pending, bool, bool]:
        """Read and submit a request. Returns it, and whether a stream and its usage are wanted."""
        try:
            body = await self.bodies.read(request)
            parse_body = partial(self._parse_request, body, endpoint)
            parsed, questions, thoughts = await self.workers.run(len(body), parse_body)
        except ClientDisconnect:
            raise _Disconnected from None
        except Busy:
            raise _queue_full(1) from None
        answer = Answer(self.serving.name, endpoint == "chat", self._fingerprint, parsed.n, thoughts=thoughts)
        events = self._follow(request, questions, parsed.stream, answer.chat)
        if parsed.stream:
            await anext(events)  # Started, or an error, which can still be sent as a status
        return (
            _Pending(endpoint, arrived, answer, questions, events),
            parsed.stream,
            parsed.stream_options.include_usage,
        )

    def _parse_request(
        self, body: bytes, endpoint: str, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[ChatRequest | CompletionRequest, list[Asked], Thoughts | None]:
        """The request and questions of a body, and how a chat's policy thinks. Takes long for a long one.

        Raises ApiError.
        """
        value = parse(body)
        parsed: ChatRequest | CompletionRequest
        if endpoint == "chat":
            parsed = read(ChatRequest, value, self.serving)
            questions, field = chat_questions(parsed, self.serving), "messages"
        else:
            parsed = read(CompletionRequest, value, self.serving)
            questions, field = completion_questions(parsed, self.serving), "prompt"
        prepare = partial(self.thread.prepare, tokenizer=tokenizer)
        ready = prepared(questions, prepare, self.serving.context, field)
        found = thoughts_of(tokenizer, ready[0].prompt) if endpoint == "chat" else None
        return parsed, ready, found if found is not None and found.marks is not None else None

    async def _follow(
        self, request: Request, questions: Sequence[Asked], stream: bool, chat: bool
    ) -> AsyncIterator[Event]:
        """The events of the questions until all are solved. However it ends, their searches are cancelled.

        Raises _Disconnected when the client disconnects, and ApiError when the questions are refused.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | None] = asyncio.Queue()

        def on_event(event: Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, event)

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.thread.cancel(job)
            events.put_nowait(None)

        job = Job(questions, on_event, stream, client(request))
        try:
            self.thread.submit(job)
        except QueueFull as full:
            raise _queue_full(max(1, round(full.args[0]))) from None
        except Unavailable as closed:
            raise ApiError(503, str(closed), headers={"Retry-After": "5"}) from None
        watcher = asyncio.create_task(watch())
        missing = len(questions)
        try:
            while missing:
                event = await events.get()
                if event is None:
                    raise _Disconnected
                if isinstance(event, Refused):
                    missing = 0
                    raise _refusal(event, chat)
                missing -= isinstance(event, Solved)
                yield event
        finally:
            watcher.cancel()
            if missing:
                self.thread.cancel(job)

    async def _stream(self, pending: _Pending, usage: bool) -> AsyncIterator[str]:
        """The lines of a stream of server-sent events."""
        status = DISCONNECTED
        answer = pending.answer
        try:
            # Chunks that are known together are sent together.
            if opening := answer.opening(len(pending.questions)):
                yield _lines(opening)
            async for event in _with_keep_alives(pending.events):
                if event is None:
                    yield ": still searching\n\n"
                elif isinstance(event, Decided):
                    stops = pending.questions[event.index].prompt.stop
                    if certain := answer.decided(event.index, event.steps, stops, pending.step_end):
                        yield _lines(certain)
                elif isinstance(event, Solved):
                    yield _lines(answer.ended(event, pending.step_end))
            if usage:
                yield _lines([answer.closing()])
            status = 200
            yield "data: [DONE]\n\n"
        except _Disconnected:
            pass
        except ApiError as error:
            status = error.status
            yield _lines([error.body])
        finally:
            self._end(pending, status)

    def _end(self, pending: _Pending, status: int) -> None:
        if status == 200:
            usage = pending.answer.usage()
            self.metrics.tokens.labels("prompt").inc(usage["prompt_tokens"])
            self.metrics.tokens.labels("completion").inc(usage["completion_tokens"])
            self.metrics.tokens.labels("search").inc(usage["completion_tokens_details"]["search_tokens"])
        self._count(pending.endpoint, status, pending.arrived)

    def _count(self, endpoint: str, status: int, arrived: float) -> None:
        self.metrics.in_flight.dec()
        self.metrics.requests.labels(endpoint, str(status)).inc()
        self.metrics.seconds.labels(endpoint).observe(time.monotonic() - arrived)


def create_app(service: Service) -> FastAPI:
    """The application; it starts and stops the engine thread."""
    thread = service.thread

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        thread.start()
        yield
        service.workers.stop()
        await run_in_threadpool(thread.stop)

    app = FastAPI(title="mcts-dpo", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    guarded = [Depends(service.admit)]

    @app.get("/health")
    async def health(request: Request) -> Response:
        service.access.check_host(request)
        state = "failed" if thread.broken else "stopping" if thread.closed else "ok"
        return JSONResponse({"status": state}, 200 if state == "ok" else 503)

    @app.get("/metrics", dependencies=guarded)
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/v1/models", dependencies=guarded)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [service.model()]}

    @app.get("/v1/models/{name:path}", dependencies=guarded)
    async def model(name: str) -> dict[str, Any]:
        if name != service.serving.name:
            raise ApiError(404, f"The model {name!r} does not exist", param="model", code="model_not_found")
        return service.model()

    async def chat(request: Request) -> Response:
        await service.admit(request)
        return await service.answer(request, "chat")

    async def completions(request: Request) -> Response:
        await service.admit(request)
        return await service.answer(request, "completions")

    # protocol.py validates bodies: FastAPI's own parsing would cost time and not be used.
    app.add_route("/v1/chat/completions", chat, methods=["POST"])
    app.add_route("/v1/completions", completions, methods=["POST"])

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return _refused(request, error, service.bodies)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return JSONResponse(ApiError(500, f"the server has failed ({type(error).__name__})").body, 500)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        where = f"{request.method} {shown(request.url.path, 200)}"
        what = f"Unknown request URL: {where}" if error.status_code == 404 else error.detail
        return _refused(request, ApiError(error.status_code, what, headers=error.headers), service.bodies)

    return app


class _Unread(JSONResponse):
    """The answer to a request whose body was not read. It is sent at once, but the connection stays open until the body
    has arrived: otherwise a client that is still sending would not see the answer."""

    def __init__(self, content: Any, status: int, headers: Mapping[str, str], bodies: Bodies) -> None:
        super().__init__(content, status, headers)
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await self._bodies.discard(Request(scope, receive))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _refused(request: Request, error: ApiError, bodies: Bodies) -> Response:
    if bodies.unread(request):
        return _Unread(error.body, error.status, error.headers, bodies)
    return JSONResponse(error.body, error.status, headers=error.headers)


def _queue_full(seconds: int) -> ApiError:
    return ApiError(
        429,
        f"the queue is full; try again in about {seconds} s",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(seconds)},
    )


def _refusal(refused: Refused, chat: bool) -> ApiError:
    """The error of a request that the engine thread has refused. Status 400 names the field."""
    if "leaves no room" in refused.reason:
        return ApiError(refused.status, refused.reason, code="context_length_exceeded")
    param = ("messages" if chat else "prompt") if refused.status == 400 else None
    return ApiError(refused.status, refused.reason, param=param)


async def _with_keep_alives(events: AsyncIterator[Event]) -> AsyncIterator[Event | None]:
    """The events, and None after each KEEP_ALIVE seconds without one."""
    following: asyncio.Task[Event | None] | None = None
    try:
        while True:
            following = following or asyncio.create_task(_next(events))
            done, _ = await asyncio.wait({following}, timeout=KEEP_ALIVE)
            if not done:
                yield None
                continue
            event = following.result()
            if event is None:
                return
            following = None
            yield event
    finally:
        if following is not None:
            following.cancel()


async def _next(events: AsyncIterator[Event]) -> Event | None:
    """The next event; None after the last."""
    return await anext(events, None)


def _lines(chunks: Sequence[Any]) -> str:
    """Server-sent events, one for each chunk."""
    written = (json.dumps(chunk, ensure_ascii=False, separators=(",", ":")) for chunk in chunks)
    return "".join(f"data: {text}\n\n" for text in written)
