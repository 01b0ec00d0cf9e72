"""The whole run in one file: every room's settings, composed. Knows what can be set, not how anything runs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from mcts_dpo.common.settings import Settings
from mcts_dpo.data import ProblemSettings
from mcts_dpo.engines import EngineSettings
from mcts_dpo.evaluation import EvaluationSettings
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.preferences import PreferenceSettings
from mcts_dpo.search import SearchSettings
from mcts_dpo.training import LaunchSettings, OptimiserSettings, TrainingSettings


class StageConfig(Settings):
    """The settings of the single stages, each under its room's name: what a stage run alone needs."""

    prompt: PromptSettings = PromptSettings()
    engine: EngineSettings = EngineSettings()
    search: SearchSettings = SearchSettings()
    preferences: PreferenceSettings = PreferenceSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()


class ValueStageSettings(Settings):
    """A value model, trained anew in every round on the round's trees, that judges in the next round's search (and
    whenever `search.value_model.path` names it).

    weight, at: as in `search.value_model`. training: of the value model; its `seed` is the run's.
    """

    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    at: Literal["terminal", "all"] = "terminal"
    training: TrainingSettings = TrainingSettings(optimiser=OptimiserSettings(lr=1e-2))


class RunConfig(StageConfig):
    """Settings of a self-training run.

    model:               the starting policy: a hub name, a Hugging Face directory, or a `.gguf` file.
    train, test:         where problems come from; the two must share no question (checked).
    rounds:              how often search and training alternate, ≥ 1.
    problems_per_round:  fresh training problems searched in each round; all rounds' slices are disjoint.
    shard_size:          problems per search shard, the unit that a resumed run does not repeat.
    development:         problems held back from the end of the training set; greedy accuracy on them is
                         measured before and after each round, and a round that lowers it beyond noise
                         (exact McNemar p < 0.05) is rolled back. 0: no guard.
    replay:              earlier rounds whose data every training reads beside its own; 0: the round's own only.
    value:               train a value model in every round and let it judge in the next; null: none.
    launch:              which processes do the trainings: the run's own, or several under torchrun. It may differ when
                         a run goes on (the policy is the same to rounding).
    baseline:            evaluate the starting policy too (needed for any claim of a gain).
    seed:                of everything random; the same seed on the same machine gives the same bytes.
    """

    model: str
    train: ProblemSettings
    test: ProblemSettings
    rounds: int = Field(1, ge=1)
    problems_per_round: int = Field(64, ge=1)
    shard_size: int = Field(32, ge=1)
    development: int = Field(0, ge=0)
    replay: int = Field(0, ge=0)
    value: ValueStageSettings | None = None
    launch: LaunchSettings = LaunchSettings()
    baseline: bool = True
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        # Each stage derives its seed from the run's: a second dial beside it would silently do nothing.
        seeds = {section: getattr(self, section).seed for section in ("search", "training", "evaluation")}
        seeds["value.training"] = self.value.training.seed if self.value else 0
        for section, seed in seeds.items():
            if seed != 0:
                raise ValueError(
                    f"{section}.seed: set the run's own `seed` instead; every stage derives its seed from it"
                )
        return self
