"""One number a document, also for metrics over the whole set: what each document adds to the score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from harness.names import printable
from harness.records import aggregation as recomputing
from harness.records.aggregation import NotRecomputableError
from harness.records.statistics import Values

# Each of lm-eval's aggregations as a function of means over documents: (N, K) columns of one document each, and the score
# made of K means. So the score without one document costs no more than a subtraction.
Columns = Callable[[Sequence[Any]], Values]
Score = Callable[[Values], Values]


def document_values(values: Sequence[Any], aggregation: str | None, claimed: float | None) -> tuple[Values, float, str]:
    """Return one number for each document, the score, and the name of the aggregation that gives it.

    Of a mean the numbers are the values themselves. Of another aggregation they are jackknife pseudo-values: the score of
    all N documents N times, less that of the others N - 1 times. Their mean is the score up to a bias of order 1/N, and
    they vary over documents as the score would.

    Args:
        values: the metric of each document, as a sample file holds it.
        aggregation: lm-eval's name, None where the record is too old to say.
        claimed: the score of the record, which has to come out; None to take what comes.

    Raises:
        NotRecomputableError: the aggregation is none of these, or the values do not give the score.
    """
    if not values:
        raise NotRecomputableError("no document has a value")
    if aggregation in AGGREGATIONS:
        return (*_checked(values, aggregation, claimed), aggregation)
    if aggregation is not None and aggregation in UNKNOWN:
        raise NotRecomputableError(f"no test is known here for the aggregation '{aggregation}'")
    for name in AGGREGATIONS:  # a task's own function, or a record that does not say: what gives the score is it
        try:
            return (*_checked(values, name, claimed), name)
        except NotRecomputableError:
            continue
    named = "which is not recorded" if aggregation is None else f"'{printable(aggregation)}'"
    raise NotRecomputableError(
        f"the score is no mean of its documents, and no test is known for its aggregation, {named}"
    )


def pseudo_values(columns: Values, score: Score) -> tuple[Values, float]:
    """Return the jackknife pseudo-values (N,) of a score that is a function of the means of ``columns`` (N, K), and the score."""
    n, means = len(columns), columns.mean(axis=0)
    whole = float(score(means))
    if n == 1:
        return numpy.array([whole]), whole
    without = score((n * means - columns) / (n - 1))
    return n * whole - (n - 1) * without, whole


def _checked(values: Sequence[Any], aggregation: str, claimed: float | None) -> tuple[Values, float]:
    columns_of, score = AGGREGATIONS[aggregation]
    try:
        columns = columns_of(values)
        with numpy.errstate(all="ignore"):
            found, whole = pseudo_values(columns, score)
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise NotRecomputableError(f"the documents' values do not suit '{aggregation}'") from error
    if not numpy.isfinite(found).all():
        raise NotRecomputableError(f"'{aggregation}' without one of the documents is no finite number")
    if claimed is not None and not recomputing.agree(claimed, whole, [float(abs(columns).max()), *values[:1]]):
        raise NotRecomputableError(f"the documents give {whole:.6g} by '{aggregation}', the record says {claimed:.6g}")
    return (columns[:, 0] if score is _first else found), whole


def _one(values: Sequence[Any]) -> Values:
    return numpy.array(recomputing.numbers(values), dtype=numpy.float64)[:, None]


def _two(values: Sequence[Any]) -> Values:
    columns = numpy.array([[float(part) for part in value] for value in values], dtype=numpy.float64)
    if columns.ndim != 2 or columns.shape[1] != 2:
        raise ValueError("two numbers a document are due")
    return columns


def _weighted(values: Sequence[Any]) -> Values:
    columns = _two(values)
    if not (columns[:, 1] > 0).all():
        raise ValueError("weights are above 0")
    return columns


def _right_and_wrong(values: Sequence[Any]) -> Values:
    """Return four columns: true positives, true negatives, false positives, false negatives."""
    gold, predicted = _two(values).T
    if not set(numpy.unique([gold, predicted])) <= {0.0, 1.0}:
        raise ValueError("two classes, 0 and 1, are due")
    cells = [gold * predicted, (1 - gold) * (1 - predicted), (1 - gold) * predicted, gold * (1 - predicted)]
    return numpy.stack(cells, axis=1)


def _squared_errors(values: Sequence[Any]) -> Values:
    errors = [
        sum((float(share) - (number == int(gold))) ** 2 for number, share in enumerate(shares))
        for gold, shares in values
    ]
    return numpy.array(errors, dtype=numpy.float64)[:, None]


def _first(means: Values) -> Values:
    return numpy.asarray(means[..., 0])


def _f1(means: Values) -> Values:
    positive, _, false_positive, false_negative = numpy.moveaxis(means, -1, 0)
    whole = 2 * positive + false_positive + false_negative
    return numpy.asarray(numpy.where(whole > 0, 2 * positive / numpy.where(whole > 0, whole, 1), 0.0))


def _correlation(means: Values) -> Values:
    """Return Matthews' correlation coefficient."""
    tp, tn, fp, fn = numpy.moveaxis(means, -1, 0)
    root = numpy.sqrt(numpy.maximum((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn), 0))
    return numpy.asarray(numpy.where(root > 0, (tp * tn - fp * fn) / numpy.where(root > 0, root, 1), 0.0))


AGGREGATIONS: dict[str, tuple[Columns, Score]] = {
    "mean": (_one, _first),
    "nanmean": (_one, _first),
    "perplexity": (_one, lambda means: numpy.exp(-means[..., 0])),
    "weighted_perplexity": (_weighted, lambda means: numpy.exp(-means[..., 0] / means[..., 1])),
    "bits_per_byte": (_weighted, lambda means: -means[..., 0] / means[..., 1] / math.log(2)),
    "f1": (_right_and_wrong, _f1),
    "matthews_corrcoef": (_right_and_wrong, _correlation),
    "brier_score": (_squared_errors, _first),
}
UNKNOWN = frozenset({"median", "bleu", "chrf", "chrf++", "ter", "bypass"})
