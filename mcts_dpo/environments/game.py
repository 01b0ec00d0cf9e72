"""Text games and other worlds with Gymnasium's methods `reset` and `step`: a step is an action.

The game's observation is the reply, and its reward the reply's. The solution ends with the game. A game is played from
its beginning for every path, or from a copy of the state before the step, if the game can be copied. It must repeat
itself when it is reset with the same seed.

Source: Towers et al. 2024, Gymnasium, arXiv 2407.17032, for the interface; Putta et al. 2024, Agent Q, arXiv
2408.07199, for the search over steps in an environment.
"""

from __future__ import annotations

import copy
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import Field

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.environments.base import Environment, EnvironmentSettings, Reply, Role, Turn
from mcts_dpo.environments.registry import register_environment

KEPT = 256
"""States of games that are kept for further steps."""


class GameSettings(EnvironmentSettings):
    """The policy plays a game: each step is an action.

    game:      its name as `gymnasium.make` takes it: "Name-v0", or "module:Name-v0", which imports the module first.
    arguments: of `gymnasium.make`.
    action:    a regular expression. Its first group (or all of it) is the action; a step without it is none.
    actions:   for games whose actions are numbers: their names in order. (): the action is a text.
    role:      where an observation stands (see `Reply`).
    won:       the answer of a game that ends with a reward above 0. A problem's answer is this text.
    lost:      the answer of any other game that has ended.
    """

    kind: Literal["game"] = "game"
    game: str = Field(min_length=1)
    arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)
    action: str = Field(default=r"(?m)^(.+)$", min_length=1)
    actions: tuple[str, ...] = ()
    role: Role = "inline"
    won: str = "won"
    lost: str = "lost"


class _Games:
    """Plays paths of actions, and keeps the latest states. A state is only ever copied, so threads may share it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._states: OrderedDict[tuple[str, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def play(self, problem: Problem, actions: Sequence[Any]) -> tuple[Any, float, bool]:
        """The observation and reward of the last action, and whether the game is over."""
        key = (problem.id, *map(repr, actions))
        game = self._state(key[:-1])
        if game is None:
            game = self._make()
            game.reset(seed=game_seed(problem))
            for action in actions[:-1]:
                game.step(action)
        observation, reward, terminated, truncated, _ = game.step(actions[-1])
        self._keep(key, game)
        return observation, float(reward), bool(terminated or truncated)

    def _state(self, key: tuple[str, ...]) -> Any | None:
        with self._lock:
            game = self._states.get(key)
            if game is not None:
                self._states.move_to_end(key)
        return None if game is None else copy.deepcopy(game)

    def _keep(self, key: tuple[str, ...], game: Any) -> None:
        try:
            kept = copy.deepcopy(game)
        except Exception:  # a game that cannot be copied is played from its beginning
            return
        with self._lock:
            self._states[key] = kept
            while len(self._states) > KEPT:
                self._states.popitem(last=False)


def game_seed(problem: Problem) -> int:
    """The seed of a problem's game: the number at the end of its id ("keys-17"), else one made of the id."""
    number = re.search(r"(\d{1,9})$", problem.id)
    return int(number[1]) if number else seed_from("game", problem.id) % 2**31


def _make(settings: GameSettings) -> Environment:
    try:
        import gymnasium
    except ImportError:
        raise InputError("search.environment: game needs the package gymnasium; install mcts-dpo[game]") from None
    try:
        find = re.compile(settings.action)
    except re.error as error:
        raise InputError(f"search.environment.action: {settings.action!r} is no regular expression ({error})") from None

    def start() -> Any:
        try:
            arguments: Any = settings.arguments
            return gymnasium.make(settings.game, disable_env_checker=True, **arguments)
        except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"search.environment.game: {settings.game!r} cannot be made ({reason[:200]})") from None

    start().close()
    games = _Games(start)
    names = {name: number for number, name in enumerate(settings.actions)}

    def action_of(step: str) -> str | None:
        found = find.search(step)
        return None if found is None else (found[1] if find.groups else found[0]).strip()

    def reply(problem: Problem, path: Sequence[Turn]) -> Reply | None:
        word = action_of(path[-1].step)
        if word is None:
            return None
        if names and word not in names:
            return Reply(f"error: no action {word!r} (there are: {', '.join(names)})\n", role=settings.role)
        words = [one for turn in path if (one := action_of(turn.step)) is not None]
        actions = [names[one] for one in words if one in names] if names else words
        observation, reward, over = games.play(problem, actions)
        worth = min(1.0, max(-1.0, reward))
        answer = (settings.won if reward > 0 else settings.lost) if over else None
        return Reply(f"{observation}\n", done=over, reward=worth, role=settings.role, answer=answer)

    return Environment(settings, reply, stops=("\n",))


register_environment(GameSettings, _make)
