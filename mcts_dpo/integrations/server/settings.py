"""The settings of the server, next to the sections of any stage."""

from __future__ import annotations

import ipaddress
from typing import Self

from pydantic import Field, field_validator, model_validator

from mcts_dpo.common.settings import Settings
from mcts_dpo.solve.registry import Chosen


class ServerSettings(Settings):
    """How `mcts-dpo serve` serves.

    strategy:    greedy, majority, best-of-n, weighted, beam, dvts, mcts.
    budget:      generated tokens per answer, unless a request sets its own; None, for greedy alone: `max_tokens`.
    max_budget:  the largest budget that a request may set; None: four times `budget`.
    max_work:    tokens at most for all answers to one request together (n × budget); None: 128 times `max_budget`.
    name:        of the model, as clients send it; None: the last part of the model's path.
    host, port:  the address to listen on; port 0 takes any free port. An address other than loopback needs a `key`.
    key:         what clients must send as "Authorization: Bearer KEY", printable ASCII; one line end after it is
                 dropped. None: no key; then requests must be sent to a loopback name, as application/json.
    concurrency: searches that run at a time (a request with n = 4 is four); None: twice the engine's slots. A quarter
                 more is reserved for light requests: n × budget up to four times `budget`.
    queue:       searches that may wait; further ones are answered with 429.
    grace:       seconds that running searches have to end in when the server stops.
    max_body_bytes: the longest body of a request; a longer one is answered with 413, before it is read.
    read_timeout: seconds within which a request's headers, and then its body, must arrive.
    """

    strategy: Chosen = "mcts"
    budget: int | None = Field(default=None, ge=1)
    max_budget: int | None = Field(default=None, ge=1)
    max_work: int | None = Field(default=None, ge=1)
    name: str | None = Field(default=None, min_length=1)
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    key: str | None = Field(default=None, min_length=1)
    concurrency: int | None = Field(default=None, ge=1)
    queue: int = Field(default=256, ge=0)
    grace: float = Field(default=30.0, ge=0.0)
    max_body_bytes: int = Field(default=4 << 20, ge=1024)
    read_timeout: float = Field(default=30.0, gt=0.0)

    @field_validator("key")
    @classmethod
    def _without_line_end(cls, key: str | None) -> str | None:
        return key and key.removesuffix("\n").removesuffix("\r")

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.strategy != "greedy" and self.budget is None:
            raise ValueError(f"strategy {self.strategy!r} needs a budget of generated tokens, e.g. --budget 512")
        if self.key is None and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} can be reached from other machines and needs a key: --key KEY, or MCTS_DPO_KEY "
                "(accepted without: 127.0.0.1, ::1, localhost)"
            )
        key = self.key
        if key is not None and not (key and key.isascii() and key.isprintable() and key == key.strip()):
            # The message does not show it: it may be the right key but for one character.
            raise ValueError("key: not usable in a header (accepted: printable ASCII, no blank at either end)")
        if self.max_budget is not None and self.max_budget < (self.budget or 1):
            raise ValueError(f"max_budget {self.max_budget} is below the budget {self.budget}")
        if self.max_work is not None and self.max_work < (self.budget or 1):
            raise ValueError(f"max_work {self.max_work} is below the budget {self.budget}")
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`. Names other than localhost count as reachable."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
