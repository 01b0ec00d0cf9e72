"""What the ablation suites compare: arms by name, each a recipe and the settings in which it differs. Data, no code.

An arm's settings are laid over the world's (`ablations.world`), which say how large everything is and are the same for
all arms: model, problems, rounds, updates per round, sequences per update; these over the recipe's. RFT and step-RFT
are arms wherever a preference loss is one, on the same trees. Where arms search differently, their simulations and
children are such that the built-in policy spends the same tokens on a problem; the table says what it spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm: settings as dotted names, over those of a recipe."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None


@dataclass(frozen=True, slots=True)
class Suite:
    """question: what the table can answer. arms: by name. control: what the others are compared with, but for those
    that `against` compares with another arm: each to the one from which it differs by the suite's question."""

    question: str
    arms: Mapping[str, Arm]
    control: str = "rft"
    against: Mapping[str, str] = field(default_factory=dict)

    def compared_with(self, arm: str) -> str | None:
        """The arm that this one is compared with; None for the control itself."""
        return None if arm == self.control else self.against.get(arm, self.control)


def objective(name: str, **more: Any) -> Arm:
    return Arm({"training.objective": name, **{key.replace("__", "."): value for key, value in more.items()}})


ALL_IN_ONE = "all in one"
"""`rounds` of an arm that takes all rounds' problems and updates at once, from the first policy."""
KINDS = ("rft", "step_rft", "step_dpo")
RFT, STEP_RFT, STEP_DPO = map(objective, KINDS)
CONTROLS = {"rft": RFT, "step_rft": STEP_RFT}
JUDGED = {"search__rewards__self_evaluation__weight": 0.5}
INDEPENDENT = 13
"""Independent samples that cost the built-in policy as many tokens as a tree of 8 simulations of 4 children: those of
one problem come to about 380 either way, since most trees are exhausted before their eighth simulation."""
WHOLE = {
    "search__max_depth": 1,
    "search__simulations": 1,
    "search__children": INDEPENDENT,
    "preferences__select": "best_worst",
}
TREES: dict[str, dict[str, Any]] = {
    "PUCT, 8 of 4": {},
    "PUCT, 3 of 6": {"simulations": 3, "children": 6},
    "PUCT, 64 of 3": {"simulations": 64, "children": 3},
    "UCT, 8 of 4": {"selection": "uct"},
    "Gumbel, 8 of 4": {"selection": "gumbel"},
}
NOISE = {
    "rollout noise 0.15": {"search__rewards__outcome__noise_per_rollout": 0.15},
    "answer noise 0.3": {"search__rewards__outcome__noise_per_answer": 0.3},
}


def by_kind(variants: Sequence[str], base: str, name: str = "{variant}, {kind}") -> dict[str, str]:
    """Each variant against the base that learns by the same objective."""
    return {
        name.format(variant=variant, kind=kind): name.format(variant=base, kind=kind)
        for variant in variants
        for kind in KINDS
    }


def searched(name: str, **settings: Any) -> dict[str, Arm]:
    """A way to search, learned from by all three objectives."""
    common = {f"search__{key}": value for key, value in settings.items()}
    return {f"{name}, {kind}": objective(kind, **common) for kind in KINDS}


SUITES: dict[str, Suite] = {
    "rewards": Suite(
        "Is the policy's self-evaluation, or a value model, worth its tokens beside verified outcomes?",
        {
            **CONTROLS,
            "step_dpo": STEP_DPO,
            **{f"{kind}, self-evaluation": objective(kind, **JUDGED) for kind in KINDS},
            **{f"{kind}, value model": objective(kind, judges__value__weight=0.5) for kind in KINDS},
        },
        against={f"{kind}, {judge}": kind for kind in KINDS for judge in ("self-evaluation", "value model")},
    ),
    "pairs": Suite(
        "Which pairs of a tree teach: steps or whole solutions, which parents, which gaps, what noise in the labels?",
        {
            **CONTROLS,
            "best path": STEP_DPO,
            "all parents": objective("step_dpo", preferences__select="best_worst"),
            "all pairs": objective("step_dpo", preferences__select="all"),
            "two sigma": objective("step_dpo", preferences__select="two_sigma"),
            **{f"whole solutions, {kind}": objective(kind, **WHOLE) for kind in KINDS},
            "whole solutions, iterative-dpo": Arm({"search.children": INDEPENDENT}, recipe="iterative-dpo"),
            "gap 0.1": objective("step_dpo", preferences__min_gap=0.1),
            "gap 1": objective("step_dpo", preferences__min_gap=1.0),
            "no smoothing": objective("step_dpo", preferences__smoothing="none"),
            "shrinkage 1": objective("step_dpo", preferences__shrinkage=1.0),
        },
    ),
    "losses": Suite(
        "Does any preference loss beat imitation of the same trees?",
        {
            **CONTROLS,
            **{
                name: objective(name, preferences__select="best_worst")
                for name in (
                    *("step_dpo", "ipo", "hinge", "simpo", "orpo", "kto", "lipo", "tpo"),
                    *("sibling_distillation", "tree_policy_gradient"),
                )
            },
        },
    ),
    "onpolicy": Suite(
        "Must the data be the current policy's own?",
        {
            f"{name}, {kind}": objective(kind, **settings)
            for name, settings in (
                ("fresh", {}),
                ("mixed", {"replay": 1}),
                ("offline", {"rounds": ALL_IN_ONE}),
            )
            for kind in KINDS
        },
        control="fresh, rft",
        against=by_kind(("mixed", "offline"), "fresh"),
    ),
    "search": Suite(
        "Does the tree beat independent samples at the same tokens, by which rule, with how many simulations?",
        {
            **searched("independent", simulations=1, children=INDEPENDENT),
            **{arm: one for name, settings in TREES.items() for arm, one in searched(name, **settings).items()},
        },
        control="independent, rft",
        against=by_kind(TREES, "independent"),
    ),
    "noise": Suite(
        "Do step values pay where wrong answers are accepted by luck?",
        {
            f"{kind}, {name}": objective(kind, **settings)
            for name, settings in ({"clean": {}} | NOISE).items()
            for kind in KINDS
        },
        control="rft, clean",
        against={f"{kind}, {name}": f"rft, {name}" for name in NOISE for kind in KINDS[1:]},
    ),
}
