"""An LLM as a judge of the steps so far, by a rubric: the policy, another model in this process, or a chat API.

`rubric` writes what the judge reads, `asking` asks it, `verdicts` reads what it says.

Source: Zheng et al. 2023, arXiv 2306.05685.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mcts_dpo.engines.settings import EngineSettings
from mcts_dpo.rewards.base import Reward, RewardContext, RewardSettings
from mcts_dpo.rewards.judge.asking import ask_api, ask_engine, ask_policy
from mcts_dpo.rewards.judge.rubric import RUBRIC, Form
from mcts_dpo.rewards.registry import register_reward


class JudgeSettings(RewardSettings):
    """An LLM's verdict on the solution so far, in [0, 1]: the policy's own, another model's, or that of a chat API.

    A score costs as many tokens as the judge may write. An answer that cannot be read, or does not come in time, is an
    unknown score (nan). The tree counts it, and the search continues.

    rubric: what the judge reads. {question}, {steps}, {step} stand for the question, the solution so far, and its last
            step; {reply} for what `verdict` and `think` ask for.
    verdict: "words": one of two words. The score is P(good) / (P(good) + P(bad)); if an API gives no log-probabilities,
             1 or 0. "grade": a number from 0 to 10, over 10.
    words: the good word and the bad one.
    think: tokens that the judge may write before its verdict.
    temperature: of what the judge writes.
    url: of a chat API that speaks OpenAI's protocol, up to and including the version ("http://localhost:8000/v1").
         None: `model` judges in this process; without a model, the policy, over the search's engine.
    model: the model's name there; without `url`, a model of its own in this process: a directory or a hub name.
    engine: of a model in this process, as the group `engine` has it.
    api_key_env: the environment variable with the API's key, if it needs one.
    timeout: seconds for one answer of the API.
    concurrency: requests to the API at a time.
    """

    kind: Literal["judge"] = "judge"
    rubric: str = RUBRIC
    verdict: Form = "words"
    words: tuple[str, str] = ("Yes", "No")
    think: int = Field(default=0, ge=0)
    temperature: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    url: str | None = Field(default=None, pattern="^https?://")
    model: str | None = None
    engine: EngineSettings = EngineSettings()
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    concurrency: int = Field(default=8, ge=1)

    @field_validator("rubric")
    @classmethod
    def _shows_steps(cls, rubric: str) -> str:
        if "{steps}" not in rubric and "{step}" not in rubric:
            raise ValueError("contains neither '{steps}' nor '{step}', the places of the solution so far")
        return rubric

    @field_validator("words")
    @classmethod
    def _differ(cls, words: tuple[str, str]) -> tuple[str, str]:
        if not all(word.strip() for word in words) or words[0].casefold() == words[1].casefold():
            raise ValueError("are not two words; accepted: a good word and a bad one, such as [Yes, No]")
        return words

    @model_validator(mode="after")
    def _complete(self) -> JudgeSettings:
        if self.url is not None and self.model is None:
            raise ValueError("url: without model; accepted: both (an API judges), or a model alone (in this process)")
        return self

    def __hash__(self) -> int:
        """Of the values as text: `engine` holds a mapping."""
        return hash(self.model_dump_json())

    def files(self) -> list[Path]:
        """The directory of a model in this process, where it is one."""
        path = Path(self.model or "").expanduser()
        return [path] if self.model and self.url is None and path.is_dir() else []


def _make(settings: JudgeSettings, context: RewardContext) -> Reward:
    if settings.url is not None:
        return ask_api(settings, context)
    return ask_policy(settings, context) if settings.model is None else ask_engine(settings, context)


register_reward(JudgeSettings, _make)
