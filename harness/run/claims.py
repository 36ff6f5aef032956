"""One process at a time makes a run's records: who comes second waits before any weights are loaded, and learns of it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.folders import write_atomic
from harness.names import printable
from harness.progress import is_first_process, process_count, say
from harness.removal import CLAIM, refuse_links, remove
from harness.run.identity import deciding

if TYPE_CHECKING:
    from harness.run.preparing import Prepared


def claim_of(prepared: Prepared) -> str:
    """Return what names a run before its weights are loaded: one claim is of one run, whose tasks may be others."""
    return deciding(prepared, {}).digest("claim")[:16]


@contextmanager
def claimed(prepared: Prepared) -> Iterator[bool]:
    """Keep other processes from the same run within the block.

    Yields:
        Whether another process had it when this one came, so that its records may be there now. Of several processes of
        one command the first one waits for all, and never learns of records: the others ask whatever it finds.
    """
    if not is_first_process():
        yield False
        return
    from filelock import FileLock, Timeout

    name = f".claim-{claim_of(prepared)}"
    lock, owner = FileLock(prepared.output / f"{name}.lock"), prepared.output / f"{name}.json"
    refuse_links(Path(lock.lock_file), owner)
    waited = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waited = True
        what = printable(prepared.method.name)
        say(f"this run of {what} is active already ({_told(owner)}); waiting for it to end")
        lock.acquire()
    try:
        _note(owner)
        yield waited and process_count() == 1
    finally:
        with suppress(OSError):
            remove(owner, below=prepared.output, named=CLAIM)
        lock.release()


def _note(owner: Path) -> None:
    """Write down who holds a claim, for the process that waits for it."""
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with suppress(OSError):
        write_atomic(owner, json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n")


def _told(owner: Path) -> str:
    """Return who holds a claim, as far as it said so."""
    try:
        said: Any = json.loads(owner.read_text(encoding="utf-8"))
        here = "" if said["host"] == socket.gethostname() else f" on {printable(said['host'])}"
        return f"process {int(said['process'])}{here} since {printable(said['since'])}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "in another process"
