"""One run on the terminal: what ran, what came out, what it took, what it left."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import printable
from harness.records import ledger
from harness.records.grouping import weights_label
from harness.records.labels import method_label, model_label, options_that_differ
from harness.records.run_notes import ARTEFACTS, STATUS_FILE, notes_of, status_of
from harness.run.summary import print_summary
from harness.showing import foreign_runs
from harness.verifying import claims, following
from harness.verifying.contradictions import Contradictions

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from harness.records.record import CountsPart, Record

MOST_FILES, MOST_NUMBERS, MOST_CHARACTERS = 20, 20, 100
STAGE_COLUMNS = (
    "stage", "seconds", "peak MB", "docs", "requests", "cut", "not finite", "empty", "different", "tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """The records of one run and the files they stand in; ``folder`` is the run's own, None for a run on a board."""

    name: str
    records: list[Record]
    files: list[Path]
    folder: Path | None

    @property
    def notes(self) -> dict[str, Any]:
        """What the run noted of itself while it ran: status, times, tasks; empty when there is nothing to read."""
        return {} if self.folder is None else notes_of(self.folder)

    @property
    def status(self) -> str:
        """What the run noted of its end; of a run on a board, whether a score is missing."""
        if self.folder is not None and self.notes:
            return status_of(self.folder)
        return "invalid" if any(r.value is None for r in self.records) else ""

    @property
    def seconds(self) -> float:
        """What making the method and asking the tasks took together."""
        tasks = {r.task.name: r.cost.evaluate_seconds for r in self.records if not r.task.group}
        return self.records[0].cost.apply_seconds + sum(tasks.values())

    @property
    def main_scores(self) -> list[Record]:
        """The first metric of each task, without the tasks of groups that are there."""
        members = {name for record in self.records for name in record.task.members or ()}
        found: dict[str, Record] = {}
        for record in self.records:
            if record.task.name not in members:
                found.setdefault(record.task.name, record)
        return list(found.values())


def runs_of(reading: ledger.Reading) -> list[Shown]:
    """Return the runs in a reading, in its order."""
    by_run: dict[Any, list[int]] = defaultdict(list)
    for number, (record, origin) in enumerate(zip(reading.records, reading.origins, strict=True)):
        by_run[following.run_of(record, origin)].append(number)
    found = []
    for numbers in by_run.values():
        records, files = [reading.records[n] for n in numbers], [reading.origins[n].file for n in numbers]
        parent = files[0].parent
        folder = parent if (parent / STATUS_FILE).is_file() else None
        found.append(Shown(records[0].run or records[0].key(), records, files, folder))
    return found


def pick(runs: Sequence[Shown], name: str | None, *, path: Path) -> Shown | None:
    """Return the run that is meant: the only one, or that whose name begins with ``name``; None to list them all.

    Raises:
        HarnessError: there is none, or none of that name.
    """
    if not runs and (notes := notes_of(path)):
        raise HarnessError(
            f"no task of the run in '{printable(path)}' has ended (it is {printable(notes.get('status'))}, started "
            f"{printable(notes.get('started'))}); its command goes on with it: {printable(notes.get('command'))}"
        )
    if not runs:
        raise HarnessError(f"no records in '{printable(path)}'; give a folder that `harness eval` wrote to")
    if name is None:
        return runs[0] if len(runs) == 1 else None
    fits = [run for run in runs if run.name.startswith(name)]
    if len(fits) != 1:
        there = ", ".join(_told_apart(run, fits or runs[:12]) for run in fits or runs[:12])
        what = "several runs are" if fits else "no run is"
        raise HarnessError(f"{what} called '{printable(name)}' in '{printable(path)}'; there is {there}")
    return fits[0]


def _told_apart(run: Shown, among: Sequence[Shown]) -> str:
    """Return a run's name with its seed, and the model and options in which these runs differ."""
    record, firsts = run.records[0], [other.records[0] for other in among]
    models = {f"{model_label(first)}, {weights_label(first)}" for first in firsts}
    words = [f"{model_label(record)}, {weights_label(record)}"] if len(models) > 1 else []
    options = options_that_differ(firsts)
    words += [f"{name}={record.method.options[name]}" for name in options if name in record.method.options]
    return f"{printable(run.name)} ({', '.join([f'seed {record.seeds.random}', *map(printable, words)])})"


def console() -> Console:
    """Return a console that takes no markup; wide where there is no terminal, as a log has no columns to fit."""
    from rich.console import Console

    made = Console(markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = 160
    return made


def contradictions_of(run: Shown, readings: Sequence[ledger.Reading]) -> list[str]:
    """Return a sentence for each score of the run, and of the baseline beside it, that does not follow.

    Args:
        readings: where the records of its baseline may be found.
    """
    keys = {record.comparison_key() for record in run.records}
    found = [(record, ledger.Origin(file, 0)) for record, file in zip(run.records, run.files, strict=True)]
    own = {id(record) for record in run.records}
    baselines = [
        (record, origin)
        for reading in readings
        for record, origin in zip(reading.records, reading.origins, strict=True)
        if record.is_baseline and id(record) not in own
    ]
    beside = {record.run for record, _ in baselines if record.comparison_key() in keys}
    found += [(record, origin) for record, origin in baselines if record.run in beside]
    contradictions = Contradictions([record for record, _ in found], [origin for _, origin in found])
    said = {
        printable(f"{record.task.name}, {record.metric.name}, {method_label(record)}: {sentence}"): None
        for number, (record, _) in enumerate(found)
        if record.comparison_key() in keys and (sentence := contradictions.of(number))
    }
    return list(said)


def print_overview(run: Shown, others: Sequence[Record], contradicted: Sequence[str] = ()) -> None:
    """Print everything about one run but its documents.

    Args:
        others: where the records of its baseline may be found.
        contradicted: sentences on scores that do not follow.
    """
    out = console()
    _section(out, "what ran", what_ran(run))
    print_summary(run.records, others)
    if contradicted:
        _section(out, "does not follow from samples, tasks or counts", [("✗", said) for said in contradicted])
    out.print(_stages(run.records))
    artefacts = list(artefacts_of(run.folder))
    if artefacts:
        _section(out, "what the method left", artefacts[:MOST_FILES] + _rest(artefacts, MOST_FILES))
    report = list(report_lines(run.records[0].report))
    if report:
        _section(out, "its report", report[:MOST_NUMBERS] + _rest(report, MOST_NUMBERS))


def what_ran(run: Shown) -> list[tuple[str, Any]]:
    """Return what ran, as names and values: run, plugin, method, given options, model, seeds, versions, command."""
    record, notes = run.records[0], run.notes
    if record.foreign is not None:
        return foreign_runs.what_ran(run.name, record)
    model, settings = record.model, record.settings
    lines: list[tuple[str, Any]] = [("run", run.name)]
    if notes:
        ended = f", ended {notes.get('ended')}" if notes.get("ended") else ""
        lines.append(("status", f"{run.status}, started {notes.get('started')}{ended}"))
    if record.plugin.name:
        lines.append(("plugin", f"{record.plugin.name} ({record.plugin.distribution} {record.plugin.version})"))
    lines.append(("method", method_label(record)))
    given = claims.flags(record.command)
    named = claims.pairs(given.get("method_args", ""))
    lines += [(f"  {name}", value) for name, value in record.method.options.items() if name in named]
    rest = len(record.method.options) - sum(name in named for name in record.method.options)
    lines += [("", f"and {rest} options as by default")] if rest else []
    size = "no weights" if model.parameters is None else f"{model.parameters:,} parameters"
    kind = model.dtype if model.quantization == "none" else f"{model.quantization} ({model.dtype})"
    bits = "" if model.bits_per_weight is None else f", {model.bits_per_weight:g} bits per weight measured"
    lines.append(("model", f"{model.name}, {size}, {kind}{bits}, digest {model.digest[:12]}"))
    if model.weights_changed is not None:
        lines.append(("weights changed", f"{model.weights_changed:,}"))
    unusual = settings.model_dump(exclude={"num_fewshot"}, exclude_defaults=True)
    lines += [(name.replace("_", " "), value) for name, value in unusual.items()]
    made = {task.task.name: task.generation for task in run.records if task.generation and not task.task.group}
    lines += [(f"text of {name}", _pairs(values)) for name, values in made.items()]
    lines += [("note", note) for note in dict.fromkeys(note for each in run.records for note in each.notes)]
    lines.append(("seeds", ", ".join(f"{name} {seed}" for name, seed in record.seeds.model_dump().items())))
    place = record.environment
    versions = [f"torch {place.torch}", f"transformers {place.transformers}", f"lm_eval {place.lm_eval}", place.device]
    lines.append(("with", ", ".join([*([place.engine] if place.engine else []), *versions])))
    return [*lines, ("command", record.command)]


def _empty(counts: CountsPart) -> int | str | None:
    """Return how many answers are empty, and how many of them because the model was still thinking."""
    cut = f"{counts.empty_answers:,} ({counts.cut_in_thinking:,} still thinking)" if counts.cut_in_thinking else None
    return cut or counts.empty_answers


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())


def stage_rows(records: Sequence[Record]) -> list[list[str]]:
    """Return what each stage took, and what was counted in it: the cells in the order of ``STAGE_COLUMNS``."""
    cost, rows = records[0].cost, []
    if not records[0].is_baseline and records[0].foreign is None:
        how = " (reused)" if cost.reused else ""
        trained = "" if cost.tokens_trained is None else f"{cost.tokens_trained:,}"
        rows.append([f"apply {records[0].method.name}{how}", f"{cost.apply_seconds:.1f}", _megabytes(cost.apply_peak_bytes),
                     *[""] * 6, trained])  # fmt: skip
    for task in {record.task.name: record for record in records if not record.task.group}.values():
        counts, scoring = task.counts, task.cost.scoring or {}
        pushed = scoring.get("pushed_tokens")
        counted = (
            counts.requests, counts.truncated_requests, counts.not_finite, _empty(counts), counts.distinct_answers,
        )  # fmt: skip
        rows.append([
            task.task.name, f"{task.cost.evaluate_seconds:.1f}", _megabytes(task.cost.evaluate_peak_bytes), str(counts.docs),
            *("" if number is None else number if isinstance(number, str) else f"{number:,}" for number in counted),
            f"{pushed:,}" if isinstance(pushed, int) else "",
        ])  # fmt: skip
    return rows


def _stages(records: Sequence[Record]) -> Table:
    table = _table(*STAGE_COLUMNS)
    for cells in stage_rows(records):
        _add(table, *cells)
    return table


def artefacts_of(folder: Path | None) -> Iterator[tuple[str, str]]:
    """Yield the method's files with their sizes; nothing of them is read."""
    root = folder / ARTEFACTS if folder is not None else None
    for path in sorted(root.rglob("*")) if root is not None and root.is_dir() else ():
        if path.is_file() and not path.name.startswith("."):
            yield path.relative_to(root or path).as_posix(), f"{path.stat().st_size:,} bytes"


def report_lines(report: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a report says, what is nested named by its path."""
    if isinstance(report, dict):
        for key, value in report.items():
            yield from report_lines(value, f"{name}.{key}" if name else str(key))
    elif isinstance(report, list) and len(str(report)) > MOST_CHARACTERS:
        yield name, f"a list of {len(report)}"
    else:
        yield name, report


def _rest(lines: Sequence[Any], most: int) -> list[tuple[str, Any]]:
    return [("", f"and {len(lines) - most} more")] if len(lines) > most else []


def _section(out: Console, title: str, lines: Sequence[tuple[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in lines:
        grid.add_row(Text(printable(name), style="dim"), Text(printable("none" if value is None else value)))
    out.print(Text(title, style="bold"))
    out.print(grid)
    out.print()


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 or column in {"method", "model", "status"} else "right")
    return table


def _add(table: Table, *cells: Any) -> None:
    from rich.text import Text

    table.add_row(*(Text(printable(cell)) for cell in cells))


def _megabytes(peak_bytes: int | None) -> str:
    return "" if peak_bytes is None else f"{peak_bytes / 1e6:,.0f}"
