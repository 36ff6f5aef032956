"""What is known of the scores of a table's rows: their estimates, and an interval for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from harness.board.scores_by_document import ByDocument, Values
from harness.records import intervals, statistics
from harness.records.intervals import Estimate, Interval
from harness.records.record import Record

# Rows whose few documents are resampled; above, their intervals are Student's.
MOST_RESAMPLED = 400


def estimate(records: Sequence[Record], by_document: ByDocument | None) -> Estimate | None:
    """Return what the seeds of a row say of its score, None without a score."""
    found = intervals.of_seeds(records)
    is_plain = found is not None and by_document is not None and not records[0].task.group
    return intervals.with_values(found, by_document.values) if is_plain and found and by_document else found


def of_rows(estimates: Sequence[Estimate | None], by_documents: Sequence[ByDocument | None]) -> list[Interval | None]:
    """Return the 95 % interval of each row; those of a few of the same documents are resampled together."""
    found = [None if one is None else intervals.interval(one) for one in estimates]
    columns: dict[tuple[str, ...], dict[int, Values]] = {}
    for place, (interval, documents) in enumerate(zip(found, by_documents, strict=True)):
        if interval is not None and interval.method == intervals.STUDENT and documents is not None:
            columns.setdefault(documents.documents, {})[place] = documents.values
    for group in columns.values():
        if len(group) <= MOST_RESAMPLED:
            _, radii = statistics.studentised_bootstrap(numpy.stack(list(group.values()), axis=1))
            for place, radius in zip(group, radii, strict=True):
                one = estimates[place]
                assert one is not None
                found[place] = intervals.around(one, float(radius)) if radius > 0 else found[place]
    return found
