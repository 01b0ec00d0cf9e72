"""How good is a judge of steps? Metrics of its scores against the truth of each step and of each solution.

In: solutions with a score and a label per step. Out: `JudgeMetrics`. No model, file or tree is needed here.

A step is *conditional* if every step before it is right. Such a step is either right or the first error. A judge that
knows only depth and base rate scores well over all steps (`auc_steps`) and badly over these (`auc_conditional`), and
only the latter helps a search. First errors are predicted as ProcessBench does (Zheng et al. 2024, arXiv 2412.06559,
section 4): the first step with a score below the threshold; none if no step has one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.common.statistics import Estimate, cluster_bootstrap, proportion, weighted_auc

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

BINS = 10
"""Bins of the reliability table, of equal width over [0, 1]."""


@dataclass(frozen=True, slots=True)
class JudgedSolution:
    """A judge's scores of the steps of one solution, and the truth.

    step_scores: [k] in [0, 1], the higher the better; nan where the judge gave no score.
    step_right:  [k] whether each step is right; None where that is not known. What follows a first error is ignored.
    final_right: whether the solution is right; None if that is not known.
    problem:     its problem. Intervals treat solutions of one problem as dependent.
    shared:      how many of its first steps an earlier solution has too (paths of one tree). They count once, there.
    """

    step_scores: Sequence[float]
    step_right: Sequence[bool | None]
    final_right: bool | None
    problem: Hashable = ""
    shared: int = 0

    def first_error(self) -> int | None:
        """The index of the first wrong step; -1 if all steps are right; None if that is not known."""
        for index, right in enumerate(self.step_right):
            if not right:
                return None if right is None else index
        return -1

    def predicted_error(self, threshold: float) -> int:
        """The index of the first step that is scored below `threshold`; -1 without one."""
        return next((index for index, score in enumerate(self.step_scores) if score < threshold), -1)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The steps whose scores are in [low, high): how many, their mean score, and the share that is right."""

    low: float
    high: float
    count: int
    score: float
    right: float


@dataclass(frozen=True, slots=True)
class DepthMetrics:
    """The conditional steps at one depth (0: the first step of a solution).

    right, errors: numbers of right steps and of first errors. auc: as `auc_conditional`; None without both kinds.
    false_alarm, miss: as in `JudgeMetrics`; None without a step of the kind.
    """

    depth: int
    right: int
    errors: int
    auc: float | None
    false_alarm: float | None
    miss: float | None


@dataclass(frozen=True, slots=True)
class JudgeMetrics:
    """How well a judge tells right from wrong. Intervals of 95 % are over problems; None: there is nothing to measure.

    threshold:   a step scored below it counts as judged wrong.
    solutions, problems: how many were judged. steps: conditional steps with a score. first_errors: those among them.
    unscored:    conditional steps without a score. They are left out of all figures but the predicted first errors.
    auc_final:   the chance that a right solution's last score exceeds a wrong solution's.
    auc_steps:   the chance that a step up to which all is right scores above one where something was wrong.
    auc_conditional: the chance that a right step scores above a first error, all steps before being right.
    auc_same_depth: the same among steps at one depth, so that depth is no help: what a search compares.
    false_alarm: share of right conditional steps scored below the threshold.
    miss:        share of first errors scored at or above the threshold.
    error_accuracy: share of solutions with a wrong step whose first error is predicted exactly.
    right_accuracy: share of solutions without a wrong step in which no error is predicted.
    f1:          the harmonic mean of these two, ProcessBench's figure.
    brier:       mean squared difference of score and truth (1: right) over the conditional steps.
    brier_final: the same of last scores over solutions.
    reliability: the table of conditional steps by score; empty bins are left out.
    reliability_final: the same of last scores over solutions.
    by_depth:    the conditional steps at each depth.
    """

    threshold: float
    solutions: int
    problems: int
    steps: int
    first_errors: int
    unscored: int
    auc_final: Estimate | None
    auc_steps: Estimate | None
    auc_conditional: Estimate | None
    auc_same_depth: Estimate | None
    false_alarm: Estimate | None
    miss: Estimate | None
    error_accuracy: Estimate | None
    right_accuracy: Estimate | None
    f1: Estimate | None
    brier: Estimate | None
    brier_final: Estimate | None
    reliability: tuple[ReliabilityBin, ...]
    reliability_final: tuple[ReliabilityBin, ...]
    by_depth: tuple[DepthMetrics, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Scored:
    """Items with a score and a known label. score, right, depth: [n]. cluster: [n] the problem of each."""

    score: Floats
    right: Flags
    depth: NDArray[np.int64]
    cluster: list[Hashable]

    def where(self, flags: Flags) -> _Scored:
        kept = np.flatnonzero(flags)
        return _Scored(self.score[kept], self.right[kept], self.depth[kept], [self.cluster[index] for index in kept])


def judge_metrics(
    solutions: Sequence[JudgedSolution], threshold: float = 0.5, *, resamples: int = 1000
) -> JudgeMetrics:
    """Compare a judge's scores with the truth.

    threshold: see `JudgeMetrics`; `best_threshold` chooses one on other solutions. resamples: of the intervals.
    """
    everywhere, conditional, unscored = _steps(solutions)
    finals = _finals(solutions)
    errors, alarms = conditional.where(~conditional.right), conditional.where(conditional.right)
    known = [(one, first) for one in solutions if (first := one.first_error()) is not None]
    exact = np.array([one.predicted_error(threshold) == first for one, first in known], bool)
    wrong = np.array([first >= 0 for _, first in known], bool)
    clusters = [one.problem for one, _ in known]

    def mean(values: NDArray[Any], of: Sequence[Hashable]) -> Estimate | None:
        return _rate(values, of, resamples)

    def area(scored: _Scored, groups: NDArray[np.int64] | None = None) -> Estimate | None:
        return cluster_bootstrap(weighted_auc(scored.score, scored.right, groups), scored.cluster, resamples=resamples)

    return JudgeMetrics(
        threshold=threshold,
        solutions=len(solutions),
        problems=len({one.problem for one in solutions}),
        steps=len(conditional.score),
        first_errors=len(errors.score),
        unscored=unscored,
        auc_final=area(finals),
        auc_steps=area(everywhere),
        auc_conditional=area(conditional),
        auc_same_depth=area(conditional, conditional.depth),
        false_alarm=mean(alarms.score < threshold, alarms.cluster),
        miss=mean(errors.score >= threshold, errors.cluster),
        error_accuracy=mean(exact[wrong], [one for one, flag in zip(clusters, wrong, strict=True) if flag]),
        right_accuracy=mean(exact[~wrong], [one for one, flag in zip(clusters, wrong, strict=True) if not flag]),
        f1=cluster_bootstrap(_f1(exact, wrong), clusters, resamples=resamples),
        brier=_brier(conditional, resamples),
        brier_final=_brier(finals, resamples),
        reliability=_reliability(conditional),
        reliability_final=_reliability(finals),
        by_depth=_by_depth(conditional, threshold),
    )


def error_rates(solutions: Sequence[JudgedSolution], threshold: float) -> tuple[float, float]:
    """(false alarms, misses) at a threshold, as in `JudgeMetrics`; nan where there is nothing to count."""
    _, steps, _ = _steps(solutions)
    low = steps.score < threshold
    right, wrong = low[steps.right], low[~steps.right]
    return float(right.mean()) if len(right) else np.nan, float((~wrong).mean()) if len(wrong) else np.nan


def best_threshold(solutions: Sequence[JudgedSolution]) -> float:
    """The threshold of the highest F1 on these solutions, as ProcessBench chooses it on a part of the data.

    It lies midway between two scores that occur. 0.5 if no solution has a known first error, or none is free of errors.
    """
    known = [(one, first) for one in solutions if (first := one.first_error()) is not None]
    wrong = np.array([first >= 0 for _, first in known], bool)
    if not len(known) or wrong.all() or not wrong.any():
        return 0.5
    # A solution is predicted exactly for thresholds in (low, high]: above its error's score, up to the least before it.
    spans = [_exact_between(one, first) for one, first in known]
    values = np.unique([score for one, _ in known for score in one.step_scores if not np.isnan(score)])
    if not len(values):
        return 0.5
    cuts = np.concatenate(([values[0]], (values[1:] + values[:-1]) / 2, [np.nextafter(values[-1], np.inf)]))
    hits = np.zeros((2, len(cuts)))
    for (low, high), is_wrong in zip(spans, wrong, strict=True):
        hits[int(is_wrong)] += (cuts > low) & (cuts <= high)
    free, errors = hits[0] / (~wrong).sum(), hits[1] / wrong.sum()
    return float(cuts[np.argmax(_harmonic(free, errors))])


def _exact_between(one: JudgedSolution, first: int) -> tuple[float, float]:
    """The thresholds (low, high] at which this solution's first error is predicted exactly. first: its index, or -1."""
    before = one.step_scores if first < 0 else one.step_scores[:first]
    high = min((score for score in before if not np.isnan(score)), default=np.inf)
    if first < 0:
        return -np.inf, high
    low = one.step_scores[first]
    return (np.inf if np.isnan(low) else low), high


def _harmonic(a: Floats, b: Floats) -> Floats:
    total = a + b
    return np.divide(2 * a * b, total, out=np.zeros_like(total), where=total > 0)


def _f1(exact: Flags, wrong: Flags) -> Callable[[Floats], float]:
    """F1 as a function of the solutions' weights; nan without solutions of both kinds."""

    def f1(weights: Floats) -> float:
        shares = [
            float((weights * (exact & kind)).sum() / total) if (total := (weights * kind).sum()) else np.nan
            for kind in (wrong, ~wrong)
        ]
        return np.nan if np.isnan(shares).any() else float(_harmonic(np.array(shares[:1]), np.array(shares[1:]))[0])

    return f1


def _steps(solutions: Sequence[JudgedSolution]) -> tuple[_Scored, _Scored, int]:
    """All steps with a score and a label; the conditional ones among them; how many of those have no score.

    The label of a step is whether it and every step before it is right.
    """
    rows: list[tuple[float, bool, int, Hashable, bool]] = []
    unscored = 0
    for one in solutions:
        first, scores = len(one.step_right), one.step_scores
        for index, right in enumerate(one.step_right):
            if not right:
                first = index
                break
        failed = first < len(one.step_right) and one.step_right[first] is not None
        labelled = len(one.step_right) if failed else first  # behind an unknown step nothing is known
        for index in range(one.shared, labelled):
            if not np.isnan(scores[index]):
                rows.append((scores[index], index < first, index, one.problem, index <= first))
            else:
                unscored += index <= first
    score = np.array([row[0] for row in rows], np.float64)
    clean, inside = (np.array([row[at] for row in rows], bool) for at in (1, 4))
    found = _Scored(score, clean, np.array([row[2] for row in rows], np.int64), [row[3] for row in rows])
    return found, found.where(inside), unscored


def _finals(solutions: Sequence[JudgedSolution]) -> _Scored:
    """The last scores of the solutions that are known to be right or wrong."""
    kept = [
        one for one in solutions if one.final_right is not None and len(one.step_scores) and one.step_scores[-1] >= 0
    ]
    return _Scored(
        np.array([one.step_scores[-1] for one in kept], np.float64),
        np.array([one.final_right for one in kept], bool),
        np.array([len(one.step_scores) - 1 for one in kept], np.int64),
        [one.problem for one in kept],
    )


def _rate(flags: NDArray[Any], clusters: Sequence[Hashable], resamples: int) -> Estimate | None:
    """A share with the wider of two intervals on each side: the bootstrap over problems, and Wilson's.

    Wilson's does not know of problems; the bootstrap has no width at 0 and 1.
    """
    if not len(flags):
        return None
    wilson = proportion(int(flags.sum()), len(flags))
    drawn = cluster_bootstrap(_mean(flags.astype(np.float64)), clusters, resamples=resamples)
    assert drawn is not None
    return Estimate(wilson.value, min(wilson.low, drawn.low), max(wilson.high, drawn.high))


def _mean(values: Floats) -> Callable[[Floats], float]:
    return lambda weights: float((weights * values).sum() / weights.sum()) if weights.sum() else np.nan


def _brier(scored: _Scored, resamples: int) -> Estimate | None:
    return cluster_bootstrap(_mean((scored.score - scored.right) ** 2), scored.cluster, resamples=resamples)


def _reliability(scored: _Scored) -> tuple[ReliabilityBin, ...]:
    places = np.clip((scored.score * BINS).astype(np.int64), 0, BINS - 1)
    return tuple(
        ReliabilityBin(
            at / BINS,
            (at + 1) / BINS,
            int(here.sum()),
            float(scored.score[here].mean()),
            float(scored.right[here].mean()),
        )
        for at in range(BINS)
        if (here := places == at).any()
    )


def _by_depth(steps: _Scored, threshold: float) -> tuple[DepthMetrics, ...]:
    rows = []
    for depth in range(int(steps.depth.max(initial=-1)) + 1):
        here = steps.where(steps.depth == depth)
        if not len(here.score):
            continue
        right, errors = here.score[here.right], here.score[~here.right]
        area = weighted_auc(here.score, here.right)(np.ones(len(here.score)))
        rows.append(
            DepthMetrics(
                depth,
                len(right),
                len(errors),
                None if np.isnan(area) else area,
                float((right < threshold).mean()) if len(right) else None,
                float((errors >= threshold).mean()) if len(errors) else None,
            )
        )
    return tuple(rows)
