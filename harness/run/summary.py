"""The table at the end of a run: metric, value and error, and the difference to the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.comparing.checks import Difference, differences, named, shown, word_for
from harness.names import printable
from harness.records import intervals
from harness.records.labels import DIFFERS, NOTED

if TYPE_CHECKING:
    from harness.records.record import Record

# What a method may change of the question itself, while documents, model and settings stay.
MADE_BY_METHODS = frozenset({"tokenizer.prefix_token_id", "task.prompts_digest"})


COLUMNS = ("task", "metric", "method", "docs", "value", "± stderr", "baseline", "difference")
WORDS = frozenset({"task", "metric", "method"})


def summary_rows(records: Sequence[Record], others: Sequence[Record]) -> list[list[str]]:
    """Return the cells of each record, in the order of ``COLUMNS``; arguments as of ``print_summary``."""
    baselines = _Baselines([*others, *records])
    has_seeds = len({record.seeds.random for record in records if record.deciding_seeds is not None}) > 1
    rows = []
    for record in sorted(records, key=lambda r: (r.task.name, r.metric.name, not r.is_baseline)):
        cells = _row(record, baselines.beside(record))
        if has_seeds and record.deciding_seeds is not None:
            cells[2] += f" (seed {record.seeds.random})"
        rows.append(cells)
    return rows


def summary_notes(records: Sequence[Record], others: Sequence[Record]) -> list[str]:
    """Return sentences on scores that are not what they seem, and on differences that are marked or missing."""
    found = []
    for text in dict.fromkeys(note for record in records for note in record.notes):
        named = dict.fromkeys(printable(record.task.name) for record in records if text in record.notes)
        found.append(f"{NOTED} {', '.join(named)}: {printable(text)}")
    return [*found, *_why(records, _Baselines([*others, *records]))]


def print_summary(records: Sequence[Record], others: Sequence[Record]) -> None:
    """Print ``records`` to standard output, each beside the baseline's record with the same comparison key.

    Args:
        records: what this run made.
        others: where else a baseline may be found: records of earlier runs.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=None, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in WORDS else "right")
    for cells in summary_rows(records, others):
        table.add_row(*(Text(cell) for cell in cells))
    # A fixed width where there is no terminal: a log has no columns to fit.
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)
    for note in summary_notes(records, others):
        console.print(note, soft_wrap=True)


def print_beside(records: Sequence[Record], output: Path) -> None:
    """Print records, if there are any, beside the baselines among those in the output folder."""
    from harness.records import ledger

    if records:
        print_summary(records, ledger.read(output, with_foreign=False).records)


@dataclass(frozen=True)
class _Beside:
    """What a score is set beside: a baseline's record, and in what the two differ that would have to agree.

    ``is_shown``: the method alone made the difference, and the documents are the same, so that the numbers may stand side by
    side, marked.
    """

    record: Record | None = None
    differing: tuple[Difference, ...] = ()

    @property
    def is_shown(self) -> bool:
        return self.record is not None and {name for name, _, _ in self.differing} <= MADE_BY_METHODS


class _Baselines:
    """The baseline's record that goes with another, or the one that is nearest."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._by_key: dict[str, Record] = {}
        self._by_metric: dict[tuple[str, str, str], list[Record]] = {}
        for record in records:
            if record.is_baseline and record.value is not None:
                self._by_key[record.comparison_key()] = record
                self._by_metric.setdefault(_metric_of(record), []).append(record)

    def beside(self, record: Record) -> _Beside:
        if record.is_baseline or record.value is None:
            return _Beside()
        same = self._by_key.get(record.comparison_key())
        if same is not None:
            return _Beside(same)
        found = [(one, _differing(one, record)) for one in self._by_metric.get(_metric_of(record), [])]
        return _Beside(*min(found, key=lambda pair: len(pair[1]))) if found else _Beside()


def _differing(baseline: Record, record: Record) -> tuple[Difference, ...]:
    """Return in what two records differ that do not compare; where nothing else does, it is the seed of the shots."""
    seeds = ("seeds.fewshot", baseline.fewshot_seed, record.fewshot_seed)
    return tuple(differences(baseline, record)) or (seeds,)


def _metric_of(record: Record) -> tuple[str, str, str]:
    return record.task.name, record.metric.name, record.metric.filter


def _why(records: Sequence[Record], baselines: _Baselines) -> list[str]:
    """Return sentences on differences to the baseline that are marked, and on those that are not there."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        beside = baselines.beside(record)
        if record.is_baseline or record.value is None or (beside.record is not None and not beside.differing):
            continue
        if beside.record is None and record.foreign is not None:
            continue  # another tool measured a model as it is, and no flag of ours asks it for another
        found.setdefault(_reason(record, beside), {})[printable(record.task.name)] = None
    return [f"{reason} ({', '.join(tasks)})" for reason, tasks in found.items()]


def _reason(record: Record, beside: _Beside) -> str:
    method = printable(record.method.name)
    if beside.record is None:
        return "no difference: there is no record of the untouched model; --with_baseline asks it first"
    told = [f"the {_words(name)}, {shown(theirs)} → {shown(ours)}" for name, theirs, ours in beside.differing[:3]]
    if beside.is_shown:
        words = ",".join(dict.fromkeys(word_for({name}) or "" for name, _, _ in beside.differing))
        return (
            f"{DIFFERS} {method} changed {' and '.join(told)}: not the same question, so no difference on boards; `harness "
            f"compare` tests it with --across {words}"
        )
    return f"no difference: the untouched model was asked with another setting: {' and '.join(told)}"


def _words(field: str) -> str:
    """Return a field of a record in plain words."""
    part, _, name = field.rpartition(".")
    plain = {"seeds.fewshot": "seed of the shots", "tokenizer.prefix_token_id": "prefix token"}
    whose = {"model": "model's ", "task": "task's "}.get(part, "")
    return plain.get(field, whose + named(name).replace("_", " "))


def _docs(record: Record) -> str:
    counts = record.counts
    return str(counts.docs) if counts.scored_docs is None else f"{counts.scored_docs} of {counts.docs}"


def _error(record: Record) -> str:
    """Return the standard error; where all documents are alike, which says nothing, the interval they allow."""
    if record.stderr or record.value is None:
        return f"± {record.stderr:.4f}" if record.stderr else ""
    interval = intervals.interval(intervals.of_record(record))
    return "" if interval is None else f"[{interval.low:.4f}, {interval.high:.4f}]"


def _row(record: Record, beside: _Beside) -> list[str]:
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
    baseline = beside.record
    if baseline is None or baseline.value is None or record.value is None or not beside.is_shown:
        return [*cells, "", ""]
    mark = f" {DIFFERS}" if beside.differing else ""
    return [*cells, f"{baseline.value:.4f}", f"{record.value - baseline.value:+.4f}{mark}"]
