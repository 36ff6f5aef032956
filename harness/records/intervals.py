"""The interval of one score over documents, and of the difference of two that share no documents.

Which way is taken when stands in ``docs/comparing.md``. No interval leaves what the metric can be.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist, fmean

import numpy

from harness.records import bounds
from harness.records.aggregation import MEANS
from harness.records.record import Record
from harness.records.statistics import ALPHA, ENOUGH_FOR_OUTCOMES, Values

# Fewer documents than this, and no interval comes from the normal approximation; of right and wrong, than the second, or
# than the third of either.
ENOUGH, ENOUGH_SHARE, ENOUGH_EACH = 30, 100, 10
NORMAL, EXACT, STUDENT, BOOTSTRAP = "normal approximation", "Clopper-Pearson", "Student's t", "studentised bootstrap"
_MEAN_WAYS = frozenset({"mean", "nanmean", "mean_by_size", "mean_of_tasks"})


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a score may lie, and by which way that was found."""

    low: float
    high: float
    method: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with what is known of its error.

    Attributes:
        docs: how many documents are behind it, None where nobody says: then the normal approximation is taken.
        low, high: what the metric can be, infinite where that is not known.
        right: of documents that are one of two things, how many are the better one; ``outcomes`` are the two values.
        is_mean: it is a mean of documents, so that one at a bound says what each of them is.
    """

    value: float
    stderr: float | None
    docs: int | None = None
    low: float = -bounds.INFINITE
    high: float = bounds.INFINITE
    right: int | None = None
    outcomes: tuple[float, float] = bounds.SHARE
    is_mean: bool = False

    @property
    def is_normal(self) -> bool:
        """Whether the normal approximation is good enough."""
        if not self.stderr:
            return False
        if self.docs is None:
            return True
        if self.right is not None:
            return self.docs >= ENOUGH_SHARE and min(self.right, self.docs - self.right) >= ENOUGH_EACH
        return self.docs >= ENOUGH


def of_record(record: Record) -> Estimate:
    """Return the estimate that a record with a score is."""
    assert record.value is not None
    value, stderr, docs = record.value, record.stderr, record.counts.scored
    name, way = record.metric.name, record.metric.aggregation
    is_mean = name in MEANS or way in _MEAN_WAYS
    low, high = _bounds(bounds.bounds(name, way), value, stderr, docs, is_mean=is_mean)
    right = None
    if is_mean and (low, high) == bounds.SHARE and not record.task.group and docs:
        # The values of right and wrong deviate as their mean says, and no others between 0 and 1 deviate so much.
        count, error = value * docs, math.sqrt(max(value * (1 - value), 0) / max(docs - 1, 1))
        is_count, is_error = (
            abs(count - round(count)) < 1e-6 * docs,
            stderr is not None and abs(stderr - error) < 1e-9 + 1e-6 * error,
        )
        right = round(count) if is_count and (is_error or docs == 1) else None
    return Estimate(value, stderr, docs, low, high, right, is_mean=is_mean)


def of_seeds(records: Sequence[Record]) -> Estimate | None:
    """Return the estimate that the mean over seeds is, its error that of the documents; None where no seed has a score."""
    found = [of_record(record) for record in records if record.value is not None]
    if len(found) < 2:
        return found[0] if found else None
    errors = [one.stderr for one in found if one.stderr is not None]
    docs = min(one.docs or 0 for one in found)
    value = fmean(one.value for one in found)
    return Estimate(
        value, fmean(errors) if errors else None, docs, min(one.low for one in found), max(one.high for one in found),
        is_mean=all(one.is_mean for one in found),
    )  # fmt: skip


def with_values(estimate: Estimate, values: Values) -> Estimate:
    """Return the estimate with what the documents' values, of which it is the mean, say of their kind."""
    found = [float(value) for value in numpy.unique(values)[:3]]
    if set(found) <= {0.0, 1.0} and found:
        return replace(
            estimate, docs=len(values), low=0.0, high=1.0, right=int(values.sum()), outcomes=bounds.SHARE, is_mean=True
        )
    if len(found) == 2 and len(values) >= ENOUGH_FOR_OUTCOMES:
        outcomes = (found[0], found[1])
        return replace(
            estimate, docs=len(values), right=int((values == found[1]).sum()), outcomes=outcomes, is_mean=True
        )
    return replace(estimate, docs=len(values), right=None, is_mean=True)


def interval(estimate: Estimate, *, alpha: float = ALPHA) -> Interval | None:
    """Return the interval of a score, None where none can be given; ``alpha`` is 1 - confidence."""
    low, high = _ends(estimate)
    if estimate.is_normal:
        radius = NormalDist().inv_cdf(1 - alpha / 2) * (estimate.stderr or 0.0)
        return _within(estimate.value, radius, low, high, NORMAL)
    if estimate.right is not None and estimate.docs:
        found, (wrong, right) = clopper_pearson(estimate.right, estimate.docs, alpha), estimate.outcomes
        return Interval(wrong + (right - wrong) * found[0], wrong + (right - wrong) * found[1], EXACT)
    if not estimate.docs:
        return None
    if not estimate.stderr:
        return _of_what_does_not_vary(estimate, low, high, alpha) if _is_constant(estimate, low, high) else None
    if estimate.docs < 2:
        return None
    return _within(estimate.value, student(estimate.docs - 1, alpha) * estimate.stderr, low, high, STUDENT)


def around(estimate: Estimate, radius: float) -> Interval:
    """Return the interval that resampled documents give: ``radius`` is half of its width."""
    return _within(estimate.value, radius, *_ends(estimate), BOOTSTRAP)


def of_difference(first: Estimate, second: Estimate, *, alpha: float = ALPHA) -> tuple[float, float] | None:
    """Return the interval of second less first, as if they shared no documents; None where one of them has none.

    The distances from each score to the ends of its own interval, squared and added (Newcombe, 1998): of two normal
    intervals that is the usual one.
    """
    ours, theirs = interval(first, alpha=alpha), interval(second, alpha=alpha)
    if ours is None or theirs is None:
        return None
    difference = second.value - first.value
    below = math.hypot(second.value - theirs.low, ours.high - first.value)
    above = math.hypot(theirs.high - second.value, first.value - ours.low)
    return within_difference(difference - below, difference + above, first, second)


def p_of_difference(first: Estimate, second: Estimate) -> float | None:
    """Return p of no difference between two scores that share no documents, two-sided; None where nothing tells.

    A z-test of two normal estimates, Fisher's exact test of two shares, else Welch's t-test.
    """
    difference = second.value - first.value
    errors = first.stderr or 0.0, second.stderr or 0.0
    if first.right is not None and second.right is not None and not (first.is_normal and second.is_normal):
        return fisher(first.right, first.docs or 0, second.right, second.docs or 0)
    spread = math.hypot(*errors)
    if not spread > 0 or not math.isfinite(difference / spread) or None in (first.stderr, second.stderr):
        return None
    if first.is_normal and second.is_normal:
        return math.erfc(abs(difference) / spread / math.sqrt(2))
    inverse = sum((error / spread) ** 4 / (one.docs - 1) for one, error in zip((first, second), errors, strict=True)
                  if one.docs and one.docs > 1 and error > 0)  # fmt: skip
    freedom = 1 / inverse if inverse > sys.float_info.min else 1.0
    return max(
        _beta(freedom / (freedom + (difference / spread) * (difference / spread)), freedom / 2, 0.5), sys.float_info.min
    )


def fisher(right: int, docs: int, other_right: int, other_docs: int) -> float:
    """Return p of Fisher's exact test of two shares, twice the smaller tail."""
    total, everything = right + other_right, docs + other_docs
    least, most = max(0, total - docs), min(total, other_docs)

    def log_choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    def chance(k: int) -> float:
        return math.exp(log_choose(other_docs, k) + log_choose(docs, total - k) - log_choose(everything, total))

    tails = []
    for numbers in (range(other_right, least - 1, -1), range(other_right, most + 1)):
        tail = 0.0
        for k in numbers:
            term = chance(k)
            tail += term
            if term < tail * 1e-17:
                break
        tails.append(tail)
    return min(1.0, max(2 * min(tails), sys.float_info.min))


def within_difference(low: float, high: float, first: Estimate, second: Estimate) -> tuple[float, float]:
    """Return the ends of an interval for second less first, none beyond what the metric lets a difference be."""
    smallest, largest = second.low - first.high, second.high - first.low
    if not smallest <= second.value - first.value <= largest:
        return low, high
    return max(low, smallest), min(high, largest)


@lru_cache(maxsize=100_000)
def clopper_pearson(right: int, docs: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the exact interval of a share: it holds the true one at least as often as it says."""
    low = 0.0 if right == 0 else _beta_quantile(alpha / 2, right, docs - right + 1)
    high = 1.0 if right == docs else _beta_quantile(1 - alpha / 2, right + 1, docs - right)
    return low, high


@lru_cache(maxsize=10_000)
def student(freedom: int, alpha: float) -> float:
    """Return how many standard errors from 0 Student's t lies with probability ``alpha`` or more."""
    share = _beta_quantile(alpha, freedom / 2, 0.5)
    return math.sqrt(freedom * (1 - share) / share) if share > 0 else math.inf


def student_tail(t: float, freedom: int) -> float:
    """Return the probability that Student's t lies as far from 0 as ``t`` or further."""
    return 0.0 if math.isinf(t) else _beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def _bounds(
    known: tuple[float, float] | None, value: float, stderr: float | None, docs: int, *, is_mean: bool
) -> tuple[float, float]:
    """Return what a metric of ``known`` bounds can be. A share may be written in percent: its value or its error tells."""
    ways = (bounds.SHARE, bounds.PERCENT) if known == bounds.SHARE else (known,) if known else ()
    for low, high in ways:
        # No values between the bounds deviate more than those that all lie on them.
        most = (value - low) * (high - value) * (1 + 1e-6) + 1e-12
        varies = (
            is_mean and math.isfinite(high) and (stderr or 0.0) * math.sqrt(max(docs - 1, 0)) > math.sqrt(max(most, 0))
        )
        if low <= value <= high and not varies:
            return low, high
    return -bounds.INFINITE, bounds.INFINITE


def _ends(estimate: Estimate) -> tuple[float, float]:
    is_inside = estimate.low <= estimate.value <= estimate.high
    return (estimate.low, estimate.high) if is_inside else (-bounds.INFINITE, bounds.INFINITE)


def _within(value: float, radius: float, low: float, high: float, method: str) -> Interval:
    return Interval(max(value - radius, low), min(value + radius, high), method)


def _is_constant(estimate: Estimate, low: float, high: float) -> bool:
    """Whether all documents are known to have the same value."""
    is_at_bound = estimate.is_mean and estimate.value in (low, high)
    return is_at_bound or (estimate.is_mean and (estimate.stderr == 0 or estimate.docs == 1))


def _of_what_does_not_vary(estimate: Estimate, low: float, high: float, alpha: float) -> Interval | None:
    """Return the interval when all documents are alike: as many as may be otherwise, and those may be anything."""
    if not (math.isfinite(low) and math.isfinite(high) and estimate.docs):
        return None
    value, share = estimate.value, clopper_pearson(0, estimate.docs, alpha)[1]
    return Interval(value - (value - low) * share, value + (high - value) * share, EXACT)


def _beta_quantile(probability: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _beta(middle, a, b) < probability else (low, middle)
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function by its continued fraction."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    fraction, c, d = 1.0, 1.0, 0.0
    for step in range(10_000):
        m = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _not_zero(1 + term * d)
        c = _not_zero(1 + term / c)
        fraction *= c * d
        if step and abs(c * d - 1) < 1e-14:
            break
    return front * (fraction - 1) / a


def _not_zero(number: float) -> float:
    return number if abs(number) > 1e-300 else 1e-300
