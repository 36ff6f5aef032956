"""Paired statistics: tests, intervals and corrections for two sides that answered the same documents.

Why these, and how well they keep what they promise: ``docs/comparing.md`` and ``benchmarks/comparing.py``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy
import numpy.typing

Values = numpy.typing.NDArray[numpy.float64]

ALPHA = 0.05
POWER = 0.8
MCNEMAR, BOOTSTRAP = "mid-p McNemar", "paired bootstrap"
RESAMPLES = 9_999
# Beyond these many drawn documents fewer resamples are made, never fewer than the smaller number.
MOST_DRAWN, FEWEST_RESAMPLES = 100_000_000, 1_999
BLOCK = 4_000_000
LEAST_VARIANCE = 0.1
# Documents from which on two values are outcomes; fewer may have two of a scale.
ENOUGH_FOR_OUTCOMES = 5
# Differences this small against the values are rounding.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Paired:
    """What the same documents say of second less first.

    Attributes:
        low, high: the interval, None where nothing varies and none can be given.
        p: of no difference, two-sided, above 0.
        detectable: the smallest true difference that is found with 80 % probability, None where nothing varies.
        test: ``MCNEMAR`` or ``BOOTSTRAP``.
    """

    difference: float
    low: float | None
    high: float | None
    p: float
    detectable: float | None
    test: str


def compare(first: Any, second: Any, *, alpha: float = ALPHA, seed: int = 0) -> Paired:
    """Compare two sides document by document.

    Args:
        first: (N,), one value a document; so is ``second``, in the same order.
        alpha: 1 - confidence of the interval, and the level the detectable difference is for.
        seed: of the resamples.

    Raises:
        ValueError: no documents, or not the same number.
    """
    a, b = numpy.asarray(first, dtype=numpy.float64), numpy.asarray(second, dtype=numpy.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"two rows of values of the same documents are due, got {a.shape} and {b.shape}")
    n, outcomes = len(a), two_outcomes(a, b)
    if outcomes is not None:
        wrong, right = outcomes
        lost, won = int(((a == right) & (b == wrong)).sum()), int(((a == wrong) & (b == right)).sum())
        low, high = share_interval(lost, won, n, alpha=alpha)
        difference, least = (won - lost) / n, detectable_share(lost, won, n, alpha=alpha)
        found = [(right - wrong) * float(value) for value in (difference, low, high, least)]
        return Paired(found[0], found[1], found[2], mcnemar(lost, won), found[3], MCNEMAR)
    differences = b - a
    differences[numpy.abs(differences) <= ROUNDING * numpy.maximum(numpy.abs(a), numpy.abs(b))] = 0
    if not differences.any() and min(a.min(), b.min()) >= 0 and max(a.max(), b.max()) <= 1:
        low, high = share_interval(
            0, 0, n, alpha=alpha
        )  # as if the documents could be right or wrong: no score differs more
        return Paired(0.0, float(low), float(high), 1.0, detectable_share(0, 0, n, alpha=alpha), MCNEMAR)
    return compare_differences(differences, alpha=alpha, seed=seed)


def compare_differences(differences: Values, *, alpha: float = ALPHA, seed: int = 0) -> Paired:
    """Test whether the mean of ``differences`` (N,) is 0; see ``compare``."""
    n, mean = len(differences), float(differences.mean())
    p, radius = studentised_bootstrap(differences[:, None], alpha=alpha, seed=seed)
    deviation = float(_deviation(differences[:, None])[0])
    if not 0 < deviation < math.inf:
        return Paired(mean, None, None, float(p[0]), None, BOOTSTRAP)
    detectable = detectable_mean(deviation, n, alpha=alpha)
    changed = differences[differences != 0]
    if 2 * len(changed) < n:  # so few differ that how many do decides, as with documents that flip
        size = float(numpy.sqrt((changed**2).mean()))
        detectable = max(detectable, size * detectable_share(len(changed), 0, n, alpha=alpha))
    return Paired(mean, mean - float(radius[0]), mean + float(radius[0]), float(p[0]), detectable, BOOTSTRAP)


def two_outcomes(a: Values, b: Values) -> tuple[float, float] | None:
    """Return the two values a document can have, the lower one first: 0 and 1, or the only two there are; else None."""
    values = numpy.unique(numpy.concatenate([a, b]))
    if numpy.isin(values, (0.0, 1.0)).all():
        return 0.0, 1.0
    return (float(values[0]), float(values[1])) if len(values) == 2 and len(a) >= ENOUGH_FOR_OUTCOMES else None


def mcnemar(lost: int, won: int) -> float:
    """Return McNemar's mid-p: the exact binomial test of lost against won, half of the observed outcome's weight left out.

    Never 0: what is below the smallest float is given as that, a bound from above.
    """
    fewer, total = min(lost, won), lost + won
    log_outcome = math.lgamma(total + 1) - math.lgamma(fewer + 1) - math.lgamma(total - fewer + 1)
    outcome = math.exp(log_outcome - total * math.log(2))
    # The outcomes that are more one-sided, each as a share of the one above it.
    below = numpy.arange(fewer, 0, -1) / numpy.arange(total - fewer + 1, total + 1)
    return min(1.0, max(2 * outcome * (0.5 + float(numpy.cumprod(below).sum())), sys.float_info.min))


def share_interval(lost: Any, won: Any, n: int, *, alpha: float = ALPHA) -> tuple[Any, Any]:
    """Return Tango's score interval for the difference of two paired shares, by bisection.

    It holds every difference that the score test, with the other share estimated under that difference, does not refuse.

    Args:
        lost: documents that only the first side has right; an array for several comparisons at once; so is ``won``.
        n: documents.
    """
    b, c = (numpy.asarray(counts, dtype=numpy.float64) for counts in (lost, won))
    limits = []
    for wanted in (_z(1 - alpha / 2), -_z(1 - alpha / 2)):
        low, high = numpy.full(b.shape, -1.0), numpy.full(b.shape, 1.0)
        for _ in range(60):
            middle = (low + high) / 2
            is_above = _score(b, c, n, middle) > wanted
            low, high = numpy.where(is_above, middle, low), numpy.where(is_above, high, middle)
        limits.append((low + high) / 2)
    return limits[0], limits[1]


def studentised_bootstrap(
    differences: Values, *, alpha: float = ALPHA, resamples: int | None = None, seed: int = 0
) -> tuple[Values, Values]:
    """Return p of a mean of 0 and half the width of its interval, from how far resampled means stray in standard errors.

    Symmetric: the interval is mean ± half, and holds 0 when p is above alpha. A resample is taken to vary by a tenth of the
    whole sample's variance at least: where few documents differ, some resamples hold none of them.

    Args:
        differences: (N, S), the columns tested apart on the same resamples.
        resamples: how many; by default 9,999, fewer beyond 10,000 documents.

    Returns:
        (S,) and (S,). Where a column does not vary, half the width is 0 and p that of a sign test.
    """
    n = len(differences)
    resamples = resamples or min(RESAMPLES, max(FEWEST_RESAMPLES, MOST_DRAWN // n))
    mean, deviation = differences.mean(axis=0), _deviation(differences)
    varies = (deviation > 0) & numpy.isfinite(deviation)  # numbers near the largest float are told apart by nothing
    is_shifted = (numpy.abs(mean) > 0) & numpy.isfinite(deviation)
    p = numpy.where(is_shifted, min(1.0, max(2.0 * 0.5**n, sys.float_info.min)), 1.0)
    radius = numpy.zeros_like(mean)
    if not varies.any():
        return p, radius
    centred = (differences[:, varies] - mean[varies]) / deviation[varies]
    strays = numpy.concatenate(list(_strays(centred, resamples, numpy.random.default_rng(seed))))
    observed = numpy.abs(mean[varies]) / deviation[varies] * math.sqrt(n)
    p[varies] = (1 + (strays >= observed * (1 - ROUNDING)).sum(axis=0)) / (resamples + 1)
    rank = min(math.ceil((1 - alpha) * (resamples + 1)), resamples) - 1
    radius[varies] = numpy.partition(strays, rank, axis=0)[rank] * deviation[varies] / math.sqrt(n)
    return p, radius


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values in the order given: none of the family is wrongly below alpha, but with chance alpha."""
    order = numpy.argsort(numpy.asarray(p_values, dtype=numpy.float64), kind="stable")
    adjusted = numpy.asarray(p_values, dtype=numpy.float64)[order] * numpy.arange(len(order), 0, -1)
    return _in_order(numpy.maximum.accumulate(adjusted), order)


def detectable_share(lost: int, won: int, n: int, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the smallest difference of paired shares found with probability ``power``, given how many documents flip.

    Connor's formula for McNemar's test, one flip each way added to what was seen; at most 1.
    """
    flipping, found = (lost + won + 2) / (n + 2), 0.0
    for _ in range(200):  # converges: each step halves what is missing, or better
        share = max(flipping, found)
        found = _z(1 - alpha / 2) * math.sqrt(share) + _z(power) * math.sqrt(max(share - found**2, 0))
        found = min(1.0, found / math.sqrt(n))
    return found


def detectable_mean(deviation: float, n: int, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the smallest mean difference found with probability ``power``, given how much the differences deviate."""
    # The root makes of normal quantiles nearly those of Student's t.
    scale = deviation / math.sqrt(n) * math.sqrt((n - 1) / max(n - 3, 1))
    return (_z(1 - alpha / 2) + _z(power)) * scale


def _strays(centred: Values, resamples: int, generator: numpy.random.Generator) -> Any:
    """Yield |t| of the resamples of standardised columns, in blocks (R, S)."""
    n, squares = len(centred), centred**2
    rows = max(1, BLOCK // max(n, centred.shape[1]))
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = generator.integers(0, n, (size, n)) + n * numpy.arange(size)[:, None]
        counts = numpy.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(numpy.float64)
        means = counts @ centred / n
        variances = numpy.maximum(counts @ squares / n - means**2, 0) * n / (n - 1)
        yield numpy.abs(means) * math.sqrt(n) / numpy.sqrt(numpy.maximum(variances, LEAST_VARIANCE))


def _score(b: Values, c: Values, n: int, difference: Values) -> Values:
    """Return the score statistic of ``difference`` (Tango, 1998, Equations 4 to 6)."""
    linear = (2 * n - c + b) * difference - b - c
    constant = -b * difference * (1 - difference)
    only_first = (numpy.sqrt(numpy.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
    variance = n * (2 * only_first + difference * (1 - difference))
    return (c - b - n * difference) / numpy.sqrt(numpy.maximum(variance, 1e-300))


def _deviation(differences: Values) -> Values:
    """Return the standard deviation of each column, 0 where only rounding varies."""
    if len(differences) < 2:
        return numpy.zeros(differences.shape[1])
    deviation = differences.std(axis=0, ddof=1)
    return numpy.where(deviation > ROUNDING * numpy.abs(differences).max(axis=0), deviation, 0.0)


def _in_order(adjusted: Values, order: Any) -> list[float]:
    result = numpy.empty(len(order))
    result[order] = numpy.minimum(adjusted, 1.0)
    return [float(p) for p in result]


def _z(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
