"""One process at a time makes a run's records: who comes second waits before any weights are loaded, and learns of it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import Failed, HarnessError
from harness.folders import cache_folder, check_writable, write_atomic
from harness.names import printable
from harness.progress import is_first_process, process_count, say
from harness.records.run_notes import notes_of
from harness.removal import CLAIM, refuse_links, remove
from harness.run.environment import now
from harness.run.identity import deciding

if TYPE_CHECKING:
    from filelock import FileLock

    from harness.run.preparing import Prepared

FOLDER = "claims"
# How often, and how many seconds apart, one that waits looks for the note of a process that has the claim.
LOOKS, MOMENT = 20, 0.05


def claim_of(prepared: Prepared) -> str:
    """Return what names a run before its weights are loaded: one claim is of one run, whose tasks may be others."""
    return deciding(prepared, {}).digest("claim")[:16]


def folders_of(prepared: Prepared) -> Iterator[Path]:
    """Yield the folders of runs in the output folder that were claimed as this one is, whether they have ended or not."""
    if not prepared.output.is_dir():
        return
    claim = claim_of(prepared)
    for folder in sorted(prepared.output.iterdir()):
        if folder.is_dir() and notes_of(folder).get("claim") == claim:
            yield folder


@contextmanager
def claimed(prepared: Prepared) -> Iterator[bool]:
    """Keep other processes from the same run into the same folder within the block; its lock is in the cache.

    Yields:
        Whether another process had it when this one came, so that its records may be there now. Of several processes of
        one command the first one waits for all, and never learns of records: the others ask whatever it finds.
    """
    lock, owner = _lock_of(prepared) if is_first_process() else (None, None)
    shard = prepared.run.shard
    if lock is None or owner is None:
        yield False
        return
    name = printable(prepared.method.name)
    waited = _acquired_late(lock, owner, f"{shard.title} of {name}" if shard else f"this run of {name}")
    try:
        _note(owner)
        yield waited and process_count() == 1
    finally:
        with suppress(OSError):
            remove(owner, below=owner.parent, named=CLAIM)
        lock.release()


def _lock_of(prepared: Prepared) -> tuple[FileLock | None, Path | None]:
    """Return the lock of a claim and the file that says who holds it; none where the cache cannot be written."""
    from filelock import FileLock

    shard = prepared.run.shard  # shards of one run do not wait for each other
    words = f"{prepared.output.resolve()} {claim_of(prepared)}" + (f" {shard}" if shard else "")
    name = hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    lock, owner = cache_folder() / FOLDER / f"{name}.lock", cache_folder() / FOLDER / f"{name}.json"
    refuse_links(lock.parent, lock, owner)
    try:
        check_writable(lock.parent)
    except HarnessError:  # the run's folder has a lock of its own, which is asked when the weights are there
        return None, None
    return FileLock(lock), owner


def _acquired_late(lock: FileLock, owner: Path, what: str) -> bool:
    """Acquire a lock, and return whether another process had it; ``what`` it is of is told then."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{what} is active already ({_told(owner)}); waiting for it to end")
        lock.acquire()
        return True
    except OSError as error:
        raise Failed(f"cannot lock '{printable(lock.lock_file)}': {error.strerror or error}") from error
    return False


def _note(owner: Path) -> None:
    """Write down who holds a claim, for the process that waits for it."""
    with suppress(OSError):
        write_atomic(owner, json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": now()}) + "\n")


def _told(owner: Path) -> str:
    """Return who holds a claim, as far as it said so; one that took it just now gets a moment to say so."""
    for _ in range(LOOKS):
        if owner.exists():
            break
        time.sleep(MOMENT)
    try:
        said: Any = json.loads(owner.read_text(encoding="utf-8"))
        here = "" if said["host"] == socket.gethostname() else f" on {printable(said['host'])}"
        return f"process {int(said['process'])}{here} since {printable(said['since'])}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "in another process"
