"""The kernels against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mcts_dpo.search import Forest
from mcts_dpo.search.kernels import MEAN, PAPER, PUCT, UCT, back_up, release, select, set_priors
from mcts_dpo.search.tree import EXHAUSTED, IN_FLIGHT, OPEN

END = 1


def family(*, q: list[float], visits: list[int], prior: list[float]) -> Forest:
    """A root, expanded, with children 1, 2, …"""
    forest = Forest()
    forest.add_tree("p", [1], "Q")
    for index in range(len(q)):
        forest.add_child(0, [index], [-1.0], f"{index}\n")
    forest.q[1:], forest.visits[1:], forest.prior[1:] = q, visits, prior
    forest.visits[0] = sum(visits)
    forest.samples[1:] = 1
    forest.expanded[0] = True
    return forest


def one(forest: Forest, wanted: int = 1, rule: int = PUCT, c: float = 1.0) -> list[int]:
    return [int(node) for node in select(forest, np.array([0]), np.array([wanted]), rule, c)[0]]


def test_puct_is_q_plus_c_prior_root_n_over_one_plus_n() -> None:
    # 0.1 + c · 0.6 · √4 / 2 against 0.5 + c · 0.2 · √4 / 4: equal at c = 0.8
    for c, expected in ((0.79, 2), (0.81, 1)):
        assert one(family(q=[0.1, 0.5], visits=[1, 3], prior=[0.6, 0.2]), c=c) == [expected]


def test_uct_is_q_plus_c_root_log_n_over_n() -> None:
    # 0.1 + c √(ln 4) against 0.5 + c √(ln 4 / 3)
    boundary = 0.4 / (math.sqrt(math.log(4)) * (1 - math.sqrt(1 / 3)))
    for c, expected in ((boundary - 0.01, 2), (boundary + 0.01, 1)):
        assert one(family(q=[0.1, 0.5], visits=[1, 3], prior=[0.5, 0.5]), rule=UCT, c=c) == [expected]


@pytest.mark.parametrize("rule", [PUCT, UCT])
def test_ties_go_to_the_first_sampled(rule: int) -> None:
    assert one(family(q=[0.0, 0.5, 0.5], visits=[2, 2, 2], prior=[0.3, 0.3, 0.3]), rule=rule) == [2]


def test_a_virtual_loss_drives_the_next_leaf_elsewhere() -> None:
    forest = family(q=[0.5, 0.4, -1.0], visits=[2, 2, 2], prior=[0.4, 0.4, 0.2])
    for node in (1, 2, 3):
        child = forest.add_child(node, [9], [-1.0], "x\n")
        grandchild = forest.add_child(node, [8], [-1.0], "y\n")
        forest.expanded[node] = True
        forest.visits[[child, grandchild]] = 1
        forest.prior[[child, grandchild]] = 0.5
    # 0.5 counts as (2 · 0.5 - 1) / 3 = 0 while one of its leaves is out: then 0.4 is higher.
    leaves = one(forest, wanted=2)
    assert [int(forest.parent[leaf]) for leaf in leaves] == [1, 2]
    assert forest.virtual[[0, 1, 2, 3]].tolist() == [2, 1, 1, 0]
    release(forest, np.array(leaves))
    assert (forest.virtual == 0).all()


def test_a_leaf_in_flight_is_not_given_out_twice() -> None:
    forest = family(q=[0.5, 0.4], visits=[1, 1], prior=[0.5, 0.5])
    assert one(forest, wanted=4) == [1, 2, -1, -1]
    assert forest.closed.tolist() == [IN_FLIGHT] * 3
    release(forest, np.array([1]), expanded=False)
    assert forest.closed.tolist() == [OPEN, OPEN, IN_FLIGHT]
    assert one(forest, wanted=2) == [1, -1]


def test_below_a_move_too_what_is_all_out_closes_up_to_the_root() -> None:
    forest = Forest()
    forest.add_tree("p", [1], "Q")
    start = forest.add_child(0, [1], [-1.0], "a\n")
    leaf = forest.add_child(start, [2], [-1.0], "b\n")
    forest.expanded[[0, start]] = True
    assert select(forest, np.array([0]), np.array([2]), PUCT, 1.0, roots=np.array([start])).tolist() == [[leaf, -1]]
    assert forest.closed.tolist() == [IN_FLIGHT] * 3
    assert forest.virtual.tolist() == [1, 1, 1]
    release(forest, np.array([leaf]), expanded=False)
    assert (forest.closed.tolist(), forest.virtual.tolist()) == ([OPEN] * 3, [0] * 3)
    assert forest.expansions.tolist() == [0, 0, 0], "nothing was sampled"
    release(forest, select(forest, np.array([0]), np.array([1]), PUCT, 1.0)[0])
    assert forest.expansions.tolist() == [1, 1, 1]


def test_exhausted_subtrees_are_passed_by_and_end_the_tree() -> None:
    forest = family(q=[0.9, -0.5], visits=[1, 1], prior=[0.9, 0.1])
    end = forest.add_child(1, [5], [-1.0], "end", END)
    forest.virtual[[0, 1]] = 1
    release(forest, np.array([1]))
    assert forest.closed[[0, 1, 2, end]].tolist() == [OPEN, EXHAUSTED, OPEN, EXHAUSTED]
    assert one(forest) == [2]
    forest.add_child(2, [6], [-1.0], "end", END)
    release(forest, np.array([2]))
    assert forest.closed[0] == EXHAUSTED
    assert one(forest, wanted=2) == [-1, -1]
    assert (forest.virtual == 0).all()


def test_many_trees_in_one_call() -> None:
    forest = Forest()
    for name in "abc":
        forest.add_tree(name, [1], name)
    chosen = select(forest, np.array([2, 0]), np.array([1, 3]), PUCT, 1.0)
    assert chosen.tolist() == [[2, -1, -1], [0, -1, -1]]
    assert forest.virtual.tolist() == [1, 0, 1]
    assert select(forest, np.array([], np.int64), np.array([], np.int64), PUCT, 1.0).shape == (0, 0)


def chain() -> Forest:
    """root → a → (b, right; c, wrong)."""
    forest = Forest()
    forest.add_tree("p", [1], "Q")
    a = forest.add_child(0, [1], [-1.0], "a\n")
    forest.add_child(a, [2], [-1.0], "b", END)
    forest.add_child(a, [3], [-1.0], "c", END)
    forest.reward[1:] = [0.25, 1.0, -1.0]
    return forest


def test_paper_backup() -> None:
    forest = chain()
    back_up(forest, np.array([2, 3, 2]), PAPER, 0.5)
    assert forest.visits.tolist() == [3, 3, 2, 1]
    assert forest.q[[2, 3]].tolist() == [1.0, -1.0]
    assert forest.v[1] == pytest.approx(1 / 3)
    assert forest.q[1] == pytest.approx(0.25 + 0.5 / 3)
    assert forest.v[0] == pytest.approx(forest.q[1])
    assert forest.q[0] == 0.0


def test_mean_backup() -> None:
    forest = chain()
    back_up(forest, np.array([1]), MEAN, 0.5)  # a alone, as when steps are sampled one by one
    back_up(forest, np.array([2, 3, 2]), MEAN, 0.5)
    returns = [0.25, 0.25 + 0.5, 0.25 - 0.5, 0.25 + 0.5]
    assert forest.visits.tolist() == [4, 4, 2, 1]
    assert forest.q[1] == pytest.approx(np.mean(returns))
    assert forest.returns[1] == pytest.approx(sum(returns))
    assert forest.v[1] == pytest.approx(1 / 3)


def test_the_two_backups_differ_where_a_child_was_a_leaf_first() -> None:
    paper, mean = chain(), chain()
    for forest, rule in ((paper, PAPER), (mean, MEAN)):
        back_up(forest, np.array([1, 2]), rule, 1.0)
    assert paper.q[1] == pytest.approx(0.25 + 1.0)
    assert mean.q[1] == pytest.approx((0.25 + 1.25) / 2)


def test_priors() -> None:
    forest = family(q=[0, 0, 0], visits=[1, 1, 1], prior=[0, 0, 0])
    forest.mass[1:] = [0.6, 0.2, 0.4]
    forest.samples[1:] = [3, 1, 2]
    set_priors(forest, np.array([0]), True)
    assert forest.prior[1:].tolist() == pytest.approx([0.5, 1 / 6, 1 / 3])
    set_priors(forest, np.array([0]), False)
    assert forest.prior[1:].tolist() == [0.6, 0.2, 0.4]
    forest.mass[1:] = 0.0
    set_priors(forest, np.array([0]), True)
    assert forest.prior[1:].tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 3])


def woods(rng: np.random.Generator, trees: int) -> Forest:
    """Trees of all sizes whose families grew at different times, so that siblings lie apart; some nodes have children
    and are not expanded, some are ends."""
    forest = Forest()
    for tree in range(trees):
        forest.add_tree(str(tree), [1], "Q")
    for _ in range(trees * 12):
        open_nodes = np.flatnonzero(~forest.terminal)
        parent = int(rng.choice(open_nodes))
        for _ in range(rng.integers(1, 5)):
            node = forest.add_child(parent, [1], [-1.0], "x\n", END if rng.random() < 0.2 else 0)
            forest.samples[node] = 1
    forest.prior[:], forest.reward[:] = rng.random(len(forest)), rng.normal(size=len(forest))
    for node in range(
        len(forest)
    ):  # selection comes only where it has been: below a node that is not expanded, none is
        reached = node < trees or forest.expanded[forest.parent[node]]
        forest.expanded[node] = reached and bool(forest.children(node)) and rng.random() < 0.85
    for node in range(len(forest) - 1, -1, -1):
        if forest.expanded[node]:
            forest.closed[node] = min(int(forest.closed[child]) for child in forest.children(node))
    return forest


def best_path(forest: Forest, node: int, rule: int, c: float) -> list[int]:
    """What `select` must go through, from the columns alone."""
    path = [node]
    while forest.expanded[path[-1]]:
        here = path[-1]
        total = int(forest.visits[here] + forest.virtual[here])

        def score(child: int, total: int = total) -> float:
            n, out = int(forest.visits[child]), int(forest.virtual[child])
            q = (n * forest.q[child] - out) / (n + out) if out else forest.q[child]
            if rule == UCT:
                return q + c * math.sqrt(math.log(total) / (n + out)) if n + out else math.inf
            return q + c * math.sqrt(total) * forest.prior[child] / (1 + n + out)

        path.append(max((child for child in forest.children(here) if forest.closed[child] == OPEN), key=score))
    return path


def hold(forest: Forest, leaf: int) -> None:
    """What `select` does to a leaf that it gives out."""
    forest.closed[leaf] = IN_FLIGHT
    for node in forest.path(leaf)[::-1]:
        forest.virtual[node] += 1
        if node != leaf and not any(forest.closed[child] == OPEN for child in forest.children(node)):
            forest.closed[node] = IN_FLIGHT


@pytest.mark.parametrize("rule", [PUCT, UCT])
@pytest.mark.parametrize("backup", [PAPER, MEAN])
@pytest.mark.parametrize("seed", range(4))
def test_any_number_of_trees_at_once_as_one_leaf_after_the_other(rule: int, backup: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    forest = woods(rng, 75)
    back_up(forest, np.flatnonzero(forest.samples > 0), backup, 0.9)
    slow = woods(np.random.default_rng(seed), 75)
    back_up(slow, np.flatnonzero(slow.samples > 0), backup, 0.9)
    assert forest == slow
    for _ in range(4):
        wanted = rng.integers(0, 4, 75)
        leaves = select(forest, np.arange(75), wanted, rule, 1.5)
        for tree in range(75):
            for slot in range(leaves.shape[1]):
                able = slot < wanted[tree] and slow.closed[tree] == OPEN
                leaf = best_path(slow, tree, rule, 1.5)[-1] if able else -1
                assert leaves[tree, slot] == leaf
                if able:
                    hold(slow, leaf)
        assert forest == slow
        ends = leaves[leaves >= 0]
        back_up(forest, ends, backup, 0.9)
        release(forest, ends, expanded=False)
        for end in ends.tolist():
            back_up(slow, np.array([end]), backup, 0.9)
        for end in ends[::-1].tolist():
            release(slow, np.array([end]), expanded=False)
        assert forest == slow  # to the last bit
        weight = np.bincount(forest.parent[75:], forest.visits[75:], len(forest))
        value = np.bincount(forest.parent[75:], (forest.visits * forest.q)[75:], len(forest)) / np.maximum(weight, 1)
        np.testing.assert_allclose(forest.v, value, atol=1e-12)
        assert (forest.virtual == 0).all()
