"""What a run notes of itself beside its records: whether it ended, and its artefacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.plain_files import read_json_object

ARTEFACTS = "artefacts"
STATUS_FILE = "run.json"
KILLED = "killed; the same command goes on"


def ended(folder: Path) -> bool:
    """Return whether a run's folder holds all of it: what it notes is that it ended, well or with failures."""
    return str(notes_of(folder).get("status")).startswith("finished")


def status_of(folder: Path) -> str:
    """Return how a run ended, or that it has not: one that notes it is running, while nobody holds its lock, was killed."""
    status = str(notes_of(folder).get("status"))
    lock = folder.parent / f".{folder.name}.lock"
    if status != "running" or not lock.exists():
        return status
    try:
        with FileLock(lock, timeout=0):
            return KILLED
    except (Timeout, OSError):
        return status


def notes_of(folder: Path) -> dict[str, Any]:
    """Return what a run noted in its folder; nothing where there is no such file, or none that can be read."""
    return read_json_object(folder / STATUS_FILE)
