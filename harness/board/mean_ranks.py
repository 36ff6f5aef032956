"""Ranks over tasks: their mean, how far another draw of tasks might move it, and which methods are shown to be better.

Tasks are what is sampled here, not documents: what chance the documents of a task bring is part of how ranks vary over tasks.
How well the intervals and the tests keep what they promise: ``docs/leaderboards.md`` and ``benchmarks/mean_ranks.py``.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy

from harness.records import intervals
from harness.records.intervals import Estimate
from harness.records.statistics import ALPHA, Values

# Up to this many tasks every way of swapping two methods is tried; above, differences of ranks are Student's.
MOST_SWAPPED = 16
# Values this near are the same, as a share of the larger where that is above 1.
ROUNDING = 1e-12
# Pairs of methods whose differences are tested at a time.
BLOCK = 20_000
# Up to this many methods each is tested against each other.
MOST_METHODS = 400


@dataclass(frozen=True, slots=True)
class MeanRank:
    """Where a method stands over tasks.

    Attributes:
        mean: of its ranks, 1 the best; of equal values each has the mean of the ranks they share.
        low, high: 95 % interval over tasks, None with a single task.
        place: 1 + how many methods are shown to be better over tasks; None with more than ``MOST_METHODS``.
        is_tied: another method has that place.
    """

    mean: float
    low: float | None
    high: float | None
    place: int | None
    is_tied: bool


def mean_ranks(values: Values, *, alpha: float = ALPHA) -> list[MeanRank]:
    """Return where each method stands over tasks.

    Args:
        values: (T, N) scores of N methods on T tasks, larger is better, none missing.
        alpha: 1 - confidence of each interval, and the chance that a method which is no better is shown to be, over all pairs.
    """
    ranks = task_ranks(values)
    count = ranks.shape[1]
    better = _better(ranks, alpha) if count <= MOST_METHODS else None
    shared = None if better is None else numpy.bincount(better)
    found = []
    for number, column in enumerate(ranks.T):
        low, high = _interval(column, count, alpha)
        if better is None or shared is None:
            found.append(MeanRank(float(column.mean()), low, high, None, False))
        else:
            place = int(better[number])
            found.append(MeanRank(float(column.mean()), low, high, 1 + place, bool(shared[place] > 1)))
    return found


def task_ranks(values: Values) -> Values:
    """Return (T, N) ranks of N methods on each of T tasks: 1 is the largest value, equal ones share their mean rank."""
    return numpy.array([_ranks(row) for row in values])


def _ranks(values: Values) -> Values:
    order = numpy.argsort(-values, kind="stable")
    ordered = values[order]
    sizes = numpy.abs(ordered)  # each pair by its own: one score that went astray makes no others equal
    least = ROUNDING * numpy.maximum(1.0, numpy.maximum(sizes[:-1], sizes[1:]))
    is_new = numpy.concatenate([[True], ordered[:-1] - ordered[1:] > least])
    group = numpy.cumsum(is_new) - 1
    counts = numpy.bincount(group)
    middles = numpy.cumsum(counts) - (counts - 1) / 2
    ranks = numpy.empty(len(values))
    ranks[order] = middles[group]
    return ranks


def _interval(ranks: Values, count: int, alpha: float) -> tuple[float | None, float | None]:
    """Return Student's interval of a mean rank over tasks; where all ranks are alike, what so few tasks can rule out."""
    if len(ranks) < 2:
        return None, None
    error = float(ranks.std(ddof=1)) / math.sqrt(len(ranks))
    estimate = Estimate(float(ranks.mean()), error, len(ranks), 1.0, float(count), is_mean=True)
    if count == 2 and set(ranks) <= {1.0, 2.0}:  # won or lost
        low, high = intervals.clopper_pearson(int((ranks == 2).sum()), len(ranks), alpha)
        return 1 + low, 1 + high
    if error and estimate.is_normal:
        radius = intervals.student(len(ranks) - 1, alpha) * error
        return max(1.0, estimate.value - radius), min(float(count), estimate.value + radius)
    found = intervals.interval(estimate, alpha=alpha)
    return (None, None) if found is None else (found.low, found.high)


def _better(ranks: Values, alpha: float) -> Any:
    """Return for each method how many others have better ranks, two-sided at ``alpha`` over all pairs (Bonferroni)."""
    tasks, count = ranks.shape
    pairs = math.comb(count, 2)
    better = numpy.zeros(count, dtype=numpy.int64)
    if pairs == 0 or (tasks <= MOST_SWAPPED and 2.0 ** (1 - tasks) > alpha / pairs):
        return better  # not even a method that wins every task is shown to be better
    first, second = numpy.triu_indices(count, 1)
    for start in range(0, pairs, BLOCK):
        one, other = first[start : start + BLOCK], second[start : start + BLOCK]
        differences = ranks[:, one] - ranks[:, other]
        is_shown = _p_values(differences) <= alpha / pairs
        means = differences.mean(axis=0)
        numpy.add.at(better, one[is_shown & (means > 0)], 1)
        numpy.add.at(better, other[is_shown & (means < 0)], 1)
    return better


def _p_values(differences: Values) -> Values:
    """Return p of no difference for each column of (T, P) rank differences over T tasks, two-sided."""
    tasks = len(differences)
    if tasks <= MOST_SWAPPED:
        ways = itertools.product((1.0, -1.0), repeat=tasks - 1)
        found, hits, count = numpy.abs(differences.sum(axis=0)), numpy.zeros(differences.shape[1]), 0
        while some := list(itertools.islice(ways, 256)):
            signs = numpy.column_stack([numpy.ones(len(some)), numpy.array(some).reshape(len(some), tasks - 1)])
            hits += (numpy.abs(signs @ differences) >= found - 1e-9).sum(axis=0)
            count += len(some)
        return numpy.asarray(hits / count)
    deviations = differences.std(axis=0, ddof=1)
    means = numpy.abs(differences.mean(axis=0))
    with numpy.errstate(divide="ignore", invalid="ignore"):
        t = numpy.where(deviations > 0, means / (deviations / math.sqrt(tasks)), numpy.where(means > 0, numpy.inf, 0))
    # Where no difference varies, the signs tell what is known.
    least = numpy.where(deviations > 0, 0.0, numpy.where(means > 0, 2.0 ** (1 - tasks), 1.0))
    tails = numpy.array([intervals.student_tail(float(one), tasks - 1) for one in t])
    return numpy.maximum(tails, least)
