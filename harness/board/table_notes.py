"""What is said above a table: in what its rows differ though they stand together."""

from __future__ import annotations

from collections.abc import Sequence

from harness.board.omissions import DOES_NOT_FOLLOW
from harness.names import counted
from harness.records.labels import tool_label
from harness.records.record import UNKNOWN, Record

VERSIONS = ("lm_eval", "harness", "transformers", "torch", "engine", "device")


def contradictions(count: int) -> tuple[str, ...]:
    """Return a note on scores that do not follow, none when there are none."""
    return (f"{counted(count, 'score')} {DOES_NOT_FOLLOW}",) if count else ()


def versions(records: Sequence[Record]) -> tuple[str, ...]:
    """Return a note for each version or device that is not the same for all records."""
    environments = {id(record.environment): record.environment for record in records}.values()
    tools = sorted({tool_label(record) or "this harness" for record in records})
    notes = [f"rows were measured by more than one tool: {', '.join(tools)}"] if len(tools) > 1 else []
    for name in VERSIONS:
        values = sorted({str(getattr(environment, name)) for environment in environments} - {UNKNOWN})
        if len(values) > 1:
            more = f" and {len(values) - 4} others" if len(values) > 4 else ""
            notes.append(f"rows were made with more than one {name}: {', '.join(values[:4])}{more}")
    return tuple(notes)


def one_direction(records: Sequence[Record]) -> bool | None:
    """Return which way of a metric is good, None where nobody knows or its records are not of one kind."""
    ways = {record.metric.higher_is_better for record in records}
    return ways.pop() if len(ways) == 1 and len(_aggregations(records)) < 2 else None


def metrics(by_metric: Sequence[Sequence[Record]]) -> tuple[str, ...]:
    """Return a note for each metric whose records say other things of it, so that none of them is ranked."""
    notes = []
    for records in by_metric:
        name, ways = records[0].metric.name, {record.metric.higher_is_better for record in records}
        if len(ways) > 1:
            notes.append(f"records differ on which way of {name} is good, so it gives no ranks")
        if len(_aggregations(records)) > 1:
            kinds = ", ".join(sorted(_aggregations(records)))
            notes.append(f"{name} is made in more than one way ({kinds}), so it gives no ranks")
    return tuple(notes)


def _aggregations(records: Sequence[Record]) -> set[str]:
    return {record.metric.aggregation for record in records if record.metric.aggregation is not None}
