"""What the tests of rewards share: paths of the tiny model, and a run of one reward over them."""

from __future__ import annotations

from collections.abc import Sequence

from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Engine
from mcts_dpo.models.prompts import PromptSettings, prompt_tokens, split_steps
from mcts_dpo.rewards import Reward, RewardContext, RewardSettings, SolutionPath
from mcts_dpo.rewards.registry import make_rewards
from mcts_dpo.search.expansion import step_texts
from mcts_dpo.search.runner import run
from tests.reference.engine import EOS, TOKENIZER
from tests.search.support import PROMPT


def made(
    settings: RewardSettings, problem: Problem, prompt: PromptSettings = PROMPT, tokenizer: object = TOKENIZER
) -> Reward:
    """The reward of one problem."""
    (reward,) = make_rewards([settings], RewardContext(problem, tokenizer, prompt))  # type: ignore[arg-type]
    return reward


def path_of(problem: Problem, text: str, *, closed: bool = False, **fields: object) -> SolutionPath:
    """A path of the tiny model that says `text`. closed: an end-of-sequence token follows."""
    tokens = [*TOKENIZER(text)["input_ids"], *([EOS] if closed else [])]
    ends = split_steps(tokens, TOKENIZER, PROMPT)
    steps = tuple(step_texts((), tokens, ends, TOKENIZER))
    prompt = prompt_tokens(problem, TOKENIZER, PROMPT)
    return SolutionPath(prompt, tokens, text, steps, tuple(ends), closed=closed, **fields)  # type: ignore[arg-type]


def scored(reward: Reward, paths: Sequence[SolutionPath], engine: Engine) -> list[float]:
    """The reward's scores."""
    (found,) = run([reward.scores(paths)], engine)
    assert isinstance(found, list), found
    return found
