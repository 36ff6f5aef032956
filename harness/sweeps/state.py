"""What is known of a sweep's cells on disk, below the folder of their records: which are done, under way, failed, waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from harness import own_code
from harness.errors import HarnessError
from harness.names import printable
from harness.plain_files import read_json_object
from harness.removal import STOP, refuse_links, remove
from harness.run.environment import now
from harness.sweeps import claims
from harness.sweeps.cell import Cell, Sweep
from harness.sweeps.claims import Attempt, Claim, Observer, attempts_in, write_json

FOLDER = ".sweep"
STOP_FILE = "stop.json"
SWEEP_FILE = "sweep.json"
# A cell that fails so often has failed; one whose worker vanished so often, too: it may be what ends them.
MOST_FAILURES, MOST_LOST = 3, 8
Status = Literal["done", "running", "waiting", "failed"]


@dataclass(frozen=True)
class CellState:
    """Where a cell stands.

    Attributes:
        why: a sentence on what is not plain: what it waits for, or what its last failure was.
        last: the last attempt, None where there was none.
        failures: since it was retried, if it was.
    """

    status: Status
    why: str = ""
    last: Attempt | None = None
    failures: int = 0
    lost: int = 0
    attempts: int = 0


class State:
    """The state of a sweep.

    Args:
        identify: returns what decides a cell's result, as far as it is cheap to know: where it is another than when the
            cell was done, the cell waits again.
    """

    def __init__(self, sweep: Sweep, identify: Callable[[Cell], str] | None = None) -> None:
        self.output, self.folder = sweep.output, sweep.output / FOLDER
        self._identify = identify or _identify(sweep)
        self.observer = Observer()
        refuse_links(self.folder, self.folder / "cells")

    def cell_folder(self, cell: Cell) -> Path:
        """Return the folder of a cell's attempts."""
        return self.folder / "cells" / cell.key

    def of(self, cell: Cell) -> CellState:
        """Return where a cell stands; an attempt whose owner is gone counts as lost, though nobody has written it down."""
        folder = self.cell_folder(cell)
        attempts = attempts_in(folder)
        if not attempts:
            return CellState("waiting")
        last, counted = attempts[-1], [one for one in attempts if not one.is_forgiven]
        failures = [one for one in counted if one.status == "failed"]
        gone = last.end is None and self.observer.is_gone(folder, last)
        lost = [one for one in counted if one.status == "lost" or (one.end is None and (one is not last or gone))]
        told: dict[str, Any] = {"last": last, "failures": len(failures), "lost": len(lost), "attempts": len(attempts)}
        done = next((one for one in reversed(attempts) if one.status == "done"), None)
        outdated = "" if done is None else self._outdated(cell, done)
        if done is not None and not outdated:
            return CellState("done", **told)
        if last.end is None and not gone:
            return CellState("running", **told)
        if len(failures) >= MOST_FAILURES:
            return CellState("failed", _error(failures[-1]), **told)
        if len(lost) >= MOST_LOST:
            return CellState("failed", f"its worker vanished {len(lost)} times, and it may be the reason", **told)
        return CellState("waiting", outdated or _why_waiting(last), **told)

    def claim(self, cell: Cell, worker: str, **callbacks: Any) -> Claim | None:
        """Claim a cell that waits; None where it does not, or another worker was first.

        Raises:
            Failed: the disk refuses.
        """
        state = self.of(cell)
        if state.status != "waiting":
            return None
        return claims.claim(self.cell_folder(cell), state.attempts + 1, worker, **callbacks)

    def done(self, cell: Cell, records: Sequence[Path]) -> dict[str, Any]:
        """Return what the end of a cell that is done tells: its records' files, and what decided them."""
        return {
            "records": [path.relative_to(self.output).as_posix() for path in records],
            "identity": self._identify(cell),
        }

    def retry(self, cells: Sequence[Cell]) -> list[Cell]:
        """Let cells that failed be tried again, and return them.

        Raises:
            Failed: the disk refuses.
        """
        failed = [cell for cell in cells if self.of(cell).status == "failed"]
        for cell in failed:
            claims.forgive(self.cell_folder(cell))
        return failed

    def note_of(self, cell: Cell, attempt: Attempt) -> Mapping[str, Any]:
        """Return what the owner of an attempt has told of it so far."""
        return claims.note_of(self.cell_folder(cell), attempt.number)

    def log_of(self, cell: Cell, attempt: Attempt) -> Path:
        """Return the file with what an attempt printed."""
        return self.cell_folder(cell) / f"log-{attempt.number}.txt"

    def begin(self, *, is_renewed: bool = False) -> None:
        """Note which harness makes the records; of a sweep under way refuse another one.

        Args:
            is_renewed: take over a sweep of another version where none of its cells is under way.

        Raises:
            HarnessError: the sweep runs with another version of the harness.
            Failed: the disk refuses.
        """
        here = {"harness": version("token-harness"), "code": own_code.code_of()[:12]}
        there = read_json_object(self.folder / SWEEP_FILE)
        if here == {name: there.get(name) for name in here}:
            return
        if there and not (is_renewed and not any(self.live_attempts())):
            raise HarnessError(
                f"this sweep runs with token-harness {_version(there)}, and this worker is {_version(here)}: its records would "
                "be another's; install that version here, or end the sweep (`harness sweep cancel`) and run it again with this "
                "one"
            )
        write_json(self.folder / SWEEP_FILE, {**here, "since": now()})

    def live_attempts(self) -> Iterator[tuple[str, Attempt]]:
        """Yield the attempts that are under way, by the keys of their cells, whichever plan they are of."""
        cells = self.folder / "cells"
        for folder in sorted(cells.iterdir()) if cells.is_dir() else ():
            attempts = attempts_in(folder)
            if attempts and attempts[-1].end is None and not self.observer.is_gone(folder, attempts[-1]):
                yield folder.name, attempts[-1]

    def ask_to_stop(self) -> None:
        """Have every worker of this sweep end in order, and claim nothing more, until it is run again."""
        write_json(self.folder / STOP_FILE, {"since": now()})

    def forget_stop(self) -> None:
        """Let workers claim again."""
        with suppress(OSError):
            remove(self.folder / STOP_FILE, below=self.folder, named=STOP)

    @property
    def is_stopped(self) -> bool:
        """Whether workers are to end."""
        return (self.folder / STOP_FILE).exists()

    def _outdated(self, cell: Cell, done: Attempt) -> str:
        """Return why what was done does not count any more; empty where it does."""
        end = done.end or {}
        missing = [name for name in end.get("records", ()) if not (self.output / str(name)).is_file()]
        is_part = cell.run.shard is not None  # its answers are kept; the records come with the last shard
        if missing or not (end.get("records") or is_part):
            return "its records are gone" if missing else "it left no records"
        return "" if end.get("identity") == self._identify(cell) else "it was done with other code, files or model"


def _identify(sweep: Sweep) -> Callable[[Cell], str]:
    from harness.sweeps.identity import identity

    return lambda cell: identity(cell, sweep.folder)


def _version(known: Mapping[str, Any]) -> str:
    return printable(f"{known.get('harness')} (code {known.get('code')})")


def _error(attempt: Attempt) -> str:
    return printable((attempt.end or {}).get("error") or "it failed without a word")


def _why_waiting(last: Attempt) -> str:
    if last.status == "failed":
        return f"failed: {_error(last)}"
    return {
        "stopped": "was stopped; goes on",
        "lost": "its worker vanished; goes on",
        None: "its worker vanished; goes on",
    }.get(last.status, "")
