"""The table at the end of a run: metric, value and error, and the difference to the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.names import printable
from harness.records import intervals
from harness.records.labels import NOTED

if TYPE_CHECKING:
    from harness.records.record import Record


def print_summary(records: Sequence[Record], others: Sequence[Record]) -> None:
    """Print ``records`` to standard output, each beside the baseline's record with the same comparison key.

    Args:
        records: what this run made.
        others: where else a baseline may be found: records of earlier runs.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    baselines = {record.comparison_key(): record for record in [*others, *records] if record.is_baseline}
    table = Table(title=None, header_style="bold")
    has_seeds = len({record.seeds.random for record in records if record.deciding_seeds is not None}) > 1
    for column in ("task", "metric", "method", "docs", "value", "± stderr", "baseline", "difference"):
        table.add_column(column, justify="left" if column in {"task", "metric", "method"} else "right")
    for record in sorted(records, key=lambda r: (r.task.name, r.metric.name, not r.is_baseline)):
        cells = _row(record, baselines.get(record.comparison_key()))
        if has_seeds and record.deciding_seeds is not None:
            cells[2] += f" (seed {record.seeds.random})"
        table.add_row(*(Text(cell) for cell in cells))
    # A fixed width where there is no terminal: a log has no columns to fit.
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)
    for text in dict.fromkeys(note for record in records for note in record.notes):
        named = dict.fromkeys(printable(record.task.name) for record in records if text in record.notes)
        console.print(f"{NOTED} {', '.join(named)}: {printable(text)}", soft_wrap=True)


def _docs(record: Record) -> str:
    counts = record.counts
    return str(counts.docs) if counts.scored_docs is None else f"{counts.scored_docs} of {counts.docs}"


def _error(record: Record) -> str:
    """Return the standard error; where all documents are alike, which says nothing, the interval they allow."""
    if record.stderr or record.value is None:
        return f"± {record.stderr:.4f}" if record.stderr else ""
    interval = intervals.interval(intervals.of_record(record))
    return "" if interval is None else f"[{interval.low:.4f}, {interval.high:.4f}]"


def _row(record: Record, baseline: Record | None) -> list[str]:
    arrow = {True: " ↑", False: " ↓", None: ""}[record.metric.higher_is_better]
    metric = record.metric.name if record.metric.filter == "none" else f"{record.metric.name} ({record.metric.filter})"
    cells = [
        printable(record.task.name),
        printable(metric) + arrow,
        printable(record.method.name),
        _docs(record),
    ]
    cells += [
        ("no score" if record.value is None else f"{record.value:.4f}") + (f" {NOTED}" if record.notes else ""),
        _error(record),
    ]
    if baseline is None or record.is_baseline or baseline.value is None or record.value is None:
        return [*cells, "", ""]
    return [*cells, f"{baseline.value:.4f}", f"{record.value - baseline.value:+.4f}"]
