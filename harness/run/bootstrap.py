"""Bootstrapped standard errors: lm-eval's numbers to the last digit. Those of scores that it lacks: ``records.whole_scores``."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy
import numpy.typing

# lm-eval draws in chunks, each with a generator of its own, seeded by the number of the chunk.
CHUNK = 1000
# Numbers that are drawn at a time: 32 MB of them.
MOST_DRAWN = 4_000_000
Indices = numpy.typing.NDArray[numpy.int64]


def names() -> frozenset[str]:
    """Return the aggregations whose error lm-eval takes from a bootstrap, by its names."""
    return frozenset({"median", "matthews_corrcoef", "f1", "perplexity", "bleu", "chrf", "chrf++", "ter", "nanmean"})


def standard_error(name: str, metric: Callable[[Any], Any], values: Sequence[Any], iterations: int) -> float:
    """Return what lm-eval's ``bootstrap_stderr`` gives for a metric of several documents.

    Args:
        name: the aggregation, by lm-eval's name.
        metric: its function, of values drawn with replacement.
        values: those of the documents.
        iterations: of which whole chunks are drawn.
    """
    from lm_eval.api.metrics import bootstrap_stderr, sample_stddev

    draws = min(CHUNK, iterations)
    chunks = iterations // draws
    known = _at_once(name, values)
    if known is None and chunks > 1 and name in {"f1", "matthews_corrcoef"}:
        return float(bootstrap_stderr(metric, values, iters=iterations))  # so slow that many processes pay
    of_rows = known or (lambda indices: [metric([values[i] for i in row]) for row in indices.tolist()])
    drawn = (block for chunk in range(chunks) for block in _drawn(chunk, draws, len(values)))
    return float(sample_stddev([score for indices in drawn for score in of_rows(indices)]))


def _drawn(chunk: int, draws: int, size: int) -> Iterator[Indices]:
    """Yield the documents (rows, N) that ``random.Random(chunk).choices`` draws: numpy goes on from its state."""
    state = random.Random(chunk).getstate()[1]
    generator = numpy.random.RandomState()
    generator.set_state(("MT19937", numpy.array(state[:-1], dtype=numpy.uint32), state[-1], 0, 0.0))
    most = max(1, MOST_DRAWN // size)
    for first in range(0, draws, most):
        rows = min(most, draws - first)
        yield (generator.random_sample(rows * size) * float(size)).astype(numpy.int64).reshape(rows, size)


def _at_once(name: str, values: Sequence[Any]) -> Callable[[Indices], Sequence[Any]] | None:
    """Return the scores of many draws as a function of their documents; None where these values have to go one by one."""
    if name in {"f1", "matthews_corrcoef"}:
        return _by_cells(name, values)
    if not all(type(value) in {int, float} for value in values):
        return None
    try:
        column = numpy.array(values)
    except OverflowError:
        return None
    if column.dtype.kind not in "if":
        return None
    if name == "median":
        middle = column.size // 2
        return lambda indices: numpy.sort(column[indices], axis=1)[:, middle].tolist()
    if name == "nanmean" and not numpy.isnan(column).any():
        return lambda indices: column[indices].mean(axis=1).tolist()
    if name == "perplexity":
        from lm_eval.api.metrics import perplexity

        return lambda indices: [perplexity(row) for row in column[indices].tolist()]
    return None


def _by_cells(name: str, pairs: Sequence[Any]) -> Callable[[Indices], Sequence[Any]] | None:
    """Return F1 or Matthews' correlation of drawn (right, answered) pairs by counting them."""
    try:
        table = numpy.array([[int(part) for part in pair] for pair in pairs], dtype=numpy.int64)
    except (TypeError, ValueError, OverflowError):
        return None
    if table.ndim != 2 or table.shape[1] != 2 or any(part != int(part) for pair in pairs for part in pair):
        return None
    labels, places = numpy.unique(table, return_inverse=True)
    kinds = len(labels)
    if kinds > 10 or (name == "f1" and not set(labels.tolist()) <= {0, 1}):
        return None
    cell = places.reshape(table.shape) @ numpy.array([kinds, 1])
    of_counts = _f1(labels.tolist()) if name == "f1" else _matthews

    def score(indices: Indices) -> Sequence[Any]:
        drawn = cell[indices]
        counts = numpy.stack([(drawn == number).sum(axis=1) for number in range(kinds * kinds)], axis=1)
        found: list[float] = of_counts(counts.reshape(-1, kinds, kinds).astype(numpy.float64)).tolist()
        return found

    return score


def _f1(labels: list[int]) -> Callable[[Any], Any]:
    def of_counts(counts: Any) -> Any:
        if 1 not in labels:
            return numpy.zeros(len(counts))
        one = labels.index(1)
        whole = counts[:, one, :].sum(axis=1) + counts[:, :, one].sum(axis=1)
        return numpy.where(whole > 0, 2 * counts[:, one, one] / numpy.where(whole > 0, whole, 1), 0.0)

    return of_counts


def _matthews(counts: Any) -> Any:
    """Return Matthews' correlation of each table (rows, K, K) in the steps of scikit-learn."""
    right, answered = counts.sum(axis=2), counts.sum(axis=1)
    n = counts.sum(axis=(1, 2))
    both = numpy.trace(counts, axis1=1, axis2=2) * n - (right * answered).sum(axis=1)
    product = (n**2 - (answered**2).sum(axis=1)) * (n**2 - (right**2).sum(axis=1))
    return numpy.where(product == 0, 0.0, both / numpy.sqrt(numpy.where(product == 0, 1, product)))
