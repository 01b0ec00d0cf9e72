"""The kernels of the search against a pure-Python tree and against mctx, on the same trees and the same work.

    python -m benchmarks.search_kernels --json FILE [--trees 256]

The forest: trees of 512 nodes, grown by the search's own rules with random priors and rewards: 73 expansions of 7
children under PUCT. 64 different ones, copied; 256 trees are those that a search keeps alive on an engine of 128 slots.
All three hold the same trees, choose by the same formula (Q + c · p · √N / (1 + n)) and are checked to agree: on the
leaf that is selected, and on the visit counts after a backup.

A *selection* goes from the root of a tree to a leaf and puts a virtual loss on the path, which closes what has nothing
open left. A *backup* goes from that leaf to the root: it counts the visit, brings Q and V up to date (as running means;
or, `backup_paper`, V from all children and Q = R + V), takes the virtual loss back and opens what may be selected
again. The Python tree does all of this by the same steps, as objects with slots and lists of children. mctx does less:
its `simulate` knows no virtual loss, its `backward` keeps running means; both are its own code, compiled, over all
trees at once, its arrays donated. CPU seconds of the process, the best of several repetitions, compilation excluded.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mcts_dpo.common.files import write_json
from mcts_dpo.search import Forest, kernels
from mcts_dpo.search.tree import NODE_FIELDS, Contents, TreeInfo, bytes_per_node

CHILDREN, EXPANSIONS = 7, 73
NODES = 1 + CHILDREN * EXPANSIONS
"""512."""
KINDS = 64
C = 1.0
SECONDS = 1.0
OFTEN = 16
"""Selections of mctx that are timed together, in case its threads' time is accounted for late after all."""
CURVE = (1, 4, 16, 64, 256, 1024, 4096)


def grown(trees: int) -> Forest:
    """`trees` trees of NODES nodes each, KINDS different ones."""
    forest, rng = Forest(), np.random.default_rng(0)
    kinds = min(KINDS, trees)
    for tree in range(kinds):
        forest.add_tree(str(tree), (1,), "")
    everyone, one = np.arange(kinds), np.ones(kinds, np.int64)
    for _ in range(EXPANSIONS):
        leaves = kernels.select(forest, everyone, one, kernels.PUCT, C)[:, 0]
        ends = []
        for leaf in leaves.tolist():
            for prior in rng.dirichlet(np.full(CHILDREN, 1.0)):
                node = forest.add_child(leaf, (1,), (-1.0,), "")
                forest.samples[node], forest.mass[node] = 1, prior
                forest.reward[node] = rng.normal(0.0, 0.1)
                ends.append(node)
        kernels.set_priors(forest, leaves, True)
        kernels.back_up(forest, np.array(ends), kernels.MEAN, 1.0)
        kernels.release(forest, leaves)
    return tiled(forest, trees)


def tiled(forest: Forest, trees: int) -> Forest:
    """The forest's trees again and again until there are `trees`, their rows as a search over all of them would have
    laid them: wave after wave, in each the new children of every tree."""
    kinds, nodes = len(forest.trees), len(forest)
    copies = trees // kinds
    wave = np.maximum(0, (np.arange(nodes) - kinds) // (kinds * CHILDREN) + 1)
    old, copy = (array.ravel() for array in np.meshgrid(np.arange(nodes), np.arange(copies), indexing="ij"))
    order = np.lexsort((old, copy, wave[old]))
    old, copy = old[order], copy[order]
    place = np.empty((copies, nodes), np.int64)
    place[copy, old] = np.arange(copies * nodes)
    rows: dict[str, Any] = {name: getattr(forest, name)[old].copy() for name, *_ in NODE_FIELDS}
    for name in ("parent", "first_child", "last_child", "next_sibling"):
        rows[name] = np.where(rows[name] >= 0, place[copy, rows[name]], -1).astype(np.int32)
    rows["tree"] = (rows["tree"] + copy * kinds).astype(np.int32)
    infos = [
        TreeInfo(f"{again}-{info.problem_id}", int(place[again, info.root]), (1,), "")
        for again in range(copies)
        for info in forest.trees
    ]
    arena = {"tokens": forest.tokens.copy(), "logprobs": forest.logprobs.copy()}
    texts = [""] * (nodes * copies)
    return Forest.of(Contents({}, "", rows, {}, arena, texts, [None] * (nodes * copies), infos, texts))


def fastest(repeats: int, *works: Callable[[], None]) -> list[float]:
    """CPU seconds of the fastest call of each, called one after the other again and again: `repeats` times, and for a
    second of CPU time at least, whoever is measured; the first time is not counted."""
    for work in works:
        work()
    done, spent, best = 0, 0.0, [math.inf] * len(works)
    while done < repeats or spent < SECONDS:
        for place, work in enumerate(works):
            start = time.process_time()
            work()
            seconds = time.process_time() - start
            best[place] = min(best[place], seconds)
            spent += seconds
        done += 1
    return best


def measure_ours(forest: Forest, trees: int, repeats: int) -> dict[str, float]:
    """Seconds per selection, backup and backup by the paper's rule, over the first `trees` trees."""
    chosen, one = np.arange(trees), np.ones(trees, np.int64)
    calls = max(1, min(256, 4096 // trees))  # few trees: many calls, so that the clock has something to measure
    saved, leaves, rule = values_of(forest), np.empty(0, np.int64), kernels.MEAN

    def select() -> None:
        nonlocal leaves
        leaves = kernels.select(forest, chosen, one, kernels.PUCT, C)[:, 0]

    def backup() -> None:
        kernels.back_up(forest, leaves, rule, 1.0)
        kernels.release(forest, leaves, expanded=False)

    selection, running = fastest(calls * repeats, select, backup)
    restore(forest, saved)
    rule = kernels.PAPER
    _, paper = fastest(calls * repeats, select, backup)
    restore(forest, saved)
    return {"selection": selection / trees, "backup": running / trees, "backup_paper": paper / trees}


def values_of(forest: Forest) -> dict[str, np.ndarray]:
    """Copies of all that a backup changes."""
    return {name: getattr(forest, name).copy() for name in ("visits", "q", "v", "returns")}


def restore(forest: Forest, saved: dict[str, np.ndarray]) -> None:
    for name, values in saved.items():
        getattr(forest, name)[:] = values


# --- a pure-Python tree -------------------------------------------------------------------------------


class Node:
    """One node, as public tree searches have it."""

    __slots__ = ("below", "children", "closed", "expanded", "parent", "prior", "q", "returns", "reward", "row", "v",
                 "virtual", "visits")  # fmt: skip

    def __init__(self, row: int, parent: Node | None, visits: int, q: float, prior: float, reward: float) -> None:
        self.row, self.parent, self.visits, self.q, self.prior, self.reward = row, parent, visits, q, prior, reward
        self.returns, self.v, self.below, self.virtual, self.closed, self.expanded = q * visits, 0.0, 0, 0, False, False
        self.children: list[Node] = []


def python_select(root: Node) -> Node:
    node = root
    while node.expanded:
        scale = C * math.sqrt(node.visits + node.virtual)
        best, best_score = None, -math.inf
        for child in node.children:
            if not child.closed:
                n, q = child.visits + child.virtual, child.q
                if child.virtual:
                    q = (child.visits * q - child.virtual) / n
                score = q + scale * child.prior / (1 + n)
                if score > best_score:
                    best, best_score = child, score
        assert best is not None
        node = best
    leaf, above, shut = node, node.parent, True
    leaf.closed, leaf.virtual = True, leaf.virtual + 1
    while above is not None:
        above.virtual += 1
        if shut:
            shut = above.closed = all(child.closed for child in above.children)
        above = above.parent
    return leaf


def python_back_up(leaf: Node, rule: int = kernels.MEAN) -> None:
    """The same steps as the compiled one: V as a running mean or from all children, the siblings of an open child not
    looked at."""
    node: Node | None = leaf
    seen, opened = 0.0, True
    while node is not None:
        node.visits += 1
        if rule == kernels.PAPER:
            if node.children:
                weighted = total = 0.0
                for child in node.children:
                    weighted += child.visits * child.q
                    total += child.visits
                node.v = weighted / total
            node.q = node.reward + node.v
        else:
            if node is not leaf:
                node.below += 1
                node.v += (seen - node.v) / node.below
            seen += node.reward
            node.returns += seen
            node.q = node.returns / node.visits
        node.virtual -= 1
        opened = opened or not node.expanded or any(not child.closed for child in node.children)
        node.closed = not opened
        node = node.parent


def python_trees(forest: Forest, trees: int) -> list[Node]:
    nodes: list[Node] = []
    order, local = by_tree(forest)
    for row in order[:trees].ravel().tolist():
        above = int(forest.parent[row])
        parent = nodes[len(nodes) // NODES * NODES + int(local[above])] if above >= 0 else None
        values = (forest.visits[row], forest.q[row], forest.prior[row], forest.reward[row])
        node = Node(row, parent, *(value.item() for value in values))
        nodes.append(node)
        if parent is not None:
            parent.children.append(node)
            parent.v, parent.below = float(forest.v[above]), parent.below + node.visits
            parent.expanded = True
    return [node for node in nodes if node.parent is None]


def by_tree(forest: Forest) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each tree, parents first [trees, NODES]; and for each row its place there [nodes]."""
    order = np.argsort(forest.tree, kind="stable").reshape(-1, NODES)
    local = np.empty(len(forest), np.int64)
    local[order.ravel()] = np.tile(np.arange(NODES), len(order))
    return order, local


def measure_python(forest: Forest, trees: int, repeats: int) -> tuple[dict[str, float], list[int], list[int]]:
    """Seconds per selection, backup and backup by the paper's rule; the rows selected; all visits after one backup."""
    roots = python_trees(forest, trees)
    leaves: list[Node] = []
    rule = kernels.MEAN

    def select() -> None:
        leaves[:] = [python_select(root) for root in roots]

    def backup() -> None:
        for leaf in leaves:
            python_back_up(leaf, rule)

    select()
    backup()
    selected = [leaf.row for leaf in leaves]
    by_row = {}
    queue = list(roots)
    while queue:
        node = queue.pop()
        by_row[node.row] = node.visits
        queue += node.children
    order, _ = by_tree(forest)
    visits = [by_row[row] for row in order[:trees].ravel().tolist()]
    selection, running = fastest(repeats, select, backup)
    rule = kernels.PAPER
    _, paper = fastest(repeats, select, backup)
    seconds = {"selection": selection / trees, "backup": running / trees, "backup_paper": paper / trees}
    return seconds, selected, visits


# --- mctx ---------------------------------------------------------------------------------------------


def measure_mctx(forest: Forest, trees: int, repeats: int) -> tuple[dict[str, float], list[int], list[int]]:
    """Seconds per selection and backup of all trees together; the rows selected; all visits after one backup."""
    import jax
    import jax.numpy as jnp
    import mctx
    from mctx._src.search import backward, simulate

    # In the calling thread: another one's CPU time is accounted for only when that sleeps, after the clock was read.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    wide = (trees, NODES, CHILDREN)
    order, local = by_tree(forest)
    above = forest.parent[order]
    parents = np.where(above >= 0, local[above], -1).astype(np.int32)
    # A child's action is its place among its siblings, which lie side by side.
    first = forest.first_child[order]
    inner = first >= 0
    children = np.where(inner[:, :, None], local[first][:, :, None] + np.arange(CHILDREN), mctx.Tree.UNVISITED)
    children = children.astype(np.int32)
    action = np.full(order.shape, -1, np.int32)
    t, n = np.nonzero(inner)
    for place in range(CHILDREN):
        action[t, children[t, n, place]] = place
    rows = np.where(inner[:, :, None], first[:, :, None] + np.arange(CHILDREN), 0)  # of the children, in the forest

    def edge(column: np.ndarray, dtype: Any) -> np.ndarray:
        return np.where(inner[:, :, None], column[rows], 0).astype(dtype)

    tree = mctx.Tree(
        node_visits=forest.visits[order].astype(np.int32),
        raw_values=np.zeros(order.shape, np.float32),
        node_values=np.zeros(order.shape, np.float32),
        parents=parents,
        action_from_parent=action,
        children_index=children,
        children_prior_logits=edge(forest.prior, np.float32),
        children_visits=edge(forest.visits, np.int32),
        children_rewards=np.zeros(wide, np.float32),
        children_discounts=np.ones(wide, np.float32),
        children_values=edge(forest.q, np.float32),
        embeddings=np.zeros(order.shape, np.float32),
        root_invalid_actions=np.zeros((trees, CHILDREN), np.float32),
        extra_data=None,
    )
    tree = jax.tree.map(jnp.asarray, tree)
    # A selection ends where mctx would evaluate a new node: at an edge whose child is not expanded.
    open_edge = inner[:, :, None] & (forest.first_child[rows] < 0)
    searched = tree.replace(children_index=jnp.where(open_edge, mctx.Tree.UNVISITED, tree.children_index))

    def puct(key: Any, tree: Any, node: Any, depth: Any) -> Any:
        # The priors are kept as they are, not as logits: the formula is the same for all three.
        n = tree.children_visits[node]
        score = tree.children_values[node] + C * tree.children_prior_logits[node] * jnp.sqrt(
            tree.node_visits[node].astype(jnp.float32)
        ) / (1 + n)
        return jnp.argmax(score).astype(jnp.int32)

    keys = jax.random.split(jax.random.PRNGKey(0), trees)
    select = jax.jit(lambda keys, tree: simulate(keys, tree, puct, NODES))
    ends, taken = (np.asarray(found) for found in select(keys, searched))
    leaves = children[np.arange(trees), ends, taken]
    selected = order[np.arange(trees), leaves].tolist()

    def select_often() -> None:
        for _ in range(OFTEN):
            jax.block_until_ready(select(keys, searched))

    (selection,) = fastest(repeats, select_often)
    back = jax.jit(backward, donate_argnums=0)
    held = [jax.block_until_ready(back(tree, jnp.asarray(leaves)))]
    after = np.asarray(held[0].node_visits).reshape(-1).tolist()

    def backup() -> None:
        held[0] = jax.block_until_ready(back(held[0], jnp.asarray(leaves)))

    (running,) = fastest(repeats, backup)
    return {"selection": selection / OFTEN / trees, "backup": running / trees}, selected, after


def measure(trees: int, repeats: int = 5, python_trees: int = 4096) -> dict[str, Any]:
    """All three on one forest."""
    forest = grown(trees)
    everyone, one = np.arange(trees), np.ones(trees, np.int64)
    leaves = kernels.select(forest, everyone, one, kernels.PUCT, C)[:, 0]
    kernels.release(forest, leaves, expanded=False)
    before = values_of(forest)
    depth = float(forest.depth[leaves].mean())
    ours = measure_ours(forest, trees, repeats)
    curve = {str(count): measure_ours(forest, count, repeats) for count in CURVE if count <= trees}
    assert (forest.visits == before["visits"]).all()
    kernels.back_up(forest, leaves, kernels.MEAN, 1.0)
    expected = forest.visits.copy()
    restore(forest, before)
    few = min(python_trees, trees)
    order, _ = by_tree(forest)
    python, selected, visits = measure_python(forest, few, repeats)
    agree = {"python_leaves": float(np.mean(np.array(selected) == leaves[:few]))}
    agree["python_visits"] = float(np.mean(np.array(visits) == expected[order[:few].ravel()]))
    mctx_seconds, selected, visits = measure_mctx(forest, trees, repeats)
    # mctx counts a visit of a node when it is evaluated and of every node above the leaf at a backup, not of the leaf.
    inner = ~np.isin(order.ravel(), leaves)
    agree["mctx_leaves"] = float(np.mean(np.array(selected) == leaves))
    agree["mctx_visits"] = float(np.mean((np.array(visits) == expected[order.ravel()])[inner]))
    for name, share in agree.items():
        if share < 0.999:
            raise RuntimeError(f"not the same work: {name} agree on {share:.4f} only")
    speedups = {
        name: {kind: other[kind] / ours[kind] for kind in other}
        for name, other in (("python", python), ("mctx", mctx_seconds))
    }
    return {
        "trees": trees,
        "nodes_per_tree": NODES,
        "mean_depth_selected": depth,
        "seconds_per": {"ours": ours, "python": python, "mctx": mctx_seconds},
        "speedup": speedups,
        # The smallest of selections and backups: a claim holds for all.
        "kernel_speedup_vs_python": min(speedups["python"].values()),
        "kernel_speedup_vs_mctx": min(speedups["mctx"].values()),
        "agreement": agree,
        "curve": curve,
        "bytes_per_node": bytes_per_node(),
        "bytes_per_token": 8,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--trees", type=int, default=256, help="a multiple of 64, or fewer than that")
    arguments = parser.parse_args()
    write_json(arguments.json, measure(arguments.trees))


if __name__ == "__main__":
    main()
