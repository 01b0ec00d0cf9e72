"""Whether what a journal tells is what this search does: asked of each entry before it is done again.

In: a task as far as it has been replayed, the next entry. Out: nothing, or MisfitError. Journals of today are chained
by their checksums and fit unless another version of the program wrote them; in those of format 1 records may have been
repeated, lost or moved without any sign but these.
"""

from __future__ import annotations

import numpy as np

from mcts_dpo.files import seed_from
from mcts_dpo.search import kernels
from mcts_dpo.search.forest import OPEN
from mcts_dpo.search.journal import MisfitError, Sampled, Settled
from mcts_dpo.search.simulation import Expansion, Growth, Task, Tree, is_last, select


def require_sampled(expansion: Expansion, old: Sampled) -> None:
    """Raise MisfitError unless these are the samples of this expansion."""
    if (old.leaf, old.seed) != (expansion.leaf, expansion.seed):
        raise MisfitError(
            old, f"simulation {expansion.index} of tree {expansion.tree} is another than this search makes"
        )


def require_settled(task: Task, growth: Growth, questions: int, old: Settled) -> None:
    """Raise MisfitError unless there is an outcome for every new end of a growth, and an answer to every question."""
    if not outcomes_fit(task, growth, old) or len(old.answers) != questions:
        assert task.journal is not None
        entry = next(entry for entry in task.journal.record.entries if isinstance(entry, list) and old in entry)
        raise MisfitError(entry, f"simulation {old.index} of tree {old.tree} was backed up otherwise than it grew")


def outcomes_fit(task: Task, growth: Growth, old: Settled) -> bool:
    """Whether there are as many outcomes as the growth has new ends."""
    return len(old.outcomes) == int(task.forest.terminal[growth.new].sum())


def take_up(task: Task, old: Sampled) -> Expansion:
    """Hold the leaf that the samples were drawn from, as when it was selected. Returns the expansion, under way again.

    With one leaf at a time it must be the leaf that the search selects now. With several the order of the selections is
    not known: it must be one that can be expanded.
    """
    tree = _tree_of(task, old)
    alone = task.settings.parallel_leaves == 1
    if alone and (not tree.living or tree.flying or old.index != tree.started):
        raise MisfitError(old, f"simulation {old.index} of tree {old.tree} is out of its turn")
    found = select(task, [tree], [1])[0] if alone else _open_leaf(task, old)
    if found != [old.leaf]:
        kernels.release(task.forest, np.array(found, np.int64), expanded=False)
        raise MisfitError(old, f"simulation {old.index} of tree {old.tree} starts at a step that is not its turn")
    tree.started += 1
    tree.flying += 1
    last = is_last(task, old.leaf)
    return Expansion(old.tree, old.leaf, old.index, last, old.seed)


def _tree_of(task: Task, old: Sampled) -> Tree:
    """The tree of some samples, which must have been drawn with its seed."""
    if not 0 <= old.tree < len(task.trees):
        raise MisfitError(old, f"there is no tree {old.tree}")
    tree = task.trees[old.tree]
    if old.seed != seed_from(task.settings.seed, tree.problem.id, old.index):
        raise MisfitError(old, f"simulation {old.index} of tree {old.tree} is of another search")
    return tree


def _open_leaf(task: Task, old: Sampled) -> list[int]:
    """The leaf of some samples, held, if it may be expanded now; else none."""
    forest, leaf = task.forest, old.leaf
    if not 0 <= leaf < len(forest) or forest.tree[leaf] != old.tree:
        return []
    if forest.expanded[leaf] or forest.terminal[leaf] or forest.closed[leaf] != OPEN:
        return []
    kernels.hold(forest, leaf)
    return [leaf]
