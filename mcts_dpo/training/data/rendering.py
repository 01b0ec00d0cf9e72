"""A row of TRL-style data as token ids: rendered once, whole, and divided where the policy starts to write.

In: text or messages, a tokenizer with its chat template. Out: the prompt's ids, each completion's ids, and which
of these the environment wrote: in a completion of several messages, everything between the assistant's messages (a
user's next turn, a tool's answer, the headers of turns) is read and never learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.encoding import Guard, SpecialTokens
from mcts_dpo.models.endings import Endings, endings
from mcts_dpo.models.templates import render_chat
from mcts_dpo.training.data.fields import Row, Text
from mcts_dpo.training.data.toolcalls import Messages, require_tool_calls

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of a prompt and of its completions.

    environment: of each completion, the indices in it of environment tokens: the policy reads them and did not write
    them.
    texts:    of the prompt and of each completion.
    """

    prompt: list[int]
    completions: tuple[list[int], ...]
    environment: tuple[list[int], ...]
    texts: tuple[str, ...]


def render(
    row: Row,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Text,
    completions: Mapping[str, Text],
    append_eos: bool,
    special: SpecialTokens = "split",
    ends: Endings | None = None,
) -> Rendered:
    """A prompt and its completions by field, as token ids.

    append_eos: whether a completion ends the answer, once (`endings`). special: of control tokens in messages; a text
    without messages has no template, so that its control tokens are its own. ends: of the tokenizer, where they are
    known already.

    Raises InputError naming the row and the field, also for a tool call that the chat template does not write.
    """
    ends = ends or endings(tokenizer)
    if isinstance(prompt, str):
        found = _of_text(row, tokenizer, ends, prompt, completions, append_eos)
    else:
        found = _of_messages(row, tokenizer, ends, prompt, completions, append_eos, special)
    start, answers, environment = found
    for field, answer in zip(completions, answers, strict=True):
        if not answer:
            raise InputError(f"{row.where}: {field}: renders to no token after the prompt (accepted: an answer)")
    shown = tuple(str(tokenizer.decode(part)) for part in (start, *answers))
    return Rendered(start, tuple(answers), tuple(environment), shown)


Parts = tuple[list[int], list[list[int]], list[list[int]]]
"""Ids of the prompt, of each completion, and of each completion the indices of environment tokens."""


def _of_text(
    row: Row,
    tokenizer: PreTrainedTokenizerBase,
    ends: Endings,
    prompt: str,
    completions: Mapping[str, Text],
    append_eos: bool,
) -> Parts:
    for field, completion in completions.items():
        if not isinstance(completion, str):
            raise InputError(f"{row.where}: {field}: messages after a prompt that is text (accepted: text)")
    ids = [list(tokenizer(prompt + str(completion))["input_ids"]) for completion in completions.values()]
    start = list(tokenizer(prompt)["input_ids"])
    border = _border(row, start, ids)
    end = ends.after(prompt, start) if append_eos else None
    return ids[0][:border], [ends.closed(one[border:], end) for one in ids], [[] for _ in ids]


def _of_messages(
    row: Row,
    tokenizer: PreTrainedTokenizerBase,
    ends: Endings,
    prompt: Messages,
    completions: Mapping[str, Text],
    append_eos: bool,
    special: SpecialTokens,
) -> Parts:
    for field, completion in completions.items():
        templated = partial(_template, row, field, tokenizer)
        require_tool_calls(f"{row.where}: {field}", [*prompt, *_as_messages(completion)], templated)
    guard = Guard(tokenizer, _contents(prompt, *completions.values()), special)
    prompt = _guarded(guard, prompt)
    said = {field: _as_messages(_guarded(guard, completion)) for field, completion in completions.items()}
    ids = [list(guard.ids(_template(row, field, tokenizer, [*prompt, *one]))) for field, one in said.items()]
    start = list(guard.ids(_template(row, "prompt", tokenizer, prompt, opened=True)))
    border = _border(row, start, ids)
    end = ends.after(None, start) if append_eos else None
    answers, environment = [], []
    for (field, messages), one in zip(said.items(), ids, strict=True):
        mask = _written(row, field, tokenizer, guard, prompt, messages, one, border, ends if append_eos else None)
        answer = ends.closed(one[border:], end) if messages[-1]["role"] == "assistant" else one[border:]
        answers.append(answer)
        # A token that closing added is the policy's own.
        environment.append([index for index, own in enumerate(mask[: len(answer)]) if not own])
    return ids[0][:border], answers, environment


def _border(row: Row, start: list[int], ids: list[list[int]]) -> int:
    """The index at which the completions begin. A token that spans the border belongs to the completion."""
    border = _common([start, *ids])
    if border == 0:
        raise InputError(f"{row.where}: prompt: renders to no token that its completions begin with")
    return border


def _as_messages(completion: Text) -> Messages:
    """A completion as messages: text after a conversation is a message of the assistant."""
    return [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion


def _written(
    row: Row,
    field: str,
    tokenizer: PreTrainedTokenizerBase,
    guard: Guard,
    prompt: Messages,
    completion: Messages,
    ids: list[int],
    border: int,
    ends: Endings | None,
) -> list[bool]:
    """For each of `ids` from `border`, whether the assistant says it.

    ends: None keeps the separators that the template writes after a turn."""
    if [message["role"] for message in completion] == ["assistant"]:
        return [True] * (len(ids) - border)
    found = [False] * (len(ids) - border)
    whole = _template(row, field, tokenizer, [*prompt, *completion])
    for index, message in enumerate(completion):
        if message["role"] != "assistant":
            continue
        before, said = [*prompt, *completion[:index]], [*prompt, *completion[: index + 1]]
        opening = _template(row, field, tokenizer, before, opened=True)
        so_far = _template(row, field, tokenizer, said)
        if not whole.startswith(so_far):
            raise InputError(
                f"{row.where}: {field}[{index}]: the policy's chat template renders this message differently once "
                "others follow, so that what the policy wrote cannot be told (accepted: a completion of one message)"
            )
        first = max(border, _common([ids, guard.ids(opening)]))
        turn = ids[first : _common([ids, guard.ids(so_far)])]
        if index + 1 < len(completion) and ends is not None:
            turn = ends.cut(turn)
        found[first - border : first - border + len(turn)] = [True] * len(turn)
    if not any(found):
        raise InputError(f"{row.where}: {field}: no message of an assistant (accepted: at least one)")
    return found


def _template(
    row: Row,
    field: str,
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages,
    *,
    opened: bool = False,
) -> str:
    """The conversation as the chat template writes it. opened: up to the start of the assistant's turn."""
    if tokenizer.chat_template is None:
        raise InputError(f"{row.where}: {field}: messages, but the policy has no chat template (accepted: text)")
    others = row.for_template()
    try:
        return render_chat(tokenizer, messages, add_generation_prompt=opened, **others)
    except Exception as error:  # a template raises what it likes: roles that do not alternate, say
        raise InputError(f"{row.where}: {field}: the policy's chat template refuses it ({_line(error)})") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def tools_left_out(row: Row, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a row has tools that the policy's chat template leaves out."""
    if not row.for_template().get("tools") or tokenizer.chat_template is None:
        return False
    asked = [{"role": "user", "content": "a"}]
    without = Row({**row.values, "tools": None}, row.where)
    return _template(row, "tools", tokenizer, asked) == _template(without, "tools", tokenizer, asked)


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


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """The number of ids in the common beginning of all sequences."""
    count = 0
    for ids in zip(*sequences, strict=False):
        if len(set(ids)) > 1:
            break
        count += 1
    return count
