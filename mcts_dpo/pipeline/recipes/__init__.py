"""Recipes: published methods as settings of the components that are here, and of nothing else.

In: a recipe's name (a YAML file beside this one) or a file, a user's own settings and overrides. Out: a `RunConfig`. A
recipe says what it reproduces and what it only approximates; it names no model and no problems. Knows not how anything
runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import Settings, load_settings, nearest, read_yaml
from mcts_dpo.pipeline.config import RunConfig

NEEDED = {"model": "any", "train": {"source": "any"}, "test": {"source": "any"}}
"""What a recipe leaves to its user: stands in when a recipe is checked by itself."""

REMOVED = {
    "xie2024-faithful": "docs/xie2024.md lists how the released code differs from the paper; accepted: xie2024",
}
"""Recipes of the first edition that are gone, and where to look instead."""


class Recipe(Settings):
    """One method.

    source:       the paper or the code, with what of it is meant.
    reproduces:   what a run of it is a run of, one sentence.
    approximates: where it differs from the source, one sentence each.
    settings:     of a `RunConfig`, nested by section, as far as they differ from the defaults.
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
    """The recipe of that name or in that file (.yaml), its settings checked.

    Raises InputError naming it, and what it should have been.
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
    """The recipe's settings, over them the user's own (a YAML file or a mapping), over them the overrides.

    Raises InputError where a setting is unknown or out of range, or the model or the problems are missing.
    """
    mine = read_yaml(own) if isinstance(own, Path) else dict(own or {})
    return load_settings(RunConfig, merged(recipe.settings, mine), overrides)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings, those `above` first. A group of another `kind` replaces the one below whole."""
    result = dict(below)
    for name, value in above.items():
        under = result.get(name)
        if isinstance(under, Mapping) and isinstance(value, Mapping) and _same_kind(under, value):
            value = merged(under, value)
        result[name] = value
    return result


def _same_kind(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    return "kind" not in above or "kind" not in below or below["kind"] == above["kind"]


def as_yaml(recipe: Recipe) -> str:
    """The recipe's settings as YAML, to copy and change."""
    return yaml.safe_dump(recipe.settings, sort_keys=False, allow_unicode=True, width=120)
