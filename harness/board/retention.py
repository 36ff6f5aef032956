"""What a method costs on tasks that it was not made for: what is left of the untouched model's scores there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.board.board import mean
from harness.board.columns import Column
from harness.board.tables import Score
from harness.records.bounds import bounds
from harness.records.record import Record


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of the untouched model's scores is left on tasks that a method was not made for.

    Attributes:
        share: mean over the tasks of score / the untouched model's, turned over where lower is better; 1 is no cost; None where
            no task has a metric that a share can be told of.
        worst: the smallest of them.
        task: the task of that.
        changes: by task the score less the untouched model's, where the metric may be negative: such as a correlation, half of
            which is no half of what is known. Turned where lower is better, so that below 0 is a cost.
    """

    share: float | None
    worst: float | None
    task: str | None
    changes: Mapping[str, float] = field(default_factory=dict)


def signed_columns(
    columns: Sequence[Column], rows: Iterable[Mapping[int, Score]], records: Sequence[Record]
) -> frozenset[int]:
    """Return the numbers of the columns whose metric may be negative: by its name and aggregation, or because a score is.

    Args:
        rows: scores by the number of the column.
        records: those that scores name as their sources.
    """
    found = set()
    for row in rows:
        for n, score in row.items():
            limits = bounds(columns[n].metric.name, records[score.sources[0]].metric.aggregation)
            is_below = score.value is not None and score.value < 0 and not score.is_contradicted
            if is_below or (limits is not None and limits[0] < 0):
                found.add(n)
    return frozenset(found)


def retention_of(
    scores: Mapping[int, Score], untouched: Mapping[int, Score], columns: Mapping[int, Column], signed: frozenset[int]
) -> Retention | None:
    """Return what is left of the untouched model's scores, None where no task tells.

    Args:
        scores, untouched: by the number of the column.
        columns: those of the tasks for it, by number.
        signed: the numbers of those whose metric may be negative.
    """
    shares: dict[int, float] = {}
    changes: dict[str, float] = {}
    for n, column in columns.items():
        left, whole, way = scores.get(n), untouched.get(n), column.metric.higher_is_better
        if left is None or whole is None or left.is_contradicted or whole.is_contradicted or way is None:
            continue
        if left.value is None or whole.value is None:
            continue
        if n in signed:
            changes[column.task] = left.value - whole.value if way else whole.value - left.value
        elif whole.value > 0 and (left.value > 0 or way):  # nothing is left: that counts, too
            shares[n] = left.value / whole.value if way else whole.value / left.value
    if not shares:
        return Retention(None, None, None, changes) if changes else None
    worst = min(shares, key=lambda n: shares[n])
    return Retention(mean(list(shares.values())), shares[worst], columns[worst].task, changes)
