"""The judges of a run: what each round trains on its own trees to tell good steps from bad ones in the next round.

In: a run's `judges`. Out: for each, what is trained and where, and the reward of the next round's search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from mcts_dpo.common.kinds import Kinds
from mcts_dpo.common.settings import Settings
from mcts_dpo.rewards.base import RewardSettings
from mcts_dpo.rewards.registry import reward_kind, with_entry
from mcts_dpo.training import OptimiserSettings, TrainingSettings


class JudgeSettings(Settings):
    """What every judge of a run has.

    kind:   the judge's name.
    weight: of its reward in the next round's search.
    at:     "terminal": it scores whole solutions only; "all": every new step.
    """

    kind: str
    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    at: Literal["terminal", "all"] = "all"


def _own_lr(lr: float) -> Any:
    """A validator of `training`: a mapping that sets no `optimiser.lr` gets this one."""

    def filled(value: Any) -> Any:
        given = value.get("optimiser", {}) if isinstance(value, Mapping) else None
        return {**value, "optimiser": {"lr": lr, **given}} if isinstance(given, Mapping) else value

    return BeforeValidator(filled)


class ValueJudge(JudgeSettings):
    """A value model on the round's policy, from the round's lists of siblings: the reward `value_model`.

    training: of the value model; its `optimiser.lr` is 1e-2 unless set, its `seed` the run's.
    """

    kind: Literal["value"] = "value"
    at: Literal["terminal", "all"] = "terminal"
    training: Annotated[TrainingSettings, _own_lr(1e-2)] = TrainingSettings(optimiser=OptimiserSettings(lr=1e-2))


class ProcessJudge(JudgeSettings):
    """A process reward model on the round's policy, from the round's labelled steps: the reward `process`.

    training: of the process reward model; its `optimiser.lr` is 1e-5 unless set, its `seed` the run's.
    """

    kind: Literal["process"] = "process"
    training: Annotated[TrainingSettings, _own_lr(1e-5)] = TrainingSettings(optimiser=OptimiserSettings(lr=1e-5))


class SelfEvaluationJudge(JudgeSettings):
    """The policy itself, which each training also teaches to judge its steps: the reward `self_evaluation`.

    The questions are made from the round's labelled steps. `training.self_evaluation` says which, and their share.
    """

    kind: Literal["self_evaluation"] = "self_evaluation"


_CLASSES: dict[str, type[JudgeSettings]] = {
    str(one.model_fields["kind"].default): one for one in (ValueJudge, ProcessJudge, SelfEvaluationJudge)
}
JudgeEntry = Annotated[SerializeAsAny[JudgeSettings], Kinds(lambda: tuple(_CLASSES), _CLASSES.__getitem__)]
"""A judge as settings hold it: `{kind: NAME, …}`, or NAME alone."""


def judge_of(judges: Sequence[JudgeSettings], kind: str) -> Any:
    """The judge of this kind; None if the run has none."""
    return next((judge for judge in judges if judge.kind == kind), None)


def search_rewards(
    rewards: Sequence[RewardSettings], judges: Sequence[JudgeSettings], found: dict[str, Path]
) -> tuple[RewardSettings, ...]:
    """The rewards of a search with those of the judges that were trained for it. An entry of the same kind is replaced.

    rewards: of the settings. found: where each judge is that was trained, by its kind.
    """
    for judge in judges:
        if judge.kind in found:
            rewards = with_entry(rewards, _reward(judge, found[judge.kind], rewards))
    return tuple(rewards)


def _reward(judge: JudgeSettings, path: Path, rewards: Sequence[RewardSettings]) -> RewardSettings:
    """The reward of a trained judge. What the settings' entry of that kind says besides stays."""
    kind, own = _REWARDS[judge.kind]
    given = next((one.model_dump() for one in rewards if one.kind == kind), {})
    return reward_kind(kind).settings.model_validate(
        {**given, **own(path), "kind": kind, "weight": judge.weight, "at": judge.at}
    )


_REWARDS: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "value": ("value_model", lambda path: {"path": path}),
    "process": ("process", lambda path: {"model": str(path)}),
    "self_evaluation": ("self_evaluation", lambda path: {}),
}
"""For each judge: the kind of its reward, and the reward's settings that name its directory."""
