"""Scores computed again: from the values of the documents, or of a group from those of its tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

# Of metrics that lm-eval averages, whatever a record says of their aggregation.
MEANS = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"})
# Which of ``group_scores`` each aggregation of a group is.
GROUP_WAYS = {"mean_by_size": (0,), "mean_of_tasks": (1,)}
RELATIVE_TOLERANCE = 1e-9
# Numbers of 32 bits reach a sample file as text of eight digits.
TEXT_TOLERANCE = 1e-6


class NotRecomputableError(Exception):
    """Nothing here can compute this score; the message says why."""


def score(values: Sequence[Any], aggregation: str | None) -> float:
    """Return the score that ``aggregation`` makes of the documents' values, as a sample file holds them.

    Args:
        values: numbers, or for metrics over the whole set what lm-eval keeps of each document.
        aggregation: lm-eval's name, None when it is not known.

    Raises:
        NotRecomputableError: the aggregation is none of lm-eval's, or the values do not suit it.
    """
    if not values:
        raise NotRecomputableError("no document has a value")
    if aggregation == "mean":
        return _mean(numbers(values))
    function = _lm_eval_aggregation(aggregation)
    try:
        result = float(function([_item(value) for value in values]))
    except Exception as error:  # lm-eval's functions take what lm-eval's metrics give them, and check nothing
        raise NotRecomputableError(
            f"the values in the samples do not suit '{aggregation}' ({type(error).__name__})"
        ) from error
    if not math.isfinite(result):
        raise NotRecomputableError(f"'{aggregation}' of the values in the samples is {result}")
    return result


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of a mean, None of a single value."""
    import numpy as np

    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


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


def _mean(values: Sequence[float]) -> float:
    import numpy as np

    return float(np.mean(np.asarray(values, dtype=np.float64)))


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


def _lm_eval_aggregation(name: str | None) -> Any:
    if name is None:
        raise NotRecomputableError("its aggregation is not known")
    import lm_eval.api.metrics  # noqa: F401  (fills the registry)
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    if name not in AGGREGATION_REGISTRY or name == "bypass":
        raise NotRecomputableError(f"'{name}' is no aggregation of lm-eval")
    return AGGREGATION_REGISTRY[name]
