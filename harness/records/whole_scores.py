"""Scores made of two things of each document, all documents at once: correlations, how well clusters fit labels; their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import numpy.typing

Values = numpy.typing.NDArray[numpy.float64]
# Numbers of one table of ranks: 32 MB of them.
MOST_AT_ONCE = 4_000_000
# Of the bootstrap: how often documents are drawn, and from which seed.
DRAWS, SEED = 200, 0


def two_columns(values: Sequence[Any]) -> Values:
    """Return two numbers of each document as (N, 2). Raises ``ValueError`` where there are not two."""
    columns = numpy.array([[float(part) for part in value] for value in values], dtype=numpy.float64)
    if columns.ndim != 2 or columns.shape[1] != 2:
        raise ValueError("two numbers a document are due")
    return columns


def pearson_columns(values: Sequence[Any]) -> Values:
    """Return five columns: both numbers, their squares and their product; moved and scaled, which changes no correlation."""
    pairs = two_columns(values)
    spread = pairs.std(axis=0)
    first, second = ((pairs - pairs.mean(axis=0)) / numpy.where(spread > 0, spread, 1)).T
    return numpy.stack([first, second, first**2, second**2, first * second], axis=1)


def pearson_of_means(means: Values) -> Values:
    """Return the correlations that the means (..., 5) of those columns make; NaN where one number is the same in all."""
    first, second, first_square, second_square, product = numpy.moveaxis(means, -1, 0)
    # Of numbers that are all the same there is no correlation; what rounding leaves of their variance is none.
    variances = first_square - first**2, second_square - second**2
    is_defined = (variances[0] > 1e-12) & (variances[1] > 1e-12)
    root = numpy.sqrt(numpy.where(is_defined, variances[0] * variances[1], 1))
    return numpy.asarray(numpy.where(is_defined, (product - first * second) / root, numpy.nan))


def pearson(values: Sequence[Any]) -> float:
    """Return the correlation of the two numbers of each document; NaN where one is the same in all."""
    return float(pearson_of_means(pearson_columns(values).mean(axis=0)))


def spearman(values: Sequence[Any]) -> float:
    """Return the correlation of the ranks of the two numbers of each document, equal ones on their middle rank."""
    return pearson(numpy.stack([_ranks(column) for column in two_columns(values).T], axis=1).tolist())


def spearman_without(values: Sequence[Any]) -> Values:
    """Return ``spearman`` without each of the documents (N,): its ranks are those of all, less what the one took."""
    columns = two_columns(values).T
    n, ranks = columns.shape[1], [_ranks(column) for column in columns]
    found = []
    for first in range(0, n, max(1, MOST_AT_ONCE // n)):
        out = numpy.arange(first, min(n, first + max(1, MOST_AT_ONCE // n)))
        moved = [
            _ranks_without(column, of_all, out) - n / 2  # the middle of n - 1 ranks
            for column, of_all in zip(columns, ranks, strict=True)
        ]
        for side in moved:
            side[numpy.arange(len(out)), out] = 0.0
        together = (moved[0] * moved[1]).sum(axis=1)
        size = numpy.sqrt((moved[0] ** 2).sum(axis=1) * (moved[1] ** 2).sum(axis=1))
        found.append(numpy.where(size > 0, together / numpy.where(size > 0, size, 1), numpy.nan))
    return numpy.concatenate(found)


def v_measure(values: Sequence[Any]) -> float:
    """Return the V-measure, 0 to 1, of the label and the cluster of each document, whatever they are called.

    It is the harmonic mean of homogeneity and completeness (Rosenberg and Hirschberg, 2007).
    """
    return _v_of_counts(_counts(values)[0])


def v_measure_without(values: Sequence[Any]) -> Values:
    """Return ``v_measure`` without each of the documents (N,); those of one label and cluster are alike."""
    counts, labels, clusters = _counts(values)
    found: dict[tuple[int, int], float] = {}
    for cell in zip(labels, clusters, strict=True):
        if cell not in found:
            counts[cell] -= 1
            found[cell] = _v_of_counts(counts)
            counts[cell] += 1
    return numpy.array([found[cell] for cell in zip(labels, clusters, strict=True)], dtype=numpy.float64)


def ratio_of_sums(values: Sequence[Any]) -> float:
    """Return the sum of each document's first number by the sum of its second, as tokens per word of a whole corpus."""
    first, second = two_columns(values).T
    return math.fsum(first) / math.fsum(second)


def bootstrapped_error(score: Callable[[Sequence[Any]], float], values: Sequence[Any]) -> float:
    """Return the standard error of a score over the whole set: 200 draws of the documents with replacement, always the same.

    Args:
        score: of the values of documents.
        values: of all documents, in order.

    Raises:
        ValueError: a draw has no score, as when all its documents are alike.
    """
    generator = numpy.random.default_rng(SEED)
    rows = generator.integers(len(values), size=(DRAWS, len(values)))
    scores = [float(score([values[place] for place in row])) for row in rows.tolist()]
    broken = sum(not math.isfinite(one) for one in scores)
    if broken:
        raise ValueError(f"{broken} of {len(scores)} draws of the documents have no score")
    return float(numpy.std(scores, ddof=1))


def _ranks(column: Values) -> Values:
    _, place, counts = numpy.unique(column, return_inverse=True, return_counts=True)
    last = numpy.cumsum(counts)
    return numpy.asarray((last - (counts - 1) / 2)[place], dtype=numpy.float64)


def _ranks_without(column: Values, ranks: Values, out: Any) -> Values:
    """Return the ranks (len(out), N) of the others, a row without each of the documents ``out``."""
    left = column[out][:, None]
    return numpy.asarray(ranks - (column > left) - 0.5 * (column == left), dtype=numpy.float64)


def _counts(values: Sequence[Any]) -> tuple[Values, list[int], list[int]]:
    """Return how many documents each label and cluster share (labels, clusters), and the place of each document in it."""
    pairs = [tuple(value) for value in values]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("a label and a cluster of each document are due")
    labels, clusters = (_numbered([pair[side] for pair in pairs]) for side in (0, 1))
    counts = numpy.zeros((max(labels) + 1, max(clusters) + 1))
    numpy.add.at(counts, (labels, clusters), 1)
    return counts, labels, clusters


def _numbered(names: Sequence[Any]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(str(name), len(numbers)) for name in names]


def _v_of_counts(counts: Values) -> float:
    shares = counts / counts.sum()
    of_labels, of_clusters = shares.sum(axis=1), shares.sum(axis=0)
    by_chance = numpy.outer(of_labels, of_clusters)
    is_there = shares > 0
    common = float((shares[is_there] * numpy.log(shares[is_there] / by_chance[is_there])).sum())
    labels, clusters = _entropy(of_labels), _entropy(of_clusters)
    homogeneity, completeness = (common / each if each > 0 else 1.0 for each in (labels, clusters))
    both = homogeneity + completeness
    return 2 * homogeneity * completeness / both if both > 0 else 0.0


def _entropy(shares: Values) -> float:
    """Return the entropy of shares in nats."""
    some = shares[shares > 0]
    return float(-(some * numpy.log(some)).sum()) if len(some) > 1 else 0.0
