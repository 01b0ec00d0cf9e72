"""Pairs and solutions of a small tree whose right answers are worked out by hand, and invariants on random trees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.preferences import PreferenceSettings, best_path, extract_pairs, extract_siblings, extract_solutions
from mcts_dpo.search import FINISHES, Forest

END, LENGTH = FINISHES.index("end"), FINISHES.index("length")


def grow(forest: Forest, parent: int, text: str, *, q: float, visits: int, finish: int = 0, outcome: int = 0) -> int:
    """One step whose tokens are its text's code points."""
    tokens = [ord(letter) for letter in text]
    node = forest.add_child(parent, tokens, [-0.5] * len(tokens), text, finish)
    forest.q[node], forest.visits[node], forest.samples[node], forest.outcome[node] = q, visits, visits, outcome
    return node


def small_forest() -> Forest:
    """root → a (Q .5) → {right (1), wrong (-1)}; root → b (Q -1) → wrong; root → c (Q -1, visited more)."""
    forest = Forest({}, "digest")
    forest.add_tree("p-1", [7, 8], "Q:")
    a = grow(forest, 0, "a\n", q=0.5, visits=4)
    b = grow(forest, 0, "b\n", q=-1.0, visits=1)
    grow(forest, 0, "c\n", q=-1.0, visits=3, finish=END, outcome=-1)
    grow(forest, a, "right", q=1.0, visits=3, finish=END, outcome=1)
    grow(forest, a, "wrong", q=-1.0, visits=1, finish=END, outcome=-1)
    grow(forest, b, "wrong", q=-1.0, visits=1, finish=END, outcome=-1)
    return forest


def names(forest: Forest, **options: object) -> list[tuple[str, str]]:
    pairs = extract_pairs([forest], PreferenceSettings(**options))  # type: ignore[arg-type]
    return list(zip(pairs.texts("chosen"), pairs.texts("rejected"), strict=True))


def test_best_and_worst_of_every_parent() -> None:
    # Among the equally bad, c was visited more, so more is known of it.
    assert names(small_forest(), select="best_worst") == [("a\n", "c\n"), ("right", "wrong")]


def test_best_path_follows_the_highest_q() -> None:
    forest = small_forest()
    assert [forest.texts[node] for node in best_path(forest, 0)] == ["", "a\n", "right"]
    assert names(forest, select="best_path") == [("a\n", "c\n"), ("right", "wrong")]


def test_a_random_rejected_is_any_but_the_best_and_the_same_each_time() -> None:
    met = set()
    for problem in range(20):
        forest = small_forest()
        forest.trees[0].problem_id = f"p-{problem}"
        found = names(forest, select="best_path", rejected="random")
        assert found == names(forest, select="best_path", rejected="random")
        assert [chosen for chosen, _ in found] == ["a\n", "right"]
        met.add(found[0][1])
    assert met == {"b\n", "c\n"}


def test_all_pairs_skip_ties() -> None:
    assert names(small_forest(), select="all", min_gap=0.0) == [("a\n", "c\n"), ("a\n", "b\n"), ("right", "wrong")]


def test_filters() -> None:
    assert names(small_forest(), min_gap=1.6) == [("right", "wrong")]
    assert names(small_forest(), min_visits=2) == [("a\n", "c\n")]
    assert names(small_forest(), min_gap=2.5) == []


def wide_forest() -> Forest:
    """One parent, five children: good, often middling, twice poor, once hopeless."""
    forest = Forest({}, "digest")
    forest.add_tree("p", [1], "Q")
    for text, q, visits in (("good", 1.0, 30), ("middling", 0.4, 40), ("fair", 0.5, 9), ("poor", -0.2, 12)):
        grow(forest, 0, text, q=q, visits=visits)
    grow(forest, 0, "hopeless", q=-1.0, visits=1)
    return forest


def test_two_sigma_passes_over_a_rare_failure() -> None:
    assert names(wide_forest(), select="best_worst") == [("good", "hopeless")]
    # Mean 0.51, deviation 0.40: μ − 2σ = −0.28, nearest to the poor one's −0.2.
    assert names(wide_forest(), select="two_sigma") == [("good", "poor")]


def test_of_too_many_pairs_those_asked_for_are_kept() -> None:
    forest = wide_forest()
    everything = names(forest, select="all", min_gap=0.0)
    assert len(everything) == 10
    assert names(forest, select="all", min_gap=0.0, max_pairs=2) == everything[:2]
    largest = names(forest, select="all", min_gap=0.0, max_pairs=2, first="margin")
    assert largest == [("good", "hopeless"), ("fair", "hopeless")]
    # Every token has log-probability −0.5, so steps of equal length are what the policy is undecided between.
    nearest = names(forest, select="all", min_gap=0.0, max_pairs=2, first="boundary")
    assert nearest == [("good", "fair"), ("good", "poor")]


def test_uncertain_pairs_can_be_left_out() -> None:
    kept = names(wide_forest(), select="all", min_gap=0.0, min_certainty=0.95)
    assert ("good", "poor") in kept
    assert ("fair", "middling") not in kept  # 0.1 apart, 9 visits
    assert ("good", "hopeless") in kept
    assert ("poor", "hopeless") not in kept  # seen once


def test_shrinkage_distrusts_one_lucky_guess() -> None:
    forest = Forest({}, "digest")
    forest.add_tree("p", [1], "Q")
    grow(forest, 0, "lucky", q=1.0, visits=1, finish=END, outcome=1)
    grow(forest, 0, "steady", q=0.9, visits=40, finish=END, outcome=1)
    grow(forest, 0, "bad", q=-1.0, visits=40, finish=END, outcome=-1)
    assert names(forest, shrinkage=0.0)[0][0] == "lucky"
    assert names(forest, shrinkage=2.0)[0][0] == "steady"
    # (1 · 1 − 2) / (1 + 2) and (40 · 0.9 − 2) / (40 + 2), (40 · −1 − 2) / 42.
    pairs = extract_pairs([forest], PreferenceSettings(select="all", min_gap=0.0, shrinkage=2.0))
    assert pairs.numbers("margin")[0] == pytest.approx((34 - (-1 / 3) * 42) / 42)


def test_a_row_holds_what_the_trainer_needs() -> None:
    pairs = extract_pairs([small_forest()], PreferenceSettings())
    row = 1
    assert pairs.texts("prompt")[row] == "Q:a\n"
    assert pairs.tokens("prompt_tokens")[row].tolist() == [7, 8]
    assert pairs.tokens("prefix_tokens")[row].tolist() == [ord("a"), 10]
    assert bytes(pairs.tokens("chosen_tokens")[row].tolist()) == b"right"
    assert bytes(pairs.tokens("rejected_tokens")[row].tolist()) == b"wrong"
    assert pairs.numbers("margin")[row] == 2.0
    assert pairs.numbers("chosen_logprob")[row] == -2.5
    # α = 1 / (3 / 1 + 1), and 1 / (4 / 3 + 1) for the other pair.
    assert pairs.numbers("smoothing").tolist() == pytest.approx([3 / 7, 1 / 4])


def test_weight_by_evidence_counts_samples() -> None:
    forest = small_forest()
    forest.samples[:] = [0, 6, 1, 2, 3, 1, 1]
    pairs = extract_pairs([forest], PreferenceSettings(weight="samples"))
    # a (6 samples) over c (2), right (3) over wrong (1).
    assert pairs.numbers("weight").tolist() == [3.0, 1.5]
    lists = extract_siblings([forest], PreferenceSettings(weight="samples"))
    # The list's worst is b (1 sample): of equals the one visited less comes last.
    assert lists.numbers("weight").tolist() == pytest.approx([12 / 7] * 3 + [1.5] * 2)


def test_smoothing_never_reverses_a_label() -> None:
    forest = Forest({}, "digest")
    forest.add_tree("p", [1], "Q")
    grow(forest, 0, "good", q=1.0, visits=1, finish=END, outcome=1)
    grow(forest, 0, "bad", q=-1.0, visits=30, finish=END, outcome=-1)
    # Unclipped it would be 1 / (1 / 30 + 1) = 0.97.
    assert extract_pairs([forest]).numbers("smoothing").tolist() == [0.45]
    assert extract_pairs([forest], PreferenceSettings(smoothing="none")).numbers("smoothing").tolist() == [0.0]


def test_solutions_come_from_mixed_trees_and_end_by_themselves() -> None:
    solutions = extract_solutions([small_forest()])
    assert solutions.texts("completion") == ["a\nright"]
    easy = Forest({}, "digest")
    easy.add_tree("easy", [1], "Q")
    grow(easy, 0, "right", q=1.0, visits=4, finish=END, outcome=1)
    cut = Forest({}, "digest")
    cut.add_tree("cut", [1], "Q")
    grow(cut, 0, "right but cut", q=1.0, visits=4, finish=LENGTH, outcome=1)
    grow(cut, 0, "wrong", q=-1.0, visits=4, finish=END, outcome=-1)
    assert len(extract_solutions([easy, cut])) == 0


def test_failed_trees_and_foreign_forests() -> None:
    forest = small_forest()
    forest.trees[0].status = "failed"
    assert len(extract_pairs([forest])) == 0
    with pytest.raises(InputError, match="tokenizer's digest"):
        extract_pairs([Forest()])
    with pytest.raises(InputError, match="nothing to concatenate"):
        extract_pairs([])
    other = Forest({}, "another")
    other.add_tree("p-2", [1], "Q")
    with pytest.raises(InputError, match="different tokenizers"):
        extract_pairs([small_forest(), other])


def random_forest(seed: int) -> Forest:
    """Three small trees of random shape, values, visits and outcomes."""
    rng = np.random.default_rng(seed)
    forest = Forest({}, "digest")
    for number in range(3):
        root = len(forest)
        forest.add_tree(f"p-{number}", [number + 1], "Q")
        open_nodes = [root]
        for _ in range(int(rng.integers(0, 12))):
            parent = int(rng.choice(open_nodes))
            finish = END if rng.random() < 0.3 else 0
            node = grow(
                forest,
                parent,
                f"{len(forest)}\n",
                q=float(rng.uniform(-1, 1)),
                visits=int(rng.integers(1, 9)),
                finish=finish,
                outcome=int(rng.choice([-1, 1])) if finish else 0,
            )
            if not finish:
                open_nodes.append(node)
    return forest


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["best_path", "best_worst", "two_sigma", "all"]),
    st.floats(0, 1.5),
    st.floats(0, 3),
)
def test_invariants_on_random_trees(seed: int, select: str, gap: float, shrinkage: float) -> None:
    forest = random_forest(seed)
    options = PreferenceSettings(select=select, min_gap=gap, shrinkage=shrinkage)  # type: ignore[arg-type]
    pairs = extract_pairs([forest], options)
    chosen, rejected = pairs.numbers("chosen_node"), pairs.numbers("rejected_node")
    assert (forest.parent[chosen] == forest.parent[rejected]).all()
    assert (chosen != rejected).all()
    assert (pairs.numbers("margin") >= gap).all()
    assert (pairs.numbers("smoothing") < 0.5).all()
    if select != "all":
        assert len(set(pairs.numbers("parent").tolist())) == len(pairs)
    if select == "best_path":
        paths = {node for info in forest.trees for node in best_path(forest, info.root, shrinkage)}
        assert set(chosen.tolist()) <= paths
    assert pairs == extract_pairs([forest], options)
