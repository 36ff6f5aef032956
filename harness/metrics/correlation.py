"""How far two lists of numbers go together: Spearman's and Pearson's correlations, by scipy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import numpy.typing

from harness.errors import HarnessError
from harness.metrics.packages import needed

Values = numpy.typing.NDArray[numpy.float64]


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's rank correlation, -1 to 1; equal numbers stand on their middle rank.

    Args:
        x: (N,) numbers, such as the similarity of each pair.
        y: (N,) numbers, such as what people said of it.

    Raises:
        HarnessError: there are fewer than two pairs, a number is not finite, or one side is the same in all pairs.
    """
    first, second = _pairs(x, y, "Spearman's correlation")
    return float(needed("scipy.stats", by="Spearman's correlation").spearmanr(first, second).statistic)


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Pearson's linear correlation, -1 to 1.

    Args:
        x: (N,) numbers.
        y: (N,) numbers.

    Raises:
        HarnessError: as ``spearman``.
    """
    first, second = _pairs(x, y, "Pearson's correlation")
    return float(needed("scipy.stats", by="Pearson's correlation").pearsonr(first, second).statistic)


def _pairs(x: Sequence[float], y: Sequence[float], name: str) -> tuple[Values, Values]:
    first, second = (numpy.asarray(side, dtype=numpy.float64) for side in (x, y))
    if first.shape != second.shape or first.ndim != 1:
        raise HarnessError(f"{name} takes two lists of one length; these have {first.size} and {second.size} numbers")
    if len(first) < 2:
        raise HarnessError(f"{name} takes two pairs or more; there is {len(first)}")
    for side in (first, second):
        if not numpy.isfinite(side).all():
            place = int(numpy.flatnonzero(~numpy.isfinite(side))[0])
            raise HarnessError(f"{name} takes finite numbers; number {place} is {side[place]}")
        if (side == side[0]).all():
            raise HarnessError(
                f"{name} is not defined: all {len(side)} numbers of one side are {side[0]:.6g} (variance 0), as when all "
                "embeddings are the same"
            )
    return first, second
