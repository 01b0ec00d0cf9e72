"""Step-level reasoning by tree search, and self-training on the preferences that the trees reveal.

Each stage is a function, and also a command of `mcts-dpo`. The files between stages are in open formats:

    problems = load_problems("train.jsonl")
    engine = load_engine("a/model")
    forest = search_problems(problems, engine, prompt=PromptSettings(), settings=SearchSettings())
    pairs = extract_pairs([forest])
    train("a/model", pairs, Path("policy"), TrainingSettings())
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

FOREIGN_VERIFIERS_REMEDY = "pip uninstall -y verifiers mcts-dpo, then install mcts-dpo alone in this environment"


def _refuse_foreign_verifiers(origin: str | None) -> None:
    """Raise ImportError if `verifiers/__init__.py` at `origin` is not mcts-dpo's.

    An unrelated package on the index has the same name, and installing both overwrites files.
    """
    if origin is None or "mcts-dpo" not in Path(origin).read_text(encoding="utf-8", errors="replace"):
        found = f"the package at {Path(origin).parent} is not mcts-dpo's" if origin else "there is none"
        raise ImportError(f"mcts-dpo needs its own package `verifiers`: {found}; {FOREIGN_VERIFIERS_REMEDY}")


_spec = find_spec("verifiers")
_refuse_foreign_verifiers(_spec.origin if _spec else None)

if TYPE_CHECKING:
    from mcts_dpo.data import Problem, ProblemSettings, load_problems
    from mcts_dpo.engines import EngineSettings, load_engine
    from mcts_dpo.evaluation import EvaluationSettings, evaluate
    from mcts_dpo.models.prompts import PromptSettings
    from mcts_dpo.pipeline.config import RunConfig
    from mcts_dpo.pipeline.rounds import run
    from mcts_dpo.preferences import PreferenceSettings, extract_pairs, extract_siblings, extract_solutions
    from mcts_dpo.search import Forest, SearchSettings, search_problems
    from mcts_dpo.training import TrainingSettings, train

__all__ = [
    "EngineSettings",
    "EvaluationSettings",
    "Forest",
    "PreferenceSettings",
    "Problem",
    "ProblemSettings",
    "PromptSettings",
    "RunConfig",
    "SearchSettings",
    "TrainingSettings",
    "evaluate",
    "extract_pairs",
    "extract_siblings",
    "extract_solutions",
    "load_engine",
    "load_problems",
    "run",
    "search_problems",
    "train",
]

_HOMES = {
    "EngineSettings": "engines",
    "EvaluationSettings": "evaluation",
    "Forest": "search",
    "PreferenceSettings": "preferences",
    "Problem": "data",
    "ProblemSettings": "data",
    "PromptSettings": "models.prompts",
    "RunConfig": "pipeline.config",
    "SearchSettings": "search",
    "TrainingSettings": "training",
    "evaluate": "evaluation",
    "extract_pairs": "preferences",
    "extract_siblings": "preferences",
    "extract_solutions": "preferences",
    "load_engine": "engines",
    "load_problems": "data",
    "run": "pipeline.rounds",
    "search_problems": "search",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    """Import a stage or a package on first use, so that a stage without torch does not wait for torch."""
    if name in _HOMES:
        return getattr(import_module(f"mcts_dpo.{_HOMES[name]}"), name)
    if not name.startswith("_") and find_spec(f"mcts_dpo.{name}"):
        return import_module(f"mcts_dpo.{name}")
    raise AttributeError(f"module 'mcts_dpo' has no attribute {name!r}")
