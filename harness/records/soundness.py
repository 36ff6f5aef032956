"""Is a score one to be ranked? Some are numbers and mean nothing."""

from __future__ import annotations

from harness.names import printable
from harness.records.record import Record

# More requests cut than this share, and the score is that of another task.
MOST_TRUNCATED = 0.01
# Aggregations of lm-eval that give a number and are no score: 999 by definition.
PLACEHOLDERS = frozenset({"bypass"})


def unranked_reason(record: Record) -> str:
    """Return why a record's own score takes no rank, empty when nothing is wrong with it."""
    counts = record.counts
    if record.metric.aggregation in PLACEHOLDERS:
        return f"no score: {record.metric.aggregation} stands for answers without one"
    if record.value is None:
        return f"no score: {counts.not_finite} requests gave no finite number" if counts.not_finite else "no score"
    asked = counts.requests or counts.docs
    if counts.truncated_requests > MOST_TRUNCATED * asked:
        return f"cut to fit the context: {counts.truncated_requests} of {asked} requests"
    if counts.empty_answers and counts.empty_answers >= max(asked, counts.docs):
        return "every answer is empty"
    if counts.distinct_answers == 1 and counts.docs > 1:
        return "every answer is the same"
    return ""


def over_fewer(metric: str, scored: int, docs: int) -> list[str]:
    """Return a note where some of the documents that were asked do not have the metric."""
    if scored == docs:
        return []
    return [f"{printable(metric)} is over {scored:,} of {docs:,} documents: the others have none"]


def kind(reason: str) -> str:
    """Return the reason without its numbers, to count by."""
    return reason.split(" (")[0].split(":")[0]
