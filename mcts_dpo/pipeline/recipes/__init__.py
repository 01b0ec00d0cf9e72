"""Recipes: published methods as settings of a run, one YAML file each.

In: the name of a recipe or a file, the user's own settings and overrides. Out: a `RunConfig`. A recipe says what it
reproduces and where it differs from its source. It names no model and no problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import Settings, load_settings, nearest, read_yaml
from mcts_dpo.pipeline.config import RunConfig

NEEDED = {"model": "any", "train": {"source": "any"}, "test": {"source": "any"}}
"""Stand-ins for the settings that a recipe leaves to the user, for checking a recipe alone."""

REMOVED = {
    "xie2024-faithful": "docs/xie2024.md lists how the released code differs from the paper; accepted: xie2024",
}
"""Recipes of the first edition that are gone, and where to look instead."""


class Recipe(Settings):
    """One method.

    source:       the paper or the code, and which part of it.
    reproduces:   one sentence on what a run of it reproduces.
    approximates: one sentence on each difference from the source.
    settings:     of a `RunConfig`, nested by section; only those that differ from the defaults.
    """

    source: str
    reproduces: str
    approximates: tuple[str, ...]
    settings: dict[str, Any]


def recipe_names() -> list[str]:
    """All recipes, in alphabetical order."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def load_recipe(name: str) -> Recipe:
    """The recipe with this name or in this .yaml file. Its settings are checked.

    Raises InputError with the nearest name for an unknown one.
    """
    if name.endswith((".yaml", ".yml")):
        return read_recipe(Path(name))
    if name in REMOVED:
        raise InputError(f"--recipe: {name!r} was removed; {REMOVED[name]}")
    if name not in recipe_names():
        guess = nearest(name, recipe_names())
        accepted = f"did you mean {guess!r}?" if guess else f"accepted: {', '.join(recipe_names())} or a .yaml file"
        raise InputError(f"--recipe: no recipe {name!r}; {accepted}")
    return read_recipe(Path(str(resources.files(__name__) / f"{name}.yaml")))


def read_recipe(path: Path) -> Recipe:
    """A recipe from any file. Raises InputError naming the file and the setting."""
    recipe = load_settings(Recipe, path)
    try:
        load_settings(RunConfig, merged(NEEDED, recipe.settings))
    except InputError as error:
        raise InputError(f"{path}: settings: {error}") from None
    return recipe


def recipe_config(recipe: Recipe, own: Path | Mapping[str, Any] | None, overrides: Sequence[str] = ()) -> RunConfig:
    """The recipe's settings, replaced by the user's own (a YAML file or a mapping), replaced by the overrides.

    Raises InputError if a setting is unknown or out of range, or if the model or the problems are missing.
    """
    mine = read_yaml(own) if isinstance(own, Path) else dict(own or {})
    return load_settings(RunConfig, merged(recipe.settings, mine), overrides)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings; those of `above` win. A group of another `kind` replaces the whole group below."""
    result = dict(below)
    for name, value in above.items():
        under = result.get(name)
        if isinstance(under, Mapping) and isinstance(value, Mapping) and _same_kind(under, value):
            value = merged(under, value)
        result[name] = value
    return result


def _same_kind(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    return "kind" not in above or "kind" not in below or below["kind"] == above["kind"]
