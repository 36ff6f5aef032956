"""Several runs on the terminal, told apart: what all share is said once, the rest fits the width that there is."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.names import printable
from harness.records.grouping import weights_label
from harness.records.labels import method_label, model_label, option_text, told_methods, untold_options
from harness.showing.runs import console

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.showing.runs import Shown

# A table takes rich half a minute for more than these.
MOST_IN_A_TABLE, MOST_SCORES = 500, 3
# Columns that may be broken into lines, down to so many characters, and those that are said once where all runs agree.
FOLDED = {"method": 14, "model": 16, "settings": 12, "scores": 18}
SHARED = ("model", "settings", "seed", "created", "status")
NUMBERS = {"seed", "seconds"}
BETWEEN, INDENT = 2, "    "


def print_runs(runs: Sequence[Shown], *, task: str | None = None) -> None:
    """Print the list of several runs; ``task`` is the one whose score is shown, None for the first of each run."""
    out = console()
    rows = _rows(runs, task)
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    shared = {name: rows[0][name] for name in names if name in SHARED and len({row[name] for row in rows}) == 1}
    names = [name for name in names if name not in shared]
    if shared:
        for line in textwrap.wrap("all: " + ", ".join(_said(name, value) for name, value in shared.items()), out.width):
            print(line)
    least = [FOLDED.get(name) or max(len(name), *(len(row[name]) for row in rows)) for name in names]
    if sum(least) + BETWEEN * len(least) > out.width or len(rows) > MOST_IN_A_TABLE:
        _print_blocks(rows, names, out.width)
    else:
        out.print(_table(rows, names))
    for sentence in untold_options([run.records[0] for run in runs]):
        print("\n".join(textwrap.wrap(f"{sentence}.", out.width)))


def _rows(runs: Sequence[Shown], task: str | None) -> list[dict[str, str]]:
    firsts = [run.records[0] for run in runs]
    has_weights = len({weights_label(first) for first in firsts}) > 1
    settings = _settings(firsts)
    return [
        {
            "run": printable(run.name),
            "method": method,
            "model": model_label(first) + (f", {weights_label(first)}" if has_weights else ""),
            "settings": said,
            "seed": "" if first.seeds.random is None else printable(first.seeds.random),
            "scores": _scores_in_short(run, task),
            "seconds": f"{run.seconds:.0f}",
            "created": printable(first.created[:10]),
            "status": printable(run.status),
        }
        for run, first, method, said in zip(runs, firsts, told_methods(firsts), settings, strict=True)
    ]


def _settings(records: Sequence[Record]) -> list[str]:
    """Return of each record the settings in which these differ, what the model was given (an adapter) left to its name."""
    told = [
        {name: value for name, value in record.settings.model_dump(mode="json").items() if name != "model_args"}
        | {name: value for name, value in record.settings.model_args.items() if name != "peft"}
        for record in records
    ]
    names = dict.fromkeys(name for settings in told for name in settings)
    differing = [name for name in names if len({option_text(settings.get(name)) for settings in told}) > 1]
    return [
        printable(", ".join(f"{name}={option_text(settings.get(name))}" for name in differing)) for settings in told
    ]


def _scores_in_short(run: Shown, task: str | None) -> str:
    """Return the first metric of each task, of a group that of the group alone; of many tasks the first ones."""
    firsts = [record for record in run.records if record.task.name == task][:1] if task else run.main_scores
    said = [
        f"{record.task.name} " + ("none" if record.value is None else f"{record.value:.3f}")
        for record in firsts[:MOST_SCORES]
    ]
    more = f" and {len(firsts) - MOST_SCORES} more" if len(firsts) > MOST_SCORES else ""
    return printable(", ".join(said) + more)


def _said(name: str, value: str) -> str:
    return f"{name} {value}" if name == "seed" else value


def _table(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, BETWEEN - 1, 0, 0), pad_edge=False, header_style="bold")
    for name in names:
        justify: Any = "right" if name in NUMBERS else "left"
        if name in FOLDED:
            table.add_column(name, justify=justify, overflow="fold", min_width=FOLDED[name])
        else:  # whole: --run asks for the name
            table.add_column(name, justify=justify, no_wrap=True, min_width=max(len(row[name]) for row in rows))
    for row in rows:
        table.add_row(*(Text(row[name]) for name in names))
    return table


def _print_blocks(rows: Sequence[Mapping[str, str]], names: Sequence[str], width: int) -> None:
    """Print each run in lines of its own: its name, then what is said of it."""
    for row in rows:
        print(row["run"])
        short = [name for name in names if name not in FOLDED and name != "run" and row[name]]
        lines = [f"{name}: {row[name]}" for name in names if name in FOLDED and row[name]]
        lines.append(", ".join(f"{row[name]} s" if name == "seconds" else _said(name, row[name]) for name in short))
        for line in filter(None, lines):
            for part in textwrap.wrap(line, width, initial_indent=INDENT, subsequent_indent=2 * INDENT):
                print(part)


def as_json(runs: Sequence[Shown]) -> list[dict[str, Any]]:
    """Return what tells runs apart, their scores and costs, as JSON values."""
    return [
        {
            "run": run.name,
            "folder": None if run.folder is None else str(run.folder),
            "status": run.status,
            "created": run.records[0].created,
            "model": model_label(run.records[0]),
            "weights": weights_label(run.records[0]),
            "method": method_label(run.records[0]),
            "options": run.records[0].method.options,
            "settings": run.records[0].settings.model_dump(mode="json"),
            "seed": run.records[0].seeds.random,
            "seconds": run.seconds,
            "scores": [
                {"task": r.task.name, "metric": r.metric.name, "filter": r.metric.filter, "value": r.value,
                 "stderr": r.stderr, "documents": r.counts.docs, "key": r.key()}
                for r in run.records
            ],
        }
        for run in runs
    ]  # fmt: skip
