"""Votes: the same classes as by comparing one by one, few comparisons where few are needed, and one budget for all."""

from __future__ import annotations

import time
from itertools import combinations

import pytest

from verifiers import VerifierPool, equivalence_classes, grouped, verify, voting

SLOW = [rf"\sum_{{k=1}}^{{400}} \sin(k)^{{\sqrt{{2}}}} + 10^{{-{500 + index}}}" for index in range(64)]
MIXED = [
    "1/2",
    "0.5",
    None,
    "3",
    r"\frac{2}{4}",
    "x+1",
    "1+x",
    "",
    r"\sqrt{8}",
    r"2\sqrt{2}",
    "2.8284",
    r"\pi",
    "3.1416",
]
MIXED += ["(1,2)", "(2,1)", "1, 2", "2, 1", r"50\%", "7 cm", "7", "70 mm", r"\sin(2x)", r"2\sin x\cos x", "no solution"]
MIXED += [
    "dog",
    "god",
    r"e^{i\pi}",
    "-1",
    r"\frac{1}{3}",
    "0.3333",
    "x = 5",
    "5",
    "[0,1)",
    r"90^\circ",
    r"\frac{\pi}{2}",
]


def one_by_one(answers: list[str | None]) -> list[list[int]]:
    """The definition: an answer joins the first class whose first member it equals."""
    classes: list[list[int]] = []
    for index, answer in enumerate(answers):
        if answer:
            place = next((members for members in classes if verify(answers[members[0]], answer)), None)
            if place is None:
                classes.append([index])
            else:
                place.append(index)
    return classes


def test_classes_are_what_comparing_one_by_one_gives() -> None:
    for answers in (MIXED, MIXED[::-1], MIXED + MIXED):
        found = grouped(answers, seconds=60.0)
        assert found.undecided == 0
        assert found.classes == one_by_one(answers)


def test_a_vote_has_one_budget_and_what_it_cannot_decide_stays_apart() -> None:
    begun = time.monotonic()
    found = grouped(["5", *SLOW, "5.0"], seconds=1.0)
    assert time.monotonic() - begun < 60, "one by one it is a quarter of an hour"
    assert found.classes[0] == [0, 65]
    assert len(found.classes) == 65
    assert 0 < found.undecided <= 65 * 64 // 2


def test_what_differs_by_its_spelling_only_meets_by_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []
    cheap = voting.cheap_verdict

    def counting(reference: str, answer: str, policy: object) -> object:
        compared.append((reference, answer))
        return cheap(reference, answer, policy)  # type: ignore[arg-type]

    monkeypatch.setattr(voting, "cheap_verdict", counting)
    same = [f"{index}x+{index}y-{index - 1}x-{index - 1}y" for index in range(2, 202)]
    assert equivalence_classes(same) == [list(range(200))]
    assert len(compared) < 200
    apart = [rf"\frac{{{index}\pi}}{{7}}+\sqrt{{{index}}}" for index in range(2, 202)]
    compared.clear()
    assert len(equivalence_classes(apart)) == 200
    assert len(compared) < 2_000, "of 19,900 pairs; the others differ as numbers already"


def test_words_of_the_same_letters_are_compared_as_the_verifier_compares_them() -> None:
    words = ["dog", "god", "HHT", "HTH", "d*o*g", "o*g*d"]
    assert equivalence_classes(words) == one_by_one(list(words))


def test_a_pair_gets_its_second_try_after_the_others() -> None:
    with VerifierPool(deadline=1e-4) as hasty:
        before, voting_pool = list(voting_pools()), [hasty]
        try:
            voting_pools()[:] = voting_pool
            found = grouped([r"\sin(2x)+\sin^2 x", r"2\sin x\cos x+\sin^2 x"])
        finally:
            voting_pools()[:] = before
    assert found.classes == [[0], [1]]
    assert found.undecided == 1


def voting_pools() -> list[VerifierPool]:
    """Where the process keeps its own pool."""
    from verifiers.prove import pool

    return pool._DEFAULT


def test_a_budget_out_of_range_is_refused() -> None:
    for seconds in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"seconds: .* \(accepted: above 0\)"):
            grouped(["1"], seconds=seconds)


def test_all_pairs_of_one_class_are_equal_to_its_first() -> None:
    for members in equivalence_classes(MIXED):
        assert all(verify(MIXED[members[0]], MIXED[other]) for other in members[1:])
    firsts = [members[0] for members in equivalence_classes(MIXED)]
    assert not any(verify(MIXED[a], MIXED[b]) for a, b in combinations(firsts, 2))
