"""A worker: claims the cells of a sweep and does them one after the other, until none is left."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import Failed
from harness.names import counted, printable
from harness.redaction import redact
from harness.sweeps.cell import Cell, Sweep
from harness.sweeps.children import outside
from harness.sweeps.claims import Claim
from harness.sweeps.live import Live
from harness.sweeps.state import CellState, State
from harness.sweeps.workbench import Outcome, Workbench

if TYPE_CHECKING:
    from harness.run.preparing import Prepared

# How often a worker that has nothing to claim looks again; the cells it waits for are done by others.
POLL_SECONDS = 1.0
# How long it stays while all that is left is done by others: should one of them vanish, it takes over.
LINGER_SECONDS = 150.0
# Where each of several workers of one job finds its number.
NUMBERS = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "SKYPILOT_NODE_RANK", "SLURM_PROCID")
STOPPED = 130


def forget_launch() -> None:
    """Take out of this process's environment what would make it one of several."""
    for name in os.environ.keys() - outside(os.environ).keys():
        del os.environ[name]


def number_of_this_worker() -> int:
    """Return which of several workers of one job this is, by what a cluster says; 0 where none does."""
    return next((int(value) for name in NUMBERS if (value := os.environ.get(name, "")).isdigit()), 0)


def name_of_this_worker() -> str:
    """Return what a worker is called that nobody named: by its job and number where there are such, else by its process."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID") or os.environ.get("JOB_NAME")
    if job or any(os.environ.get(name) for name in NUMBERS):
        return printable(f"{job or 'worker'}_{number_of_this_worker()}")
    return f"worker {os.getpid()}"


class Worker:
    """Does what of a sweep nobody else does.

    Args:
        read: returns the sweep as its file has it now.
        name: for people.
        linger: seconds that it stays while all that is left is done by others; None: until all is settled.
        parent: the process that started it, with which it ends; None where it goes on without.
    """

    def __init__(
        self, read: Callable[[], Sweep], *, name: str, linger: float | None = LINGER_SECONDS, parent: int | None = None
    ) -> None:
        self._live, self._name, self._linger, self._parent = Live(read), name, linger, parent
        self._claim: Claim | None = None
        self._bench = Workbench(told=self._note)
        self._last: Cell | None = None
        self._is_stopping = False
        self.saved_seconds = 0.0
        self.done = self.failed = 0

    @property
    def sweep(self) -> Sweep:
        """The sweep as it is now."""
        return self._live.sweep

    @property
    def state(self) -> State:
        """Its state."""
        return self._live.state

    def work(self) -> int:
        """Do cells until none is left, and return the exit status: 1 where one that this worker tried has failed.

        Raises:
            HarnessError: the sweep is of another version of the harness; the disk refuses.
        """
        self.state.begin()
        os.chdir(self.sweep.folder)
        waiting_since: float | None = None
        while not self.state.is_stopped and not self._is_orphan:
            changed = self._live.refresh()
            if changed:
                self._say(changed)
            states = self._live.states()
            cell = self._claimed(states)
            if cell is not None:
                waiting_since = None
                if not self._do(cell):
                    return STOPPED
                continue
            left = {one.status for one in states.values()} & {"waiting", "running"}
            if not left:
                break
            waiting_since = None if "waiting" in left else waiting_since or time.monotonic()
            if (
                self._linger is not None
                and waiting_since is not None
                and time.monotonic() - waiting_since > self._linger
            ):
                self._say("all that is left is done by others")
                break
            time.sleep(POLL_SECONDS)
        saved = f"; {self.saved_seconds:.1f} s of loading models saved" if self.saved_seconds >= 0.1 else ""
        self._say(f"{counted(self.done, 'cell')} done, {self.failed} failed{saved}")
        return 1 if self.failed else 0

    def _claimed(self, states: dict[str, CellState]) -> Cell | None:
        """Claim the cell that suits best, and return it; None where there is none to claim now."""
        trained = {
            cell.work
            for cell in self.sweep.cells
            if cell.work and states[cell.key].status == "running" and not self._is_trained(cell, states[cell.key])
        }
        free = [cell for cell in self.sweep.cells if states[cell.key].status == "waiting" and cell.work not in trained]
        for cell in sorted(self._begun_elsewhere(free), key=lambda one: self._distance(one, states[one.key])):
            claim = self.state.claim(cell, self._name, on_lost=self._stop, on_beat=self._look)
            if claim is not None:
                self._claim = claim
                return cell
        return None

    def _begun_elsewhere(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells so that workers of one job do not all want the same first."""
        start = number_of_this_worker() % len(cells) if cells and self._last is None else 0
        return [*cells[start:], *cells[:start]]

    def _distance(self, cell: Cell, state: CellState) -> int:
        """Return how much of what is at hand a cell does not need; one that failed comes last."""
        last = self._last
        if state.failures:
            return 4 + state.failures
        if last is None or cell.is_baseline:
            return 0 if last is None or cell.base == last.base else 2
        if cell.work is not None and cell.work == last.work:
            return 0
        return 1 if cell.base == last.base else 3

    def _is_trained(self, cell: Cell, state: CellState) -> bool:
        """Return whether the work of a method that a cell under way needs is done, so that others may take it."""
        if state.last is None:
            return False
        note = self.state.note_of(cell, state.last)
        return bool(note.get("work")) and Path(str(note["work"])).is_file()

    def _do(self, cell: Cell) -> bool:
        """Do the claimed cell, and return whether to go on."""
        claim = self._claim
        assert claim is not None
        self._say(f"{printable(cell.title)}: {printable(redact(cell.run.command()))}")
        try:
            outcome = self._bench.do(cell, claim.log)
        except KeyboardInterrupt:
            outcome = Outcome("stopped", "stopped")
        self._end(cell, claim, outcome)
        self._claim, self._last, self._is_stopping = None, cell, False
        if outcome.is_machine:
            raise Failed(f"this worker ends, and leaves its cell to others: {outcome.error}")
        return outcome.status != "stopped" or (claim.is_lost and not self.state.is_stopped)

    def _end(self, cell: Cell, claim: Claim, outcome: Outcome) -> None:
        told = {"error": outcome.error} if outcome.error else {}
        seconds = {"seconds": round(outcome.seconds, 3), "saved_seconds": round(outcome.saved_seconds, 3)}
        status = "stopped" if outcome.is_machine else outcome.status
        done = self.state.done(cell, outcome.files) if status == "done" else {}
        claim.end(status, **told, **seconds, **done)
        self.saved_seconds += outcome.saved_seconds
        self.done += status == "done"
        self.failed += status == "failed"
        word = {"done": "done", "failed": f"failed: {outcome.error}", "stopped": outcome.error}[outcome.status]
        self._say(f"{printable(cell.title)}: {printable(word)}, {outcome.seconds:.1f} s")

    def _note(self, prepared: Prepared) -> None:
        """Tell others where the work of the method will be, so that they know when it is done."""
        from harness.models.kinds import kind_of
        from harness.run.applying import FINISHED, work_folder

        if self._claim is not None and prepared.method.name != "baseline":
            device = kind_of(prepared.run.model).device(prepared.run.device)
            self._claim.note(work=str(work_folder(prepared, device=device) / FINISHED))

    def _look(self) -> None:
        """End what is under way where this worker is to stop, or who started it is gone; called with every beat."""
        if self._is_orphan or self.state.is_stopped:
            self._stop()

    @property
    def _is_orphan(self) -> bool:
        return self._parent is not None and os.getppid() != self._parent

    def _stop(self) -> None:
        """Interrupt what is under way, once: a second signal would interrupt the keeping of what is finished."""
        if not self._is_stopping:
            self._is_stopping = True
            os.kill(os.getpid(), signal.SIGTERM)

    def _say(self, message: str) -> None:
        print(f"{self._name}: {redact(message)}", file=sys.stderr, flush=True)
