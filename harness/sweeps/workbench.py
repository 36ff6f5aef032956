"""Where a worker does one cell after the other, in its own process: the model stays from one to the next."""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import HarnessError, Terminated, chain
from harness.names import cause_of
from harness.redaction import redact
from harness.sweeps.cell import Cell
from harness.sweeps.children import appending

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run.preparing import Prepared

# What a disk says when it is this machine's fault and not the cell's: elsewhere it may be done.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


@dataclass(frozen=True)
class Outcome:
    """How a cell went.

    Attributes:
        error: one sentence, empty where it is done.
        files: the files of its records, absolute.
        seconds: from its first check to its last record.
        saved_seconds: what was not spent on loading a model that was there.
        is_machine: it failed for a reason of this machine, such as a full disk.
    """

    status: Literal["done", "failed", "stopped"]
    error: str = ""
    files: tuple[Path, ...] = ()
    seconds: float = 0.0
    saved_seconds: float = 0.0
    is_machine: bool = False


@dataclass
class Workbench:
    """Does cells.

    Args:
        told: called with the run of each cell whose checks have passed.
    """

    told: Callable[[Prepared], object] = bool
    _bench: Any = field(default=None, init=False)

    def do(self, cell: Cell, log: Path) -> Outcome:
        """Evaluate a cell as ``harness eval`` would, all that is printed going to its log.

        Its paths are relative to the folder this process is in.
        """
        started, saved = time.monotonic(), self._saved_seconds
        with _printed_to(log):
            print(f"$ {cell.run.command()}", file=sys.stderr, flush=True)
            outcome = self._done(cell, log)
            if outcome.error:
                print(f"harness: {outcome.error}", file=sys.stderr)
        return replace(outcome, seconds=time.monotonic() - started, saved_seconds=self._saved_seconds - saved)

    @property
    def _saved_seconds(self) -> float:
        return 0.0 if self._bench is None else float(self._bench.saved_seconds)

    def _done(self, cell: Cell, log: Path) -> Outcome:
        if cell.processes > 1:
            from harness.sweeps.launching import run_launched

            status = run_launched(cell, log)
            if status:
                return Outcome("failed", f"the processes ended with status {status}")
        from harness.run.evaluating import evaluate
        from harness.run.summary import print_beside
        from harness.run.untouched import Bench

        self._bench = self._bench or Bench()
        try:
            records = evaluate(cell.run, bench=self._bench, told=self.told)
            print_beside(records, cell.run.output_path)
            return Outcome("done", files=files_of(records, cell.run.output_path))
        except KeyboardInterrupt as stop:
            self._bench = None
            name = f"signal {stop.signum}" if isinstance(stop, Terminated) else "Ctrl-C"
            return Outcome("stopped", f"stopped by {name}; what was finished is kept, and it goes on from there")
        except HarnessError as error:
            return Outcome("failed", redact(str(error)), is_machine=_is_machine(error))
        except Exception as error:  # a fault of ours, or a library's, in one cell is none of the next
            traceback.print_exc()
            self._bench = None
            return Outcome("failed", redact(cause_of(error)), is_machine=_is_machine(error))


def files_of(records: list[Record], output: Path) -> tuple[Path, ...]:
    """Return the files that hold the records of a run."""
    from harness.run.folder import file_of

    found = dict.fromkeys(output / str(record.run) / file_of(record.task.name, record) for record in records)
    return tuple(path.absolute() for path in found)


def _is_machine(error: BaseException) -> bool:
    return any(isinstance(one, OSError) and one.errno in FULL for one in chain(error))


@contextmanager
def _printed_to(log: Path) -> Iterator[None]:
    """Have all that this process prints go to a file within the block, whichever library prints it."""
    file = appending(log)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in enumerate(kept, start=1):
            os.dup2(old, number)
            os.close(old)
        os.close(file)
