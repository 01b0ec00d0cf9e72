"""A judge on a vLLM server: `vllm serve MODEL --runner pooling`, asked by `POST /pooling` with task `token_classify`.

In: encoded paths. Out: scores, or None where the server gave no usable answer, which is never a score of 0. Prompts
are sent as token ids. The server returns one row per token, or (STEP pooling) one per tag; both are read. It is asked
for outputs without an activation (`use_activation: false`); rows that are probabilities already are taken as such.
"""

from __future__ import annotations

import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from mcts_dpo.rewards.process.layouts import Encoded

_log = logging.getLogger(__name__)

AT_ONCE = 32
"""Paths in one HTTP request at most."""
TRIES = 2


@dataclass(frozen=True, slots=True)
class PoolingReader:
    """A `Reader` that asks a server.

    url:       of the server, without `/pooling`. timeout: seconds for one answer.
    outputs:   numbers in a row. to_scores: [n, outputs] logits → [n] scores.
    tag:       the token at the places, for servers that return a row per tag; None if places have no tag.
    """

    url: str
    timeout: float
    outputs: int
    to_scores: Callable[[Tensor], Tensor]
    tag: int | None = None

    def scores(self, paths: Sequence[Encoded]) -> list[list[float] | None]:
        """See `Reader`."""
        found: list[list[float] | None] = []
        for start in range(0, len(paths), AT_ONCE):
            found += self._ask(paths[start : start + AT_ONCE])
        return found

    def _ask(self, paths: Sequence[Encoded]) -> list[list[float] | None]:
        body = {"input": [list(one.ids) for one in paths], "task": "token_classify", "use_activation": False}
        try:
            answer = _post(f"{self.url.rstrip('/')}/pooling", body, self.timeout)
            rows = {int(one["index"]): one["data"] for one in answer["data"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            _warn_once(self.url, f"{type(error).__name__}: {error}")
            return [None] * len(paths)
        return [self._read(path, rows.get(index)) for index, path in enumerate(paths)]

    def _read(self, path: Encoded, rows: Any) -> list[float] | None:
        """The scores of one path from its rows; None if they are not what was asked for."""
        try:
            table = torch.tensor(rows, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            table = torch.empty(0)
        places = self._rows_of(path, len(table)) if table.shape[1:] == (self.outputs,) else None
        if places is None or not table.isfinite().all():
            rows_are = f"rows of {self.outputs} numbers, one per token" + ("" if self.tag is None else " or per tag")
            _warn_once(self.url, f"its answers are not as expected (accepted: {rows_are})")
            return None
        # log p has the softmax p: what follows can treat probabilities as logits.
        logits = table.log() if self.outputs > 1 and _are_probabilities(table) else table
        scores: list[float] = self.to_scores(logits[places]).tolist()
        return scores

    def _rows_of(self, path: Encoded, count: int) -> list[int] | None:
        """The index of each place's row, if the server returned `count` rows."""
        if count == len(path.ids):
            return list(path.places)
        tags = [index for index, token in enumerate(path.ids) if token == self.tag]
        if count == len(tags) and set(path.places) <= set(tags):
            return [tags.index(place) for place in path.places]
        return None


@lru_cache(maxsize=256)
def _warn_once(url: str, reason: str) -> None:
    _log.warning("%s/pooling: no scores: %s", url, reason)


def _are_probabilities(table: Tensor) -> bool:
    return bool((table >= 0).all()) and bool((table.sum(-1) - 1).abs().max() < 1e-3)


def _post(url: str, body: dict[str, Any], timeout: float) -> Any:
    """The JSON that a server answers. Raises OSError (a connection, a time-out, a status) or ValueError (no JSON)."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    for left in reversed(range(TRIES)):
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code < 500 or not left:
                raise OSError(f"status {error.code}: {error.read(200).decode(errors='replace')}") from None
        except OSError:
            if not left:
                raise
    raise AssertionError("unreachable")
