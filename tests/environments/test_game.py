"""Games as environments: what a path of actions comes to does not depend on what was played before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.data import Problem
from mcts_dpo.environments import Reply, Turn, environment_of
from mcts_dpo.environments.game import GameSettings, game_seed
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.search import SearchSettings, search_problems
from tests.models.test_prompts import CHATML, byte_level, ids
from tests.reference.scripted import ScriptedEngine

pytest.importorskip("gymnasium")

from mcts_dpo.toy.rooms import ACTIONS, NAME, WON, Rooms, rooms_problems

PROBLEMS = rooms_problems(3, seed=1)
SETTINGS = GameSettings(game=NAME)


def played(problem: Problem, actions: list[str], settings: GameSettings = SETTINGS) -> list[Reply]:
    """The replies along a path, as a search hears them."""
    environment = environment_of(settings)
    assert environment is not None
    turns: list[Turn] = []
    replies = []
    for action in actions:
        reply = environment.reply(problem, [*turns, Turn(f"{action}\n")])
        assert reply is not None
        replies.append(reply)
        turns.append(Turn(f"{action}\n", reply.text))
        if reply.done:
            break
    return replies


def reference(problem: Problem, actions: list[str]) -> list[tuple[str, float, bool]]:
    """The same by a game of its own."""
    game = Rooms()
    game.reset(seed=game_seed(problem))
    found = []
    for action in actions:
        text, reward, over, cut, _ = game.step(action)
        found.append((f"{text}\n", reward, over or cut))
        if over or cut:
            break
    return found


@hypothesis_settings(max_examples=40)
@given(st.sampled_from(PROBLEMS), st.lists(st.sampled_from([*ACTIONS, "wait"]), min_size=1, max_size=14))
def test_every_path_is_a_game_of_its_own(problem: Problem, actions: list[str]) -> None:
    found = [(reply.text, reply.reward, reply.done) for reply in played(problem, actions)]
    assert found == reference(problem, actions)


def way_out(problem: Problem) -> list[str]:
    """A shortest way, by trying all ways."""
    ways: list[list[str]] = [[]]
    while True:
        ways = [[*way, action] for way in ways for action in ACTIONS]
        for way in ways:
            if reference(problem, way)[-1][1] > 0:
                return way


def test_a_search_plays_and_knows_who_won() -> None:
    tokenizer = byte_level(CHATML)
    problem = PROBLEMS[0]
    way = way_out(problem)
    assert len(way) >= 3
    policy = ScriptedEngine(tokenizer, {problem.question: []})
    for actions in (way, ["left"] * 12):
        script: tuple[int, ...] = ()
        for action, (observation, _, _) in zip(actions, reference(problem, actions), strict=True):
            script += (*ids(tokenizer, f"{action}\n"), *ids(tokenizer, observation))
        policy._scripts[problem.question].append(script)
    settings = SearchSettings.model_validate(
        {
            "environment": {"kind": "game", "game": NAME},
            "expand": "step",
            "simulations": 40,
            "children": 2,
            "rewards": ["outcome", "environment"],
            "max_depth": 20,
            "max_tokens": 900,
        }
    )
    forest = search_problems([problem], policy, prompt=PromptSettings(), settings=settings)
    ends = [node for node in range(len(forest)) if forest.terminal[node]]
    assert sorted((forest.answers[node], int(forest.outcome[node])) for node in ends) == [("lost", -1), (WON, 1)]
    won = next(node for node in ends if forest.answers[node] == WON)
    assert forest.replies[won] == "the door opens\n"
    assert forest.scores["environment"][won] == 1.0
    assert forest.trees[0].generated == policy.usage.sampled_tokens


def test_actions_may_be_numbers_and_may_stand_in_a_sentence() -> None:
    settings = GameSettings(
        game="CliffWalking-v1", action=r"I go (\w+)", actions=("up", "right", "down", "left"), role="user"
    )
    problem = Problem("cliff", "?", "won")
    up, right = played(problem, ["So I go up.", "I go right now"], settings)
    assert (up.text, up.reward, up.role) == ("24\n", -1.0, "user")
    assert right.text == "25\n"
    (nowhere,) = played(problem, ["I go back"], settings)
    assert nowhere.text == "error: no action 'back' (there are: up, right, down, left)\n"
    environment = environment_of(settings)
    assert environment is not None
    assert environment.reply(problem, [Turn("I wait")]) is None


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"game": "Nothing-v0"}, r"search.environment.game: 'Nothing-v0' cannot be made"),
        ({"game": "no_such_module:Nothing-v0"}, r"'no_such_module:Nothing-v0' cannot be made"),
        ({"game": NAME, "arguments": {"doors": 3}}, r"cannot be made \(.*doors"),
        ({"game": NAME, "action": "("}, r"search.environment.action: '\(' is no regular expression"),
    ],
)
def test_a_game_that_cannot_be_made_is_named(given_: dict[str, Any], told: str) -> None:
    entry = load_settings(SearchSettings, {"environment": {"kind": "game"} | given_}).environment
    with pytest.raises(InputError, match=told):
        environment_of(entry)
