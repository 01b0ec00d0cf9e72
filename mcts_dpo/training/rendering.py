"""A row of TRL-style data as token ids: rendered once, whole, and divided where the policy began to write.

In: text or messages, a tokenizer with its chat template. Out: the prompt's ids, each completion's, and which of these
the policy did not write: in a completion of several messages, whatever stands between the assistant's (a user's next
turn, a tool's answer, the headers of turns) is read and never learned. Knows neither files nor tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcts_dpo.encoding import Guard, SpecialTokens
from mcts_dpo.files import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Text = str | list[dict[str, Any]]
"""A text, or a conversation: messages with `role` and `content` (or `tool_calls`)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data set: its values by field, and where it stands ("file, line 3"), for messages."""

    values: Mapping[str, Any]
    where: str

    def text(self, field: str) -> Text:
        """A field that must hold text or messages, and not be empty."""
        value = self.values.get(field)
        if value is None:
            known = ", ".join(sorted(self.values)) or "none"
            raise InputError(f"{self.where}: {field}: is missing (accepted: text or messages; found fields: {known})")
        if isinstance(value, str):
            if not value:
                raise InputError(f"{self.where}: {field}: is empty (accepted: text or messages)")
            return value
        if not isinstance(value, Sequence) or not value:
            raise InputError(f"{self.where}: {field}: {short(value)} (accepted: text or a list of messages)")
        for place, message in enumerate(value):
            if not isinstance(message, Mapping):
                accepted = "accepted: an object with role and content"
                raise InputError(f"{self.where}: {field}[{place}]: {short(message)} ({accepted})")
            for key in ("role", "content"):
                if key == "content" and message.get(key) is None and message.get("tool_calls"):
                    continue
                if not isinstance(message.get(key), str):
                    found = short(message[key]) if key in message else "is missing"
                    raise InputError(f"{self.where}: {field}[{place}].{key}: {found} (accepted: text)")
        messages: list[dict[str, Any]] = _without_nulls(value)
        return messages

    def for_template(self) -> dict[str, Any]:
        """What else the chat template is given: `tools` (a list, or JSON of one) and `chat_template_kwargs`."""
        tools, others = self.values.get("tools"), self.values.get("chat_template_kwargs")
        if isinstance(tools, str):
            with suppress(ValueError):
                tools = json.loads(tools)
        if not (tools is None or isinstance(tools, list)):
            raise InputError(f"{self.where}: tools: {short(tools)} (accepted: a list of tools, or JSON of one)")
        if not (others is None or isinstance(others, Mapping)):
            raise InputError(f"{self.where}: chat_template_kwargs: {short(others)} (accepted: an object)")
        given = {"tools": tools or None, **(others or {})}
        return {name: _without_nulls(value) for name, value in given.items() if value is not None}

    def number(self, field: str, default: float) -> float:
        """An optional field that must hold a number."""
        value = self.values.get(field)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{self.where}: {field}: {short(value)} (accepted: a number)")
        return float(value)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of a prompt and of its completions.

    observed: of each completion, the places in it of tokens that the policy was given and did not write.
    texts:    of the prompt and of each completion.
    """

    prompt: list[int]
    completions: tuple[list[int], ...]
    observed: tuple[list[int], ...]
    texts: tuple[str, ...]


def render(
    row: Row,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Text,
    completions: Mapping[str, Text],
    append_eos: bool,
    special: SpecialTokens = "split",
) -> Rendered:
    """A prompt and its completions by field, as token ids.

    append_eos: whether a completion ends the answer. special: of control tokens in messages; a text without messages
    has no template, so that its control tokens are its own. Raises InputError naming the row and the field.
    """
    end = tokenizer.eos_token_id
    given: list[list[int]] = [[] for _ in completions]
    if isinstance(prompt, str):
        for field, completion in completions.items():
            if not isinstance(completion, str):
                raise InputError(f"{row.where}: {field}: messages after a prompt that is text (accepted: text)")
        texts = [prompt + str(completion) for completion in completions.values()]
        ids = [list(tokenizer(text)["input_ids"]) for text in texts]
        ids = [[*one, end] if append_eos and end is not None and one[-1] != end else one for one in ids]
        start = list(tokenizer(prompt)["input_ids"])
    else:
        guard = Guard(tokenizer, _contents(prompt, *completions.values()), special)
        prompt = _guarded(guard, prompt)
        completions = {field: _guarded(guard, completion) for field, completion in completions.items()}
        texts = [_conversation(row, field, tokenizer, prompt, completion) for field, completion in completions.items()]
        ids = [list(guard.ids(text)) for text in texts]
        opening = _template(row, "prompt", tokenizer, prompt, add_generation_prompt=True)
        start = list(guard.ids(opening))
    # A token may reach over the border between prompt and completion; then it belongs to the completion.
    border = _common([start, *ids])
    if border == 0:
        raise InputError(f"{row.where}: prompt: renders to no token that its completions begin with")
    if not isinstance(prompt, str):
        last = end if append_eos else None
        written = [
            _written(row, field, tokenizer, guard, prompt, completion, one, border, last)
            for (field, completion), one in zip(completions.items(), ids, strict=True)
        ]
        ids = [
            [*one[:border], *_closed(one[border:], last if _answers(completion) else None)]
            for completion, one in zip(completions.values(), ids, strict=True)
        ]
        # A token that closing added is the policy's own.
        given = [
            [place for place, own in enumerate(mask[: len(one) - border]) if not own]
            for mask, one in zip(written, ids, strict=True)
        ]
    for field, one in zip(completions, ids, strict=True):
        if len(one) == border:
            raise InputError(f"{row.where}: {field}: renders to no token after the prompt (accepted: an answer)")
    shown = [tokenizer.decode(part) for part in (ids[0][:border], *(one[border:] for one in ids))]
    return Rendered(ids[0][:border], tuple(one[border:] for one in ids), tuple(given), tuple(map(str, shown)))


def _answers(completion: Text) -> bool:
    """Whether the assistant speaks last, so that the answer can end."""
    return isinstance(completion, str) or completion[-1]["role"] == "assistant"


def _written(
    row: Row,
    field: str,
    tokenizer: PreTrainedTokenizerBase,
    guard: Guard,
    prompt: list[dict[str, Any]],
    completion: Text,
    ids: list[int],
    border: int,
    end: int | None,
) -> list[bool]:
    """Of each of `ids` from `border` on, whether it is part of what the assistant says."""
    if isinstance(completion, str) or [message["role"] for message in completion] == ["assistant"]:
        return [True] * (len(ids) - border)
    found = [False] * (len(ids) - border)
    whole = _conversation(row, field, tokenizer, prompt, completion)
    for place, message in enumerate(completion):
        if message["role"] != "assistant":
            continue
        before, said = [*prompt, *completion[:place]], [*prompt, *completion[: place + 1]]
        opening = _template(row, field, tokenizer, before, add_generation_prompt=True)
        so_far = _template(row, field, tokenizer, said, add_generation_prompt=False)
        if not whole.startswith(so_far):
            raise InputError(
                f"{row.where}: {field}[{place}]: the policy's chat template renders this message differently once "
                "others follow, so that what the policy wrote cannot be told (accepted: a completion of one message)"
            )
        first = max(border, _common([ids, guard.ids(opening)]))
        turn = ids[first : _common([ids, guard.ids(so_far)])]
        if place + 1 < len(completion) and end is not None and end in turn:
            turn = _closed(turn, end)
        found[first - border : first - border + len(turn)] = [True] * len(turn)
    if not any(found):
        raise InputError(f"{row.where}: {field}: no message of an assistant (accepted: at least one)")
    return found


def _conversation(
    row: Row, field: str, tokenizer: PreTrainedTokenizerBase, prompt: list[dict[str, Any]], completion: Text
) -> str:
    if isinstance(completion, str):
        # The answer as text after a conversation: what the assistant says.
        completion = [{"role": "assistant", "content": completion}]
    return _template(row, field, tokenizer, [*prompt, *completion], add_generation_prompt=False)


def _template(
    row: Row,
    field: str,
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, Any]],
    *,
    add_generation_prompt: bool,
) -> str:
    if tokenizer.chat_template is None:
        raise InputError(f"{row.where}: {field}: messages, but the policy has no chat template (accepted: text)")
    others = row.for_template()
    try:
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **others
        )
    except Exception as error:  # a template raises what it likes: roles that do not alternate, say
        raise InputError(f"{row.where}: {field}: the policy's chat template refuses it ({error})") from None
    return str(rendered)


def _contents(*texts: Text) -> list[str]:
    """What is said in texts and conversations."""
    messages = [message for text in texts if not isinstance(text, str) for message in text]
    said = [message.get("content") for message in messages]
    return [one for one in (*texts, *said) if isinstance(one, str)]


def _guarded(guard: Guard, text: Any) -> Any:
    """A conversation, or what the assistant says after one, in which control tokens are text."""
    if isinstance(text, str):
        return guard.text(guard.without_end(text))
    return [
        message | {"content": guard.text(said if message["role"] != "assistant" else guard.without_end(said))}
        if isinstance(said := message.get("content"), str)
        else message
        for message in text
    ]


def _closed(answer: list[int], end: int | None) -> list[int]:
    """An answer up to its end of sequence: what a template writes after it, no policy ever samples."""
    if end is None or not answer:
        return answer
    if end not in answer:
        return [*answer, end]
    return answer[: len(answer) - answer[::-1].index(end)]


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """How many ids all sequences begin with alike."""
    count = 0
    for ids in zip(*sequences, strict=False):
        if len(set(ids)) > 1:
            break
        count += 1
    return count


def _without_nulls(value: Any) -> Any:
    """Objects without the fields that are null: a columnar file has each field in every row."""
    if isinstance(value, Mapping):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list | tuple) else value


def short(value: Any) -> str:
    """A value for a message: its beginning where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
