"""A sweep whose file may be edited while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.errors import HarnessError
from harness.names import counted
from harness.sweeps.cell import Sweep
from harness.sweeps.state import CellState, State


class Live:
    """The sweep as its file last read well, and its state.

    Args:
        read: returns the sweep as its file has it now.

    Raises:
        HarnessError: the file does not read.
    """

    def __init__(self, read: Callable[[], Sweep]) -> None:
        self._read = read
        self.sweep = read()
        self.state = State(self.sweep)
        self._stamp = _stamp(self.sweep.file)

    def states(self) -> dict[str, CellState]:
        """Return where each cell stands now, by key."""
        return {cell.key: self.state.of(cell) for cell in self.sweep.cells}

    def refresh(self) -> str:
        """Take in what was changed in the file, and return a sentence on it; empty where nothing was.

        Cells that are under way go on, whatever the file says now.
        """
        stamp = _stamp(self.sweep.file)
        if stamp == self._stamp:
            return ""
        self._stamp = stamp
        try:
            sweep = self._read()
        except HarnessError as error:
            return f"{error}; going on with the sweep as it was"
        if sweep.output != self.sweep.output:
            return "its output_path is another one now; going on with the sweep as it was"
        new = sum(cell.key not in self.sweep.by_key for cell in sweep.cells)
        left_out = sum(cell.key not in sweep.by_key for cell in self.sweep.cells)
        self.sweep, self.state = sweep, State(sweep)
        return f"the sweep's file changed: {counted(new, 'cell')} added, {left_out} left out" if new or left_out else ""


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
