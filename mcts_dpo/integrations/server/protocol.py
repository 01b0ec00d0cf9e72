"""OpenAI's requests as questions to a strategy: which fields are used, which are ignored, which are refused.

In: a request's JSON body. Out: `Asked`s. A field that would change the answer and is not supported is refused by name
with status 400, as OpenAI does. A field that does not change the answer (`user`, `metadata`, …) is ignored. Two fields
are this project's own: `budget`, generated tokens per answer, and `seconds` beside it. `top_k`, `min_p` and
`repetition_penalty` are vLLM's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.common.settings import nearest
from mcts_dpo.data import Problem
from mcts_dpo.engines.shaping import SHAPING, Shape, shape_of
from mcts_dpo.models.prompts import Example, PromptSettings
from mcts_dpo.search.deadline import too_short
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.solve import Asked, Strategy, StrategySettings
from mcts_dpo.solve.question import PromptTexts

CHOICES = 128
"""Most answers to one request, as at OpenAI."""
CHARACTERS = 16
"""A prompt with more characters per token of the context than this is not tokenised: it cannot fit."""
MESSAGES = 1024
"""Most messages of one chat, since every search renders all of them."""
STOPS, STOP_LENGTH = 4, 256
"""Most stop strings (as at OpenAI) and characters of one, since each is searched for after every token."""
_SEEDS = 2**63

IGNORED = frozenset(
    ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
)
_LOGPROBS = "a search finds the answer, so it has no log-probabilities of a sample"
_SAMPLING = "the engines sample without it"
_TOOLS = "the server has no tools"
REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    # name: values without effect, and why any other is refused
    "logprobs": ((False,), _LOGPROBS),
    "top_logprobs": ((0,), _LOGPROBS),
    "echo": ((False,), "only generated text is returned"),
    "suffix": (("",), "the server continues texts and does not fill gaps"),
    "best_of": ((1,), "the strategy chooses among samples; see `budget`"),
    "frequency_penalty": ((0, 0.0), _SAMPLING),
    "logit_bias": (({},), _SAMPLING),
    "tools": (([],), _TOOLS),
    "tool_choice": (("none", "auto"), _TOOLS),
    "parallel_tool_calls": ((True, False), _TOOLS),
    "functions": (([],), _TOOLS),
    "function_call": (("none", "auto"), _TOOLS),
    "response_format": (({"type": "text"},), "only text is written"),
    "modalities": ((["text"],), "only text is written"),
    "audio": ((), "only text is written"),
    "prediction": ((), "the server does not edit texts"),
    "reasoning_effort": ((), "set `budget`, in generated tokens"),
    "verbosity": ((), "set `max_tokens`, the length of an answer"),
    "web_search_options": ((), _TOOLS),
}


def shown(text: str, most: int = 60) -> str:
    """A client's text for an error message: one printable line in any encoding, cut at `most` characters."""
    cut = text if len(text) <= most else text[:most] + "…"
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in cut)


class ApiError(Exception):
    """An answer that is an error, in OpenAI's format. headers: of the HTTP response."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
        self.body = {
            "error": {
                "message": message,
                "type": "server_error" if status >= 500 else kind,
                "param": param,
                "code": code,
            }
        }


@dataclass(frozen=True, slots=True)
class Serving:
    """The settings with which every request is answered.

    search, prompt: of the stage. budget, most: tokens per answer, by default and at most; work: tokens at most for all
    answers to a request. name: of the model. context: longest prompt and answer, in tokens. strategy,
    strategy_settings: how the budget is used. sampling: which of top_k, min_p and penalties the engine has. step: of
    the engine, in seconds; 0: not measured.
    """

    name: str
    search: SearchSettings
    prompt: PromptSettings
    budget: int
    most: int
    work: int
    context: int
    strategy: Strategy = "mcts"
    strategy_settings: StrategySettings | None = None
    sampling: frozenset[str] = SHAPING
    step: float = 0.0


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)

    type: Literal["text"]
    text: str


class _Message(BaseModel):
    model_config = ConfigDict(strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class _StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False  # random padding against eavesdroppers; accepted and not sent


class _Common(BaseModel):
    """The fields of both kinds of request. null is the same as a missing field."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    n: int = Field(1, ge=1, le=CHOICES)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    temperature: float | None = Field(None, ge=0.0, le=2.0)
    top_p: float | None = Field(None, gt=0.0, le=1.0)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0.0, le=1.0)
    repetition_penalty: float | None = Field(None, gt=0.0, le=16.0)
    presence_penalty: float | None = Field(None, ge=-2.0, le=2.0)
    max_tokens: int | None = Field(None, ge=1)
    budget: int | None = Field(None, ge=1)
    seconds: float | None = Field(None, gt=0.0)

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(_Common):
    """`/v1/chat/completions`."""

    messages: list[_Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)


class CompletionRequest(_Common):
    """`/v1/completions`."""

    prompt: str | list[str]


RequestT = TypeVar("RequestT", bound=_Common)


def read(kind: type[RequestT], body: Any, serving: Serving) -> RequestT:
    """A request from its JSON body. Raises ApiError for a wrong or unsupported field."""
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object", param="body")
    said = {name: value for name, value in body.items() if value is not None and name not in IGNORED}
    for name, (neutral, why) in REFUSED.items():
        value = said.pop(name, None)
        if value is not None and not any(value == one and type(value) is type(one) for one in neutral):
            raise ApiError(400, f"{name} is not supported: {why}", param=name, code="unsupported_parameter")
    unknown = next((name for name in said if name not in kind.model_fields), None)
    if unknown is not None:
        named = shown(unknown) or "''"
        close = nearest(named, list(kind.model_fields))
        hint = f"; did you mean {close!r}?" if close else ""
        raise ApiError(400, f"Unrecognized request argument supplied: {named}{hint}", param=named)
    for name, most in (("messages", MESSAGES), ("prompt", CHOICES), ("stop", STOPS)):
        if isinstance(said.get(name), list) and len(said[name]) > most:
            # Checked before each item is validated.
            raise ApiError(400, f"{name}: {len(said[name])} of them (accepted: up to {most})", param=name)
    try:
        request = kind.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = _where(first["loc"])
        raise ApiError(400, f"{where}: {first['msg']}", param=where) from None
    if request.model != serving.name:
        raise ApiError(
            404,
            f"The model {shown(request.model)!r} does not exist; this server has {serving.name!r}",
            param="model",
            code="model_not_found",
        )
    if (request.budget or 0) > serving.most:
        raise ApiError(400, f"budget: {shown(str(request.budget))} (accepted: 1 to {serving.most})", param="budget")
    if not all(0 < len(stop) <= STOP_LENGTH for stop in request.stops):
        raise ApiError(
            400,
            f"stop: accepted are up to {STOPS} texts of at least one character, at most {STOP_LENGTH}",
            param="stop",
        )
    return request


def prepared(
    questions: Sequence[Asked], prepare: Callable[[Asked], PromptTexts], context: int, field: str
) -> list[Asked]:
    """The questions with their texts as tokens; each text is tokenised once.

    Raises ApiError for a text that is too long for `context` tokens, before it is tokenised, and for any error of
    `prepare`.
    """
    found: dict[str, PromptTexts] = {}
    for question in questions:
        text = question.problem.question
        if text not in found:
            _refuse_by_length(question, context)
            found[text] = _prepared(question, prepare, field)
    return [replace(question, texts=found[question.problem.question]) for question in questions]


def _refuse_by_length(question: Asked, context: int) -> None:
    prompt = question.prompt
    texts = [question.problem.question, prompt.system or ""]
    texts += [text for example in prompt.examples for text in (example.question, example.solution)]
    length, most = sum(map(len, texts)), CHARACTERS * context
    if length > most:
        why = (
            f"a prompt of {length} characters leaves no room in a context of {context} tokens (accepted: up to {most})"
        )
        raise ApiError(400, why, code="context_length_exceeded")


def _prepared(question: Asked, prepare: Callable[[Asked], PromptTexts], field: str) -> PromptTexts:
    try:
        return prepare(question)
    except InputError as error:
        if "leaves no room" in str(error):
            raise ApiError(400, str(error), code="context_length_exceeded") from None
        raise ApiError(400, str(error), param=field) from None
    except Exception as error:  # a chat template can raise anything
        said = shown(f"{type(error).__name__}: {error}", 200)
        raise ApiError(400, f"{field}: cannot be put to the model ({said})", param=field) from None


def _where(location: Sequence[int | str]) -> str:
    """The field that a pydantic error names: its location, without the types of a union."""
    return ".".join(shown(str(part)) for part in location if part != "str" and not str(part).startswith("list["))


def chat_questions(request: ChatRequest, serving: Serving) -> list[Asked]:
    """The `n` questions of a chat. The prompt's template renders the user's messages; a system message replaces the
    server's."""
    if len(request.messages) > MESSAGES:
        raise ApiError(400, f"messages: {len(request.messages)} of them (accepted: up to {MESSAGES})", param="messages")
    system, history, question = _conversation(request.messages)
    changes: dict[str, Any] = {"examples": (*serving.prompt.examples, *history)}
    if system is not None:
        changes["system"] = system
    longest = request.max_completion_tokens or request.max_tokens
    return _questions(request, serving, [question], serving.prompt.model_copy(update=changes), longest)


def completion_questions(request: CompletionRequest, serving: Serving) -> list[Asked]:
    """The `n` questions of each prompt, prompt by prompt. Prompts are continued as they are."""
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    if not prompts or not all(prompts):
        raise ApiError(400, "prompt: accepted are one or more texts, none of them empty", param="prompt")
    if len(prompts) * request.n > CHOICES:
        raise ApiError(
            400, f"prompt: {len(prompts)} prompts with n = {request.n} (accepted: {CHOICES} answers)", param="prompt"
        )
    bare = {"style": "plain", "system": None, "template": "{question}", "examples": (), "prefill": ""}
    prompt = serving.prompt.model_copy(update=bare)
    return _questions(request, serving, prompts, prompt, request.max_tokens)


def _questions(
    request: _Common, serving: Serving, texts: Sequence[str], prompt: PromptSettings, longest: int | None
) -> list[Asked]:
    prompt = prompt.model_copy(update={"stop": (*prompt.stop, *request.stops)})
    changes = {name: getattr(request, name) for name in ("temperature", "top_p", "seconds", *Shape._fields)}
    changes["max_tokens"] = longest
    search = serving.search.model_copy(update={name: value for name, value in changes.items() if value is not None})
    if request.seconds is not None and request.seconds < serving.step:
        raise ApiError(400, too_short(request.seconds, serving.step).removeprefix("search."), param="seconds")
    missing = next((name for name in shape_of(search).settings_on() if name not in serving.sampling), None)
    if missing is not None:
        raise ApiError(
            400, f"{missing} is not supported: the engine has none", param=missing, code="unsupported_parameter"
        )
    seed = secrets.randbelow(_SEEDS) if request.seed is None else request.seed % _SEEDS
    budget = request.budget or serving.budget
    answers = len(texts) * request.n
    if answers * budget > serving.work:
        why = f"n × budget: {answers} × {budget} = {answers * budget} tokens (accepted: up to {serving.work})"
        raise ApiError(400, why, param="budget" if answers == 1 else "n")
    return [
        # The first answer is what `mcts-dpo solve` finds with this seed.
        Asked(
            Problem("question", text),
            prompt,
            search.model_copy(update={"seed": seed_from(seed, choice) if choice else seed}),
            budget,
            serving.strategy,
            serving.strategy_settings,
        )
        for text in texts
        for choice in range(request.n)
    ]


def _conversation(messages: Sequence[_Message]) -> tuple[str | None, list[Example], str]:
    """(system message, earlier turns, question). Consecutive messages of one role are joined by a blank line."""
    said = [("system" if message.role == "developer" else message.role, message.text) for message in messages]
    turns = [
        (role, "\n\n".join(text for _, text in together)) for role, together in groupby(said, key=lambda turn: turn[0])
    ]
    system = turns.pop(0)[1] if turns[0][0] == "system" else None
    roles = [role for role, _ in turns]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        given = shown(", ".join(message.role for message in messages), 200)
        raise ApiError(
            400,
            f"messages: roles come as {given} (accepted: system first, if at all, then user and assistant in turn, the "
            "last from the user)",
            param="messages",
        )
    texts = [text for _, text in turns]
    if not all(text.strip() for text in texts):
        raise ApiError(400, "messages: an empty message", param="messages")
    history = [Example(question=asked, solution=said) for asked, said in zip(texts[:-1:2], texts[1::2], strict=True)]
    return system, history, texts[-1]
