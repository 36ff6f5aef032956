"""A run before it is one, on the terminal: what will be asked, what is there already, what it will take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.names import counted, printable
from harness.showing.runs import console

if TYPE_CHECKING:
    from harness.run.estimating import Estimate
    from harness.run.foreseeing import Ahead, TaskAhead

WIDTH_OF_NAMES = 10


def print_ahead(ahead: Ahead) -> None:
    """Print what a run would do, to standard output."""
    from rich.text import Text

    out = console()
    if ahead.tasks:
        out.print(_table(ahead.tasks))
    for line in _lines(ahead):
        name, _, text = line.partition(": ")
        out.print(Text(f"{name:<{WIDTH_OF_NAMES}} ", style="bold"), end="")
        out.print(Text(text, no_wrap=False), soft_wrap=True)


def _table(tasks: Sequence[TaskAhead]) -> Any:
    """Return the table of tasks, a column where one of them has something in it, and their sum."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    columns = {
        "docs": [f"{task.documents:,}" for task in tasks],
        "shots": [str(task.shots) if task.shots else "" for task in tasks],
        "requests": [", ".join(f"{count:,} {kind}" for kind, count in task.requests.items()) for task in tasks],
        "tokens": [_number(task.tokens) for task in tasks],
        "shared": [_number(task.distinct_tokens) for task in tasks],
        "new tokens": [_number(task.new_tokens) for task in tasks],
        "cut": [_number(task.truncated) for task in tasks],
        "kept": [_number(task.kept) for task in tasks],
        "seconds": ["?" if task.seconds is None else f"{task.seconds.value:,.1f}" for task in tasks],
    }
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_footer=len(tasks) > 1)
    table.add_column("task", footer="all", overflow="fold")
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    for name in shown:
        justify: Any = "left" if name == "requests" else "right"
        table.add_column(name, footer=_sum_of(name, tasks), justify=justify, overflow="fold")
    for place, task in enumerate(tasks):
        cells = [printable(task.name), *(cells[place] for cells in shown.values())]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _sum_of(column: str, tasks: Sequence[TaskAhead]) -> str:
    sums = {
        "docs": sum(task.documents for task in tasks),
        "tokens": sum(task.tokens for task in tasks),
        "shared": sum(task.distinct_tokens for task in tasks),
        "new tokens": sum(task.new_tokens for task in tasks),
        "cut": sum(task.truncated for task in tasks),
        "kept": sum(task.kept for task in tasks),
    }
    if column == "requests":
        return f"{sum(sum(task.requests.values()) for task in tasks):,}"
    if column == "seconds":
        known = [task.seconds.value for task in tasks if task.seconds is not None]
        return "?" if not known else ("" if len(known) == len(tasks) else "≥ ") + f"{sum(known):,.1f}"
    return f"{sums[column]:,}" if column in sums else ""


def _lines(ahead: Ahead) -> Iterator[str]:
    """Yield what is said below the table: a word, a colon and the rest."""
    if any(task.tokens for task in ahead.tasks):
        said = f"by the tokenizer of {printable(ahead.model['name'])}, each request by itself; shared: common beginnings once"
        yield f"tokens: {said}" + ("; new: at most" if any(task.new_tokens for task in ahead.tasks) else "")
        if ahead.method != "baseline":
            yield f"tokens: {printable(ahead.method)} may bring another tokenizer, and then other numbers"
    drawn = [printable(task.name) for task in ahead.tasks if task.is_drawn]
    if drawn:
        yield f"drawn: {', '.join(drawn)}: answers are drawn at random, so another seed gives others"
    yield f"model: {_model(ahead.model)}"
    yield from ahead.earlier
    yield from (f"note: {printable(note)}" for note in ahead.notes)
    yield from _times(ahead)
    peak = ahead.peak_bytes
    yield "memory: " + (
        "not known: nothing of this model was recorded here on such a device"
        if peak is None
        else f"{_size(peak.value)} at its peak so far, {peak.basis}"
    )
    yield f"checked: in {ahead.checked_seconds:.1f} s; requests made and counted in {ahead.counted_seconds:.1f} s"


def _times(ahead: Ahead) -> Iterator[str]:
    if ahead.method != "baseline":
        yield f"apply: {_time(ahead.apply_seconds, 'it was not applied with these options here')}"
    known = [task for task in ahead.tasks if task.seconds is not None]
    unknown = [printable(task.name) for task in ahead.tasks if task.seconds is None]
    twice = "; once more for the untouched model" if ahead.is_asked_twice else ""
    if known:
        total = sum(task.seconds.value for task in known if task.seconds)
        bases = list(dict.fromkeys(task.seconds.basis for task in known if task.seconds))
        more = f" and {len(bases) - 1} more like that" if len(bases) > 1 else ""
        yield f"asking: about {_minutes(total)}{twice}, loading left out; {bases[0]}{more}"
    if unknown:
        of = f" of {', '.join(unknown)}" if known else ""
        yield f"asking: time not known{of}{twice}: no earlier run of this model in the folder tells"


def _time(estimate: Estimate | None, otherwise: str) -> str:
    if estimate is None:
        return f"time not known: {otherwise}"
    return (
        f"about {_minutes(estimate.value)}: {estimate.basis}" if estimate.value else f"nothing to do: {estimate.basis}"
    )


def _model(model: dict[str, Any] | Any) -> str:
    size = "no weights" if model["parameters"] is None else f"{model['parameters']:,} parameters"
    kind = model["dtype"] if model["quantization"] == "none" else f"{model['quantization']} ({model['dtype']})"
    named = ", ".join(
        [
            printable(model["name"]),
            *([f"revision {printable(model['revision'])}"] if model["revision"] else []),
            *([f"adapter {printable(model['adapter'])}"] if model["adapter"] else []),
        ]
    )
    files = "" if model["bytes_of_files"] is None else f", {_size(model['bytes_of_files'])} of files"
    return f"{named}, {size}, {kind}, on {model['device']}{files}"


def failures(ahead: Ahead) -> str:
    """Return what cannot be asked, as ``harness eval`` would say it."""
    return "; ".join(dict.fromkeys(str(failure) for failure in ahead.failures))


def _minutes(seconds: float) -> str:
    if seconds < 120:
        return counted(round(seconds), "second")
    return counted(round(seconds / 60), "minute") if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def _number(count: int) -> str:
    return f"{count:,}" if count else ""
