"""Extracts training data from search trees: step-level preference pairs, and whole solutions.

In: forests. Out: `Pairs` and `Solutions`. All token ids, log-probabilities and counts come from the trees. The two
steps of a pair are siblings, so a pair never crosses problems.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import Field

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.common.settings import Settings
from mcts_dpo.preferences.dataset import Pairs, Solutions
from mcts_dpo.preferences.selection import Order, certainty, kept_first, two_sigma_below
from mcts_dpo.search import LENGTH, Forest


class PreferenceSettings(Settings):
    """Which siblings become pairs, and with what weight.

    select:          "best_path": at every step of the tree's best path, the step over its worst sibling (as the
                     released code of MCTS-DPO); "best_worst": at every parent, the best child over the worst;
                     "two_sigma": at every parent, the best child over the one nearest to two standard deviations below
                     the mean (`selection.two_sigma_below`);
                     "all": at every parent, every child over every worse sibling.
    rejected:        with "best_path" and "best_worst": the "worst" sibling, or a "random" one of all but the best. The
                     released code of MCTS-DPO always takes a random one (`--choose_random` is always true there;
                     mcts/trainer.py, `tsrl_step`). The choice repeats for the same problem and parent.
    min_gap:         least difference of Q, in units of value (right minus wrong is 2).
    min_visits:      least visits N of either step.
    shrinkage:       s ≥ 0 pseudo-samples that are wrong. Q' = (n · Q − s) / (n + s), with n the step's visits, is
                     compared instead of Q, so that one lucky guess makes no pair. 0: Q itself.
    min_certainty:   least probability, below 1, that the chosen step is truly better, given the visits of both
                     (`selection.certainty`). 0.5 or less has no effect.
    max_pairs:       most pairs kept per tree (null: all).
    first:           which pairs `max_pairs` keeps. "tree": the first in the order of the tree; "boundary": those
                     between which the policy is least decided; "margin": those with the largest gap in Q.
    smoothing:       label noise α of a pair: "visits": 1 / (N(chosen) / N(rejected) + 1), the conservative loss of
                     Xie et al. 2024 (arXiv 2405.00451, section 2.2); "none": 0.
    weight:          of a pair in the mean: "one"; "samples": the harmonic mean of how often each step was sampled (for
                     a list: its best and its worst). Revisits add visits and no samples.
    smoothing_limit: upper bound of α, below 0.5. Above 0.5, the label would be reversed for pairs whose rejected step
                     has more visits.
    """

    select: Literal["best_path", "best_worst", "two_sigma", "all"] = "best_worst"
    rejected: Literal["worst", "random"] = "worst"
    min_gap: float = Field(0.5, ge=0, allow_inf_nan=False)
    min_visits: int = Field(1, ge=1)
    shrinkage: float = Field(0.0, ge=0, allow_inf_nan=False)
    min_certainty: float = Field(0.0, ge=0, lt=1)
    max_pairs: int | None = Field(None, ge=1)
    first: Order = "tree"
    smoothing: Literal["visits", "none"] = "visits"
    weight: Literal["one", "samples"] = "one"
    smoothing_limit: float = Field(0.45, ge=0, lt=0.5)


def extract_pairs(forests: Iterable[Forest], settings: PreferenceSettings | None = None) -> Pairs:
    """Extract all pairs from forests, in the order of forest, tree and parent. The table may be empty.

    Raises InputError if there is no forest, or if the forests' tokenizers differ.
    """
    settings = settings or PreferenceSettings()
    return Pairs.concatenate([_forest_pairs(forest, settings) for forest in forests])


def extract_solutions(forests: Iterable[Forest], settings: PreferenceSettings | None = None) -> Solutions:
    """Extract the best path of every tree that also holds a wrong solution, for rejection-sampling fine-tuning.

    A tree without a wrong solution teaches nothing. A path counts only if it ends in a solution that was verified as
    right and ended by itself. The table may be empty. Raises InputError as `extract_pairs` does.
    """
    settings = settings or PreferenceSettings()
    return Solutions.concatenate([_forest_solutions(forest, settings) for forest in forests])


def shrunk_q(forest: Forest, node: int, shrinkage: float) -> float:
    """The action value Q' = (n · Q − s) / (n + s), as if s more samples had been wrong. Q is on the scale of R.

    n: the visits of the node. s: `shrinkage`. Q: `Forest.value`; a node without visits has it unchanged.
    """
    visits = int(forest.visits[node])
    if not visits:
        return forest.value(node)
    return (visits * forest.value(node) - shrinkage) / (visits + shrinkage)


def ranked_children(forest: Forest, parent: int, shrinkage: float) -> list[int]:
    """The node ids of a parent's children from best to worst: higher Q', then more visits, then first sampled."""
    return sorted(
        forest.children(parent), key=lambda node: (-shrunk_q(forest, node, shrinkage), -int(forest.visits[node]), node)
    )


def best_path(forest: Forest, root: int, shrinkage: float = 0.0) -> list[int]:
    """The node ids from `root` to a leaf, through the best child at each step. [root] for a tree without children."""
    path = [root]
    while children := ranked_children(forest, path[-1], shrinkage):
        path.append(children[0])
    return path


def _candidates(
    forest: Forest, root: int, nodes: Iterable[int], settings: PreferenceSettings
) -> Iterator[tuple[int, int]]:
    """Yield the (chosen, rejected) siblings of one tree that `select` and `rejected` choose, before the filters."""
    on_path = best_path(forest, root, settings.shrinkage)
    parents = on_path if settings.select == "best_path" else nodes
    for parent in parents:
        ranked = ranked_children(forest, parent, settings.shrinkage)
        if len(ranked) < 2:
            continue
        if settings.select == "all":
            yield from ((better, worse) for i, better in enumerate(ranked) for worse in ranked[i + 1 :])
        elif settings.select == "two_sigma":
            values = [shrunk_q(forest, node, settings.shrinkage) for node in ranked]
            yield ranked[0], ranked[two_sigma_below(values, [max(1, int(forest.samples[node])) for node in ranked])]
        elif settings.rejected == "random":
            turn = seed_from(
                "rejected", forest.trees[int(forest.tree[parent])].problem_id, forest.solution_tokens(parent)
            )
            yield ranked[0], ranked[1 + turn % (len(ranked) - 1)]
        else:
            # Take the lowest Q'. Of equals, take the most visited one, because its value is the most certain.
            lowest = shrunk_q(forest, ranked[-1], settings.shrinkage)
            worst = next(node for node in ranked if shrunk_q(forest, node, settings.shrinkage) == lowest)
            yield ranked[0], worst


def _forest_pairs(forest: Forest, settings: PreferenceSettings) -> Pairs:
    rows: list[dict[str, Any]] = []
    by_tree = forest.nodes_by_tree()
    for tree, info in enumerate(forest.trees):
        if info.status == "failed":
            continue
        nodes = by_tree[tree].tolist()
        found = [
            _pair_row(forest, tree, chosen, rejected, margin, settings)
            for chosen, rejected in _candidates(forest, info.root, nodes, settings)
            if _worth_keeping(forest, chosen, rejected, margin := _margin(forest, chosen, rejected, settings), settings)
        ]
        if settings.max_pairs is not None and len(found) > settings.max_pairs:
            keys = [
                kept_first(settings.first, row["margin"], row["chosen_logprob"] - row["rejected_logprob"])
                for row in found
            ]
            first = sorted(range(len(found)), key=lambda place: (keys[place], place))[: settings.max_pairs]
            found = [found[place] for place in sorted(first)]
        rows += found
    columns = {name: [row[name] for row in rows] for name in Pairs.schema.names}
    return Pairs.from_columns(columns, forest_tokenizer(forest))


def evidence(forest: Forest, best: int, worst: int) -> float:
    """The harmonic mean of the numbers of samples of two steps. It is at most twice the smaller number."""
    a, b = max(1, int(forest.samples[best])), max(1, int(forest.samples[worst]))
    return 2 * a * b / (a + b)


def _margin(forest: Forest, chosen: int, rejected: int, settings: PreferenceSettings) -> float:
    return shrunk_q(forest, chosen, settings.shrinkage) - shrunk_q(forest, rejected, settings.shrinkage)


def _worth_keeping(forest: Forest, chosen: int, rejected: int, margin: float, settings: PreferenceSettings) -> bool:
    visits = int(forest.visits[chosen]), int(forest.visits[rejected])
    if margin <= 0 or margin < settings.min_gap or min(visits) < settings.min_visits:
        return False
    if settings.min_certainty > 0:
        q = forest.value(chosen), forest.value(rejected)
        if certainty(q[0], visits[0], q[1], visits[1]) < settings.min_certainty:
            return False
    # Siblings differ in text. Their ids can still agree if they differ only in white space elsewhere.
    return forest.step_tokens(chosen) != forest.step_tokens(rejected)


def _pair_row(
    forest: Forest, tree: int, chosen: int, rejected: int, margin: float, settings: PreferenceSettings
) -> dict[str, Any]:
    info = forest.trees[tree]
    parent = int(forest.parent[chosen])
    smoothing = 0.0
    if settings.smoothing == "visits":
        alpha = 1.0 / (float(forest.visits[chosen]) / float(forest.visits[rejected]) + 1.0)
        smoothing = min(alpha, settings.smoothing_limit)
    return {
        "problem_id": info.problem_id,
        "tree": tree,
        "parent": parent,
        "chosen_node": chosen,
        "rejected_node": rejected,
        "prompt": info.prompt_text + forest.solution_text(parent),
        "chosen": forest.texts[chosen],
        "rejected": forest.texts[rejected],
        "prompt_tokens": info.prompt_tokens,
        "prefix_tokens": forest.solution_tokens(parent),
        "chosen_tokens": forest.step_tokens(chosen),
        "rejected_tokens": forest.step_tokens(rejected),
        "prefix_environment": forest.reply_indices(forest.path(parent)),
        "chosen_environment": forest.reply_indices([chosen]),
        "rejected_environment": forest.reply_indices([rejected]),
        "chosen_q": forest.value(chosen),
        "rejected_q": forest.value(rejected),
        "margin": margin,
        "chosen_visits": int(forest.visits[chosen]),
        "rejected_visits": int(forest.visits[rejected]),
        "chosen_samples": int(forest.samples[chosen]),
        "rejected_samples": int(forest.samples[rejected]),
        "smoothing": smoothing,
        "weight": evidence(forest, chosen, rejected) if settings.weight == "samples" else 1.0,
        "chosen_logprob": float(forest.logprob[chosen]),
        "rejected_logprob": float(forest.logprob[rejected]),
    }


def _forest_solutions(forest: Forest, settings: PreferenceSettings) -> Solutions:
    rows: list[dict[str, Any]] = []
    for tree, (info, nodes) in enumerate(zip(forest.trees, forest.nodes_by_tree(), strict=True)):
        leaf = best_path(forest, info.root, settings.shrinkage)[-1]
        mixed = bool((forest.outcome[nodes] < 0).any())
        right = int(forest.outcome[leaf]) > 0 and int(forest.finish[leaf]) != LENGTH
        if mixed and right:
            rows.append(
                {
                    "problem_id": info.problem_id,
                    "tree": tree,
                    "leaf": leaf,
                    "prompt": info.prompt_text,
                    "completion": forest.solution_text(leaf),
                    "prompt_tokens": info.prompt_tokens,
                    "completion_tokens": forest.solution_tokens(leaf),
                    "completion_environment": forest.reply_indices(forest.path(leaf)),
                    "q": forest.value(leaf),
                    "weight": 1.0,
                }
            )
    columns = {name: [row[name] for row in rows] for name in Solutions.schema.names}
    return Solutions.from_columns(columns, forest_tokenizer(forest))


def forest_tokenizer(forest: Forest) -> str:
    """The digest of the tokenizer that made the forest's token ids. Raises InputError if the forest has none."""
    if not forest.tokenizer:
        raise InputError("a forest without its tokenizer's digest; accepted: forests that a search made")
    return forest.tokenizer
