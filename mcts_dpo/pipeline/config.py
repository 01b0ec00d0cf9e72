"""The settings of a whole run in one class: those of every stage, and those of the rounds."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, field_validator, model_validator

from mcts_dpo.common.settings import Settings
from mcts_dpo.data import ProblemSettings
from mcts_dpo.engines import EngineSettings
from mcts_dpo.engines.registry import engine_kind
from mcts_dpo.engines.shaping import refuse_shape
from mcts_dpo.evaluation import EvaluationSettings
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.pipeline.judges import JudgeEntry
from mcts_dpo.preferences import PreferenceSettings
from mcts_dpo.search import SearchSettings
from mcts_dpo.training import LaunchSettings, TrainingSettings


class StageConfig(Settings):
    """The settings of the stages, each under the name of its package. A stage that runs alone needs only these."""

    prompt: PromptSettings = PromptSettings()
    engine: EngineSettings = EngineSettings()
    search: SearchSettings = SearchSettings()
    preferences: PreferenceSettings = PreferenceSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _engine_has(self) -> Self:
        refuse_shape(self.search, engine_kind(self.engine.kind).sampling, self.engine.kind)
        return self


class RunConfig(StageConfig):
    """Settings of a self-training run.

    model:               the starting policy: a hub name, a Hugging Face directory, or a `.gguf` file.
    train, test:         the problem sets. They must share no question; this is checked.
    rounds:              how often search and training alternate, ≥ 1.
    problems_per_round:  fresh training problems searched in each round; all rounds' slices are disjoint.
    shard_size:          problems per search shard. A resumed run does not repeat a finished shard.
    development:         problems held back from the end of the training set; greedy accuracy on them is
                         measured before and after each round, and a round that lowers it beyond noise
                         (exact McNemar p < 0.05) is rolled back. 0: no guard.
    replay:              number of earlier rounds whose data the policy's training also reads; 0: only the round's own.
    judges:              which judges every round trains on its own trees; they judge in the next round's search.
    launch:              which processes do the trainings: the run's own, or several under torchrun. It may change when
                         a run is continued; the policy is then the same up to rounding.
    baseline:            also evaluate the starting policy. Every claim of a gain needs it.
    seed:                the seed of everything random. The same seed on the same machine gives the same bytes.
    """

    model: str
    train: ProblemSettings
    test: ProblemSettings
    rounds: int = Field(1, ge=1)
    problems_per_round: int = Field(64, ge=1)
    shard_size: int = Field(32, ge=1)
    development: int = Field(0, ge=0)
    replay: int = Field(0, ge=0)
    judges: tuple[JudgeEntry, ...] = ()
    launch: LaunchSettings = LaunchSettings()
    baseline: bool = True
    seed: int = Field(0, ge=0)

    moved: ClassVar[dict[str, str]] = {"value": "judges (a list, with an entry {kind: value, …})"}

    @field_validator("judges")
    @classmethod
    def _one_of_a_kind(cls, judges: tuple[JudgeEntry, ...]) -> tuple[JudgeEntry, ...]:
        kinds = [judge.kind for judge in judges]
        twice = next((kind for kind in kinds if kinds.count(kind) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is given twice; accepted: each kind once")
        return judges

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        # Each stage derives its seed from the run's seed, so a seed of its own would silently do nothing.
        seeds = {section: getattr(self, section).seed for section in ("search", "training", "evaluation")}
        trainings = {judge.kind: getattr(judge, "training", None) for judge in self.judges}
        seeds |= {f"judges.{kind}.training": training.seed for kind, training in trainings.items() if training}
        for section, seed in seeds.items():
            if seed != 0:
                raise ValueError(
                    f"{section}.seed: set the run's own `seed` instead; every stage derives its seed from it"
                )
        return self
