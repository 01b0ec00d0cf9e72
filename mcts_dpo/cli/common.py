"""Options that several commands share, and functions that load what these options name.

Heavy libraries are imported inside the functions, so that `--help` and usage errors are fast.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.progress import Progress

if TYPE_CHECKING:
    from mcts_dpo.data import Problem, ProblemSettings
    from mcts_dpo.engines import Engine
    from mcts_dpo.pipeline.config import StageConfig

logger = logging.getLogger(__name__)
ConfigT = TypeVar("ConfigT", bound="StageConfig")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file of settings.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings, as dotted.name=value.", show_default=False)]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Hub name, Hugging Face directory or .gguf file.")
]
ProblemsOption = Annotated[
    str | None, typer.Option("--problems", "-p", help="A file (JSONL, CSV, Parquet) or the name of a hub data set.")
]
SecondsOption = Annotated[
    float | None,
    typer.Option(help="Seconds per problem, beside the budget in tokens; no simulation starts after them.", min=0.0),
]


def load_extension(name: str) -> None:
    """Import a module that registers things: formats, verifiers, objectives, strategies. See docs/extending.md.

    Modules in the working directory are found too. Raises InputError if the module cannot be imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise InputError(f"--with {name!r}: cannot be imported ({type(error).__name__}: {error})") from None


def stage_config(path: Path | None, overrides: list[str] | None) -> StageConfig:
    """Settings for one stage, from the config file of a run or a file with only the sections of stages."""
    from mcts_dpo.common.settings import load_settings, read_yaml
    from mcts_dpo.pipeline.config import RunConfig, StageConfig

    whole_run = path is not None and "model" in read_yaml(path)
    return load_settings(RunConfig if whole_run else StageConfig, path, overrides or [])


def policy_named(config: StageConfig, given: str | None) -> str:
    """The model of `--model`, or of a run's file. Raises InputError if neither names one."""
    model = given or getattr(config, "model", None)
    if not model:
        raise InputError(
            "no model: give --model (a hub name, a Hugging Face directory or a .gguf file) or a run's --config"
        )
    return str(model)


def with_own_sampling(config: ConfigT, policy: str) -> ConfigT:
    """The settings with the policy's own sampling, if `search.generation_config` asks for it (see `own_sampling`)."""
    from mcts_dpo.search import own_sampling

    return config.model_copy(update={"search": own_sampling(config.search, policy, config.engine.kind)})


def with_seconds(config: StageConfig, seconds: float | None) -> StageConfig:
    """The settings with the budget of `--seconds`. Raises InputError for 0."""
    if seconds is None:
        return config
    if not seconds > 0:
        raise InputError(f"--seconds: {seconds:g} is out of range (accepted: a number > 0)")
    return config.model_copy(update={"search": config.search.model_copy(update={"seconds": seconds})})


def load_named_problems(config: StageConfig, given: str | None, section: str) -> list[Problem]:
    """The problems of `--problems`, or of a section of a run's file. Warns if no problem has a readable answer.

    Raises InputError if neither names problems, or if a problem of the section "test" has no answer.
    """
    from mcts_dpo.data import load_problems, require_answers, without_any_answer

    source: str | ProblemSettings | None = given or getattr(config, section, None)
    if source is None:
        raise InputError(
            f"no problems: give --problems (a file or a hub data set) or a run's --config with `{section}`"
        )
    problems = load_problems(source)
    if section == "test":
        require_answers(problems, problems[0].source)
    note = without_any_answer(problems)
    if note:
        logger.warning("%s: %s", problems[0].source, note)
    return problems


def engine_of(policy: str, config: StageConfig, progress: Progress) -> Engine:
    """The engine with the policy loaded. Progress is shown while it loads."""
    progress("load model", 0, 0)
    from mcts_dpo.engines import load_engine

    return load_engine(policy, settings=config.engine)


def tree_files(given: Sequence[Path]) -> list[Path]:
    """The tree files of arguments: files, or folders of them. Raises InputError if there is none, or one twice."""
    files = [file for path in given for file in (sorted(path.glob("*.parquet")) if path.is_dir() else [path])]
    if not files:
        raise InputError(f"{', '.join(map(str, given))}: no tree files (*.parquet) there")
    twice = next((file for file, times in Counter(files).items() if times > 1), None)
    if twice is not None:
        raise InputError(f"{twice}: given twice; accepted: each file of trees once")
    return files
