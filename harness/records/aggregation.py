"""Aggregations by name: the score that the documents' values make, and what each document adds to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing

from harness.errors import HarnessError
from harness.names import printable
from harness.records import whole_scores
from harness.records.whole_scores import two_columns

Values = numpy.typing.NDArray[numpy.float64]
# Of metrics that lm-eval averages, whatever a record says of their aggregation.
MEANS = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"})
# Which of ``group_scores`` each aggregation of a group is.
GROUP_WAYS = {"mean_by_size": (0,), "mean_of_tasks": (1,)}
RELATIVE_TOLERANCE = 1e-9
# Numbers of 32 bits reach a sample file as text of eight digits.
TEXT_TOLERANCE = 1e-6
# Scores that are no function of means are computed once without each document: above this, it takes minutes.
MOST_LEFT_OUT = 5_000


class NotRecomputableError(Exception):
    """Nothing here can compute this score; the message says why."""


class NeedsPluginError(NotRecomputableError):
    """The plugin whose aggregation this is has not been loaded; the message names both."""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One way from the values of the documents to a score.

    Attributes:
        score: of all values, those that are lists in a sample file as tuples; None where lm-eval has it by this name.
        columns: (N, K) numbers, one row a document, of which ``of_means`` makes the score; None where nothing does.
        of_means: the scores of means of columns, (..., K) to (...), so that leaving a document out is a subtraction.
        without: of all values, the scores (N,) without each of them, where that takes less than N times the score.
    """

    score: Callable[[Sequence[Any]], float] | None = None
    columns: Callable[[Sequence[Any]], Values] | None = None
    of_means: Callable[[Values], Values] | None = None
    without: Callable[[Sequence[Any]], Values] | None = None


def add(name: str, score: Callable[[Sequence[Any]], float]) -> None:
    """Add a plugin's own aggregation; the module that the entry point names does it, so that loading the plugin is enough.

    Args:
        name: ``PLUGIN.NAME``, by which records name it: who lacks it knows whose it is.
        score: of the values of all documents, to a number. What is a list in a sample file, it gets as a tuple.

    Raises:
        HarnessError: the name is not of this form.
    """
    plugin, dot, own = name.partition(".")
    if not (plugin and dot and own):
        raise HarnessError(f"aggregation '{printable(name)}' does not say whose it is; call it PLUGIN.NAME")
    AGGREGATIONS[name] = Aggregation(score)


def score(values: Sequence[Any], aggregation: str | None) -> float:
    """Return the score that ``aggregation`` makes of the documents' values, as a sample file holds them.

    Args:
        values: numbers, or for metrics over the whole set what lm-eval keeps of each document.
        aggregation: its name, None when it is not known.

    Raises:
        NotRecomputableError: the aggregation is not known, or the values do not suit it.
    """
    if not values:
        raise NotRecomputableError("no document has a value")
    if aggregation == "mean":
        return _mean(numbers(values))
    function = _function(aggregation)
    try:
        result = float(function([_item(value) for value in values]))
    except Exception as error:  # such functions take what their metrics give them, and check nothing
        raise NotRecomputableError(
            f"the values in the samples do not suit '{aggregation}' ({type(error).__name__})"
        ) from error
    if not math.isfinite(result):
        raise NotRecomputableError(f"'{aggregation}' of the values in the samples is {result}")
    return result


def document_values(values: Sequence[Any], aggregation: str | None, claimed: float | None) -> tuple[Values, float, str]:
    """Return one number for each document, the score, and the name of the aggregation that gives it.

    Of a mean the numbers are the values themselves. Of another aggregation they are jackknife pseudo-values: the score of
    all N documents N times, less that of the others N - 1 times. Their mean is the score up to a bias of order 1/N, and
    they vary over documents as the score would.

    Args:
        values: the metric of each document, as a sample file holds it.
        aggregation: its name, None where the record is too old to say.
        claimed: the score of the record, which has to come out; None to take what comes.

    Raises:
        NotRecomputableError: the aggregation is none one with a test, or the values do not give the score.
    """
    if not values:
        raise NotRecomputableError("no document has a value")
    if aggregation in AGGREGATIONS:
        return (*_checked(values, aggregation, claimed), aggregation)
    if aggregation is not None and "." in aggregation:
        raise _needs_plugin(aggregation)
    for name in GUESSED:  # a task's own function, or a record that does not say: what gives the score is it
        try:
            return (*_checked(values, name, claimed), name)
        except NotRecomputableError:
            continue
    named = "which is not recorded" if aggregation is None else f"'{printable(aggregation)}'"
    raise NotRecomputableError(
        f"the score is no mean of its documents, and no test is known for its aggregation, {named}"
    )


def pseudo_values(columns: Values, of_means: Callable[[Values], Values]) -> tuple[Values, float]:
    """Return the jackknife pseudo-values (N,) of a score that is a function of the means of ``columns`` (N, K), and the score."""
    n, means = len(columns), columns.mean(axis=0)
    whole = float(of_means(means))
    if n == 1:
        return numpy.array([whole]), whole
    without = of_means((n * means - columns) / (n - 1))
    return n * whole - (n - 1) * without, whole


def error_of_whole(values: Sequence[Any], aggregation: str | None) -> float | None:
    """Return the standard error that a run gives a score over the whole set by bootstrap; None where that is not its way.

    Args:
        values: the metric of each document in order, as a sample file holds it.
        aggregation: its name.

    Raises:
        NotRecomputableError: a draw of the documents has no score.
    """
    entry = AGGREGATIONS.get(aggregation or "")
    if entry is None or entry.score is None or len(values) < 2:
        return None
    try:
        return whole_scores.bootstrapped_error(entry.score, [_item(value) for value in values])
    except Exception as error:  # a plugin's score may fail on documents that are all alike
        raise NotRecomputableError(str(error)) from error


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of a mean, None of a single value."""
    return float(numpy.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def numbers(values: Sequence[Any]) -> list[float]:
    """Return the values as numbers.

    Raises:
        NotRecomputableError: one is none.
    """
    try:
        found = [_number(value) for value in values]
    except (TypeError, ValueError) as error:
        raise NotRecomputableError("the samples hold values that are no numbers") from error
    if not all(map(math.isfinite, found)):
        raise NotRecomputableError("the samples hold values that are NaN or infinite")
    return found


def group_scores(values: Sequence[float], docs: Sequence[int]) -> tuple[float, float]:
    """Return what lm-eval may report of a group: the mean weighted by documents, and the plain mean of its tasks."""
    weighted = math.fsum(value * count for value, count in zip(values, docs, strict=True)) / sum(docs)
    return weighted, math.fsum(values) / len(values)


def group_errors(errors: Sequence[float], docs: Sequence[int]) -> tuple[float, float]:
    """Return the standard errors that go with ``group_scores``: pooled, and of the plain mean."""
    total = sum(docs)
    within = math.fsum((n - 1) * n * error**2 for n, error in zip(docs, errors, strict=True))
    pooled = math.sqrt(within / max(total - len(docs), 1) / total)
    return pooled, math.sqrt(math.fsum(error**2 for error in errors)) / len(errors)


def agree(claimed: float, computed: float, values: Sequence[Any] = ()) -> bool:
    """Whether two numbers are one but for rounding.

    Args:
        claimed: what a record says.
        computed: what follows.
        values: what it was computed from: a mean of large numbers near zero is rounded by their size.
    """
    is_text = any(isinstance(value, str) for value in values)
    scale = max([abs(claimed), abs(computed), *(abs(value) for value in values if isinstance(value, int | float))])
    return abs(claimed - computed) <= (TEXT_TOLERANCE if is_text else RELATIVE_TOLERANCE) * scale


def _checked(values: Sequence[Any], name: str, claimed: float | None) -> tuple[Values, float]:
    entry = AGGREGATIONS[name]
    if entry.score is None and entry.of_means is None:
        raise NotRecomputableError(f"no test is known here for the aggregation '{name}'")
    try:
        with numpy.errstate(all="ignore"):
            numbers_of, whole, size = _by_means(values, entry) if entry.of_means else _by_leaving_out(values, entry)
    except (TypeError, ValueError, IndexError, OverflowError, ArithmeticError) as error:
        raise NotRecomputableError(f"the documents' values do not suit '{printable(name)}'") from error
    if not numpy.isfinite(numbers_of).all():
        raise NotRecomputableError(f"'{printable(name)}' without one of the documents is no finite number")
    if claimed is not None and not agree(claimed, whole, [size, *values[:1]]):
        raise NotRecomputableError(
            f"the documents give {whole:.6g} by '{printable(name)}', the record says {claimed:.6g}"
        )
    return numbers_of, whole


def _by_means(values: Sequence[Any], entry: Aggregation) -> tuple[Values, float, float]:
    """Return what each document adds, the score, and the size of the largest number it is made of."""
    assert entry.columns is not None and entry.of_means is not None
    columns = entry.columns(values)
    found, whole = pseudo_values(columns, entry.of_means)
    if entry.of_means is _first and numpy.isfinite(found).all():  # but for rounding they are one
        found = columns[:, 0]
    return found, whole, float(abs(columns).max())


def _by_leaving_out(values: Sequence[Any], entry: Aggregation) -> tuple[Values, float, float]:
    """Return the same of a score that is made of all values at once, by making it without each document."""
    assert entry.score is not None
    n, items = len(values), [_item(value) for value in values]
    if n > MOST_LEFT_OUT and entry.without is None:
        raise NotRecomputableError(
            f"leaving out each of more than {MOST_LEFT_OUT:,} documents of such a score takes too long"
        )
    whole = float(entry.score(items))
    if n == 1:
        return numpy.array([whole]), whole, abs(whole)
    if entry.without is not None:
        without = entry.without(items)
    else:
        without = numpy.array([float(entry.score(items[:i] + items[i + 1 :])) for i in range(n)])
    return n * whole - (n - 1) * without, whole, abs(whole)


def _mean(values: Sequence[float]) -> float:
    return float(numpy.mean(numpy.asarray(values, dtype=numpy.float64)))


def _number(value: Any) -> float:
    if isinstance(value, str):  # what JSON has no type for is written as text
        return {"True": 1.0, "False": 0.0}[value] if value in {"True", "False"} else float(value)
    if not isinstance(value, int | float):
        raise TypeError(type(value).__name__)
    return float(value)


def _item(value: Any) -> Any:
    """Return a value as lm-eval's functions take it: a tuple where JSON has a list, a number where it has its text."""
    if isinstance(value, list):
        return tuple(value)
    try:
        return _number(value)
    except ValueError:
        return value


def _function(name: str | None) -> Callable[[Sequence[Any]], Any]:
    if name is None:
        raise NotRecomputableError("its aggregation is not known")
    entry = AGGREGATIONS.get(name)
    if entry is not None and entry.score is not None:
        return entry.score
    if "." in name:
        raise _needs_plugin(name)
    import lm_eval.api.metrics  # noqa: F401  (fills the registry)
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    if name not in AGGREGATION_REGISTRY or name == "bypass":
        raise NotRecomputableError(f"'{name}' is no aggregation of lm-eval")
    function: Callable[[Sequence[Any]], Any] = AGGREGATION_REGISTRY[name]
    return function


def _needs_plugin(name: str) -> NeedsPluginError:
    plugin = printable(name.partition(".")[0])
    return NeedsPluginError(f"its aggregation '{printable(name)}' cannot be computed again without plugin '{plugin}'")


def _one(values: Sequence[Any]) -> Values:
    return numpy.array(numbers(values), dtype=numpy.float64)[:, None]


def _weighted(values: Sequence[Any]) -> Values:
    columns = two_columns(values)
    if not (columns[:, 1] > 0).all():
        raise ValueError("weights are above 0")
    return columns


def _right_and_wrong(values: Sequence[Any]) -> Values:
    """Return four columns: true positives, true negatives, false positives, false negatives."""
    gold, predicted = two_columns(values).T
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


AGGREGATIONS: dict[str, Aggregation] = {
    "mean": Aggregation(None, _one, _first),
    "nanmean": Aggregation(None, _one, _first),
    "perplexity": Aggregation(None, _one, lambda means: numpy.exp(-means[..., 0])),
    "weighted_perplexity": Aggregation(None, _weighted, lambda means: numpy.exp(-means[..., 0] / means[..., 1])),
    "bits_per_byte": Aggregation(None, _weighted, lambda means: -means[..., 0] / means[..., 1] / math.log(2)),
    "f1": Aggregation(None, _right_and_wrong, _f1),
    "matthews_corrcoef": Aggregation(None, _right_and_wrong, _correlation),
    "brier_score": Aggregation(None, _squared_errors, _first),
    **dict.fromkeys(("median", "bleu", "chrf", "chrf++", "ter", "bypass"), Aggregation()),
    "pearson": Aggregation(whole_scores.pearson, whole_scores.pearson_columns, whole_scores.pearson_of_means),
    "spearman": Aggregation(whole_scores.spearman, without=whole_scores.spearman_without),
    "v_measure": Aggregation(whole_scores.v_measure, without=whole_scores.v_measure_without),
    "ratio_of_sums": Aggregation(whole_scores.ratio_of_sums, _weighted, lambda means: means[..., 0] / means[..., 1]),
}
"""Every aggregation by name: lm-eval's, whose functions it has, then those of the harness; plugins add theirs."""

# What is tried for a record that does not say, in this order.
GUESSED = (
    "mean", "nanmean", "perplexity", "weighted_perplexity", "bits_per_byte", "f1", "matthews_corrcoef", "brier_score",
)  # fmt: skip
