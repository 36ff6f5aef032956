"""Where a sweep stands, on the terminal: a live table there, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from harness.names import counted, printable
from harness.plain_files import read_plain
from harness.redaction import redact
from harness.showing.runs import console

if TYPE_CHECKING:
    from harness.sweeps.cell import Cell, Sweep
    from harness.sweeps.state import CellState, State

ORDER = ("failed", "running", "waiting", "done")
# Of longer ones, what is done and what waits is counted.
MOST_ROWS = 40
MOST_CHARACTERS = 160


class Progress:
    """Tells of a sweep while it runs."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._live: Any = None

    def __call__(self, sweep: Sweep, states: Mapping[str, CellState]) -> None:
        """Show the states of the cells as they are now."""
        if sys.stderr.isatty():
            self._draw(sweep, states)
            return
        for cell in sweep.cells:
            one = states[cell.key]
            before = self._known.get(cell.key)
            self._known[cell.key] = one.status
            if before is not None and before != one.status and one.status != "waiting":
                print(f"{_title(cell)}: {_told(one)} ({_counts(states)})", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal to others."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, sweep: Sweep, states: Mapping[str, CellState]) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            out = Console(stderr=True, markup=False, highlight=False, emoji=False)
            self._live = Live(console=out, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(_table(sweep, states, MOST_ROWS // 2), refresh=True)


def print_status(sweep: Sweep, state: State, states: Mapping[str, CellState], *, as_json: bool = False) -> None:
    """Print where each cell stands, what failed with the last line of its log, and what to do next."""
    if as_json:
        cells = [as_values(cell, state, states[cell.key]) for cell in sweep.cells]
        print(
            json.dumps(
                {"output": str(sweep.output), "cells": cells, "counts": counts(states)}, indent=1, ensure_ascii=False
            )
        )
        return
    console().print(_table(sweep, states, MOST_ROWS))
    for cell in sweep.cells:
        one = states[cell.key]
        if one.status == "failed" and one.last is not None:
            line = last_line(state, cell, one)
            print(f"failed: {_title(cell)}: {printable(one.why)}")
            if line and line not in one.why:
                print(f"  last line of its log: {line}")


def counts(states: Mapping[str, CellState]) -> dict[str, int]:
    """Return how many cells there are of each status."""
    number = Counter(one.status for one in states.values())
    return {name: number[name] for name in ORDER}  # type: ignore[index]


def as_values(cell: Cell, state: State, one: CellState) -> dict[str, Any]:
    """Return where a cell stands as JSON values."""
    last = one.last
    end, owner = (last.end or {}, last.owner) if last is not None else ({}, {})
    return {
        "key": cell.key, "axes": dict(cell.axes), "command": cell.run.command(), "status": one.status, "why": one.why,
        "attempts": one.attempts, "failures": one.failures, "lost": one.lost, "worker": owner.get("worker"),
        "host": owner.get("host"), "since": owner.get("since"), "ended": end.get("ended"), "seconds": end.get("seconds"),
        "saved_seconds": end.get("saved_seconds"), "records": end.get("records", []),
        "last_line": last_line(state, cell, one),
        "log": None if last is None else str(state.log_of(cell, last).relative_to(state.output)),
    }  # fmt: skip


def last_line(state: State, cell: Cell, one: CellState) -> str:
    """Return the last line that a cell printed; empty where it printed none."""
    if one.last is None:
        return ""
    with suppress(OSError):
        lines = read_plain(state.log_of(cell, one.last)).decode("utf-8", "replace").splitlines()
        told = [line.strip() for line in lines if line.strip()]
        return printable(redact(told[-1]))[:MOST_CHARACTERS] if told else ""
    return ""


def _table(sweep: Sweep, states: Mapping[str, CellState], most: int) -> Any:
    """Return the table of cells, what needs a look first where there are many."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    cells: Sequence[Cell] = sweep.cells
    if len(cells) > most:
        cells = sorted(cells, key=lambda cell: ORDER.index(states[cell.key].status))[:most]
    axes = list(dict.fromkeys(name for cell in sweep.cells for name in cell.axes))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title=_counts(states), title_justify="left")
    for name in [*axes, "status", "worker", "seconds"]:
        table.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
    for cell in cells:
        one = states[cell.key]
        seconds = None if one.last is None or one.last.end is None else one.last.end.get("seconds")
        words = [printable(cell.axes.get(name, "")) for name in axes]
        worker = "" if one.last is None else printable(one.last.owner.get("worker") or "")
        told = [_told(one, is_short=True), worker, "" if seconds is None else f"{seconds:.1f}"]
        table.add_row(*(Text(word) for word in [*words, *told]))
    if len(cells) < len(sweep.cells):
        table.caption = f"and {counted(len(sweep.cells) - len(cells), 'cell')} more (--json has all)"
        table.caption_justify = "left"
    return table


def _counts(states: Mapping[str, CellState]) -> str:
    found = {name: number for name, number in counts(states).items() if number}
    return f"{counted(len(states), 'cell')}: " + ", ".join(
        f"{number} {name}" for name, number in reversed(found.items())
    )


def _told(one: CellState, *, is_short: bool = False) -> str:
    if one.status == "waiting" and one.failures:
        return f"waiting (failed {one.failures} times)" if one.failures > 1 else "waiting (failed once)"
    if is_short or one.status == "done":
        seconds = (
            "" if is_short or one.last is None or not one.last.end else f" in {one.last.end.get('seconds', 0):.1f} s"
        )
        return one.status + seconds
    return f"{one.status}: {printable(one.why)}" if one.why else one.status


def _title(cell: Cell) -> str:
    return printable(cell.title)
