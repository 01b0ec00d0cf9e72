"""A built-in text world for `environments.game`: rooms in a row, a key in one of them, a locked door in another.

In: a seed. Out: a Gymnasium game whose observations and actions are texts, and problems that ask for playing it.
"""

from __future__ import annotations

import random
from typing import Any

import gymnasium
from gymnasium.spaces import Text

from mcts_dpo.data import Problem

NAME = "mcts_dpo.toy.rooms:Rooms-v0"
ACTIONS = ("left", "right", "take", "open")
WON = "won"


class Rooms(gymnasium.Env[str, str]):
    """Find the key, take it, find the door, open it.

    rooms: their number, ≥ 2. limit: actions, after which the game is lost.
    """

    def __init__(self, rooms: int = 4, limit: int = 12) -> None:
        self.action_space, self.observation_space = Text(16), Text(200)
        self.rooms, self.limit = rooms, limit
        self.room = self.key = self.door = self.used = 0
        self.has_key = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin a game. The seed chooses the rooms of the player, the key and the door."""
        chosen = random.Random(seed)
        self.room = chosen.randrange(self.rooms)
        self.key, self.door = chosen.sample(range(self.rooms), 2)
        self.has_key, self.used = False, 0
        return self._seen(), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Act. An action that does nothing here is used up all the same."""
        self.used += 1
        if action == "open" and self.room == self.door and self.has_key:
            return "the door opens", 1.0, True, False, {}
        if action in ("left", "right"):
            self.room = min(self.rooms - 1, max(0, self.room + (1 if action == "right" else -1)))
        if action == "take" and self.room == self.key:
            self.has_key = True
        return self._seen(), 0.0, False, self.used >= self.limit, {}

    def _seen(self) -> str:
        here = [
            "key" if self.room == self.key and not self.has_key else "",
            "door" if self.room == self.door else "",
        ]
        return f"room {self.room + 1} of {self.rooms}: {' and '.join(filter(None, here)) or 'empty'}"


def rooms_problems(count: int, seed: int, rooms: int = 4) -> list[Problem]:
    """Games as problems. The question is the first observation, and the answer is WON."""
    game = Rooms(rooms)
    numbers = random.Random(seed).sample(range(10**9), count)
    return [Problem(f"rooms-{number}", game.reset(seed=number)[0], WON) for number in numbers]


gymnasium.register(NAME.partition(":")[2], entry_point=f"{__name__}:Rooms")
