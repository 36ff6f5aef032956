"""Which rows of a table are shown to be better than others: differences to the baseline, and ranks that mark ties."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy

from harness.board.scores_by_document import ByDocument, Values
from harness.records import intervals, statistics
from harness.records.intervals import Estimate

# Above this many rows their documents are not compared pair by pair, and ranks come from the standard errors alone.
MOST_PAIRED_ROWS = 400
# How a verdict is written beside a number.
MARKS = {"better": "▲", "worse": "▼"}
# And what is written where no document's score differs.
SAME = "same on every document"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row's value for one metric: its standard error over documents, and the documents where they are known.

    ``known`` says how many there are and what the metric can be; without, the normal approximation has to do.
    """

    value: float
    stderr: float | None
    by_document: ByDocument | None = None
    known: Estimate | None = None

    @property
    def estimate(self) -> Estimate:
        """What is known of the score."""
        return self.known or Estimate(self.value, self.stderr)


@dataclass(frozen=True, slots=True)
class Difference:
    """A row's value less its baseline's, with 95 % interval, not adjusted; None where no standard error is known.

    Attributes:
        p: of no difference, by itself, as the interval is.
        p_holm: after Holm's correction over the rows of the table.
        is_paired: computed on the differences of the same documents.
        is_identical: no document's score differs.
        verdict: ``better``, ``worse``, or empty when no difference is shown or no direction is good.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    is_paired: bool = False
    is_identical: bool = False
    verdict: str = ""


def differences(
    entries: Sequence[Entry], pairs: Mapping[int, int], *, higher_is_better: bool | None
) -> dict[int, Difference]:
    """Return for each position in ``pairs`` the difference to the baseline at the position it names.

    Where both have the same documents the test is paired, as ``harness compare`` has it; elsewhere one of two estimates
    that share none, which sees less.
    """
    found = {position: _unpaired(entries[position], entries[base]) for position, base in pairs.items()}
    found |= _paired(entries, pairs)
    found = {position: difference for position, difference in found.items() if math.isfinite(difference.value)}
    tested = {position: difference.p for position, difference in found.items()}
    known = {position: p for position, p in tested.items() if p is not None}
    for position, p in zip(known, statistics.holm(list(known.values())), strict=True):
        found[position] = with_verdict(replace(found[position], p_holm=p), p, higher_is_better)
    return found


def ranks(entries: Sequence[Entry], *, higher_is_better: bool | None) -> dict[int, tuple[int, bool]]:
    """Return for each entry 1 + how many others are shown to be better, and whether that rank is shared.

    Shown: two-sided at 5 % over all pairs of entries (Bonferroni), so that where none differs all share one rank in at
    least 95 of 100 boards.

    Entries with the same documents are compared on their differences. Without a standard error only the value counts.
    Empty when no direction is good.
    """
    if higher_is_better is None or not entries:
        return {}
    with numpy.errstate(over="ignore", invalid="ignore"):  # values near the largest float are told apart by nothing
        better = _better(entries, 1 if higher_is_better else -1)
    shared = numpy.bincount(better)
    return {position: (1 + int(count), bool(shared[count] > 1)) for position, count in enumerate(better)}


def _better(entries: Sequence[Entry], sign: int) -> Any:
    """Return for each entry how many others are shown to be better."""
    values = sign * numpy.array([entry.value for entry in entries])
    variances = numpy.square([entry.stderr or 0.0 for entry in entries])
    alpha = statistics.ALPHA / max(1, math.comb(len(entries), 2))
    z = NormalDist().inv_cdf(1 - alpha / 2)
    scales, below, above = _reaches(entries, alpha)
    below, above = (below, above)[::sign]
    if len(entries) > MOST_PAIRED_ROWS:
        normal = z * z * scales * variances
        return _better_apart(values, *(numpy.where(numpy.isnan(one), normal, one) for one in (below, above)))
    covariance = _covariance(entries, variances)
    spread = numpy.maximum(variances[:, None] + variances[None, :] - 2 * covariance, 0)
    squares = z * z * numpy.maximum(scales[:, None], scales[None, :]) * spread
    # By how much an exact interval reaches further than the normal one.
    more = [numpy.where(numpy.isnan(one), 0, numpy.maximum(one - z * z * variances, 0)) for one in (below, above)]
    return (values[None, :] - values[:, None] > _margin(squares + more[0][None, :] + more[1][:, None])).sum(axis=1)


def _reaches(entries: Sequence[Entry], alpha: float) -> tuple[Values, Values, Values]:
    """Return how Student's quantile of each entry compares with the normal one, squared, and how far exact intervals reach.

    The reaches are the squared distances from the value to the ends, below and above, NaN where the interval is none of
    these; infinite where documents are so few that no test of them tells two rows apart.
    """
    scales, reaches = numpy.ones(len(entries)), numpy.full((2, len(entries)), numpy.nan)
    z = NormalDist().inv_cdf(1 - alpha / 2)
    for position, entry in enumerate(entries):
        one = entry.estimate
        if one.is_normal or one.docs is None:
            continue
        found = intervals.interval(one, alpha=alpha)
        is_told = found is not None and (found.method == intervals.EXACT or one.docs >= 1 - math.log2(alpha))
        if found is None or not is_told:  # the signs of so few differences are never as one-sided as alpha wants it
            reaches[:, position] = numpy.inf if one.docs < intervals.ENOUGH else numpy.nan
        elif found.method == intervals.EXACT:
            reaches[:, position] = numpy.square([one.value - found.low, found.high - one.value])
        else:
            scales[position] = (intervals.student(one.docs - 1, alpha) / z) ** 2
    return scales, reaches[0], reaches[1]


def _margin(squares: Any) -> Any:
    """Return how far apart two values are shown to differ; rounding leaves a little where two rows answered the same."""
    return numpy.sqrt(squares) + 1e-12


def _better_apart(values: Values, below: Values, above: Values) -> Any:
    """Return for each entry how many are shown to be better, all of them independent.

    Sorted, only those need a look that lie between what the smallest and the largest reach would show.

    Args:
        below, above: squared distances from each value to the ends of its interval.
    """
    order = numpy.argsort(values)
    ordered, reaches = values[order], below[order]
    sure = numpy.searchsorted(ordered, values + _margin(above + below.max()), side="right")
    maybe = numpy.searchsorted(ordered, values + _margin(above + below.min()), side="right")
    better = len(values) - sure
    for position in numpy.flatnonzero(maybe < sure):
        near = slice(maybe[position], sure[position])
        margin = _margin(above[position] + reaches[near])
        better[position] += (ordered[near] - values[position] > margin).sum()
    return better


def _unpaired(entry: Entry, baseline: Entry) -> Difference:
    value = entry.value - baseline.value
    p = intervals.p_of_difference(baseline.estimate, entry.estimate)
    if p is None:
        return Difference(value)
    low, high = intervals.of_difference(baseline.estimate, entry.estimate) or (None, None)
    return Difference(value, low, high, p)


def _paired(entries: Sequence[Entry], pairs: Mapping[int, int]) -> dict[int, Difference]:
    """Return the differences of those pairs that have the same documents."""
    found: dict[int, Difference] = {}
    # What is not right or wrong is resampled, all rows with the same documents on the same resamples.
    columns: dict[tuple[str, ...], dict[int, Values]] = {}
    for position, base in pairs.items():
        ours, theirs = entries[position].by_document, entries[base].by_document
        if ours is None or theirs is None or ours.documents != theirs.documents:
            continue
        if statistics.two_outcomes(theirs.values, ours.values) is not None:
            paired = statistics.compare(theirs.values, ours.values)
            same = bool((theirs.values == ours.values).all())
            found[position] = Difference(
                paired.difference, paired.low, paired.high, paired.p, is_paired=True, is_identical=same
            )
        else:
            column = ours.values - theirs.values
            largest = numpy.maximum(numpy.abs(ours.values), numpy.abs(theirs.values))
            column[numpy.abs(column) <= statistics.ROUNDING * largest] = 0
            columns.setdefault(ours.documents, {})[position] = column
    for group in columns.values():
        stacked = numpy.stack(list(group.values()), axis=1)
        p_values, halves = statistics.studentised_bootstrap(stacked)
        for position, mean, p, half in zip(group, stacked.mean(axis=0), p_values, halves, strict=True):
            low = high = None
            if half > 0:
                known = entries[pairs[position]].estimate, entries[position].estimate
                low, high = intervals.within_difference(float(mean - half), float(mean + half), *known)
            same = not columns[entries[position].by_document.documents][position].any()  # type: ignore[union-attr]
            found[position] = Difference(float(mean), low, high, float(p), is_paired=True, is_identical=same)
    return found


def with_verdict(difference: Difference, p: float | None, higher_is_better: bool | None) -> Difference:
    """Return the difference with the verdict that ``p``, corrected for a family, gives."""
    if higher_is_better is None or p is None or p >= statistics.ALPHA:
        return replace(difference, verdict="")
    return replace(difference, verdict="better" if (difference.value > 0) == higher_is_better else "worse")


def _covariance(entries: Sequence[Entry], variances: Values) -> Values:
    """Return the covariance of the entries' means over shared documents, 0 where there are none.

    ``variances`` of entries with documents become those of the same estimate, so that equal rows differ by nothing.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for position, entry in enumerate(entries):
        if entry.by_document is not None and len(entry.by_document.documents) > 1:
            groups.setdefault(entry.by_document.documents, []).append(position)
    covariance = numpy.zeros((len(entries), len(entries)))
    for documents, positions in groups.items():
        scores = numpy.stack([entries[p].by_document.values for p in positions])  # type: ignore[union-attr]
        shared = numpy.atleast_2d(numpy.cov(scores)) / len(documents)
        covariance[numpy.ix_(positions, positions)] = shared
        variances[positions] = numpy.diagonal(shared)
    numpy.fill_diagonal(covariance, variances)
    return covariance
