"""Answers in OpenAI's shapes: whole answers, chunks of a stream, and usage.

`usage.total_tokens` counts the prompt and every token that the search generated; `completion_tokens` counts the
returned texts alone; `completion_tokens_details` has the rest.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mcts_dpo.integrations.engine_thread import Solved
from mcts_dpo.integrations.stop_strings import certain
from mcts_dpo.models.prompts import Thoughts
from mcts_dpo.solve.solution import split_text


@dataclass(slots=True)
class Answer:
    """One request's answer as it grows.

    chat: a chat, or else a plain completion. repeats: answers to each prompt (`n`). done: finished choices by index.
    streamed: by choice, the characters of its text that were streamed; `reasoned`: those of its thought. thoughts: the
    policy's. A chat gets the thought of a solution as `reasoning_content`; a plain completion has it in its text.
    """

    model: str
    chat: bool
    fingerprint: str
    repeats: int = 1
    id: str = ""
    created: int = 0
    done: dict[int, Solved] = field(default_factory=dict)
    streamed: dict[int, int] = field(default_factory=dict)
    reasoned: dict[int, int] = field(default_factory=dict)
    thoughts: Thoughts | None = None

    def __post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}"
        self.created = int(time.time())

    def whole(self) -> dict[str, Any]:
        """The answer to a request without `stream`, once all choices are done."""
        choices = []
        for index, solved in sorted(self.done.items()):
            said: dict[str, Any] = {"index": index, "finish_reason": _finish(solved), "logprobs": None}
            if self.chat:
                thought, content = self._parted(solved.text)
                said["message"] = {"role": "assistant", "content": content, "refusal": None}
                if thought:
                    said["message"]["reasoning_content"] = thought
            else:
                said["text"] = solved.text
            choices.append(said)
        return self._body("chat.completion" if self.chat else "text_completion", choices, self.usage())

    def opening(self, choices: int) -> list[dict[str, Any]]:
        """The first chunks of a chat's stream."""
        if not self.chat:
            return []
        return [self._chunk(index, {"role": "assistant", "content": ""}) for index in range(choices)]

    def decided(self, index: int, steps: Sequence[str], stops: Sequence[str], step_end: str) -> list[dict[str, Any]]:
        """Chunks for the part of a choice that is certain: the decided steps, cut at stop strings."""
        text = "".join(steps)
        start = 0 if self.thoughts is None else self.thoughts.answer_start(text)
        return self._grow(index, certain(text, stops, start), step_end)

    def ended(self, solved: Solved, step_end: str) -> list[dict[str, Any]]:
        """Chunks for the rest of a choice and for its end."""
        self.done[solved.index] = solved
        rest = self._grow(solved.index, solved.text, step_end)
        return [*rest, self._chunk(solved.index, {}, _finish(solved))]

    def closing(self) -> dict[str, Any]:
        """The chunk with the usage, for requests that ask for it."""
        return self._body("chat.completion.chunk" if self.chat else "text_completion", [], self.usage())

    def usage(self) -> dict[str, Any]:
        """Tokens of all choices together; a prompt counts once, whatever its number of answers."""
        done = self.done.values()
        prompt = sum(solved.solution.prompt_tokens for solved in done if solved.index % self.repeats == 0)
        returned = sum(solved.tokens for solved in done)
        spent = sum(solved.solution.tokens for solved in done)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": returned,
            "total_tokens": prompt + spent,
            "completion_tokens_details": {
                "reasoning_tokens": max(0, spent - returned),
                "search_tokens": spent,
                "expansions": sum(solved.solution.expansions for solved in done),
            },
        }

    def _grow(self, index: int, text: str, step_end: str) -> list[dict[str, Any]]:
        thought, content = self._parted(text)
        chunks = []
        for name, sent, part in (("reasoning_content", self.reasoned, thought), ("content", self.streamed, content)):
            fresh = part[sent.get(index, 0) :]
            sent[index] = max(len(part), sent.get(index, 0))
            chunks += [self._chunk(index, {name: piece}) for piece in split_text(fresh, step_end)]
        return chunks

    def _parted(self, text: str) -> tuple[str, str]:
        """The thought and the answer of a text; all is answer in a plain completion."""
        return self.thoughts.parted(text) if self.chat and self.thoughts is not None else ("", text)

    def _chunk(self, index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        said: dict[str, Any] = {"index": index, "finish_reason": finish, "logprobs": None}
        if self.chat:
            return self._body("chat.completion.chunk", [said | {"delta": delta}])
        return self._body("text_completion", [said | {"text": delta.get("content", "")}])

    def _body(self, kind: str, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> dict[str, Any]:
        body = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }
        return body if usage is None else body | {"usage": usage}


def _finish(solved: Solved) -> str:
    """ "length" if a limit cut the text and no stop string comes before the cut, else "stop"."""
    return "length" if solved.solution.cut and solved.text == solved.solution.text else "stop"
