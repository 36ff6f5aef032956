"""One worker at a time does a cell: claims made by exclusive creation, kept alive by a heartbeat, taken over when it stops.

No clocks are compared. A heartbeat is a file whose content its owner changes every few seconds; an observer that has watched
it stand still for a minute of its own time takes the cell over, by making the claim of the next number. Of two that try, one
succeeds. An owner that wakes up later sees that number and stops.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import Failed
from harness.folders import write_atomic
from harness.names import printable
from harness.plain_files import read_json_object
from harness.run.environment import now

BEAT_SECONDS = 5.0
# Of an observer's own time; many beats, as a disk of a cluster may show a change late.
STALE_SECONDS = 60.0


@dataclass(frozen=True)
class Attempt:
    """One try at a cell, as its files tell it.

    Attributes:
        owner: who claimed it: worker, machine, process, host, since; empty where that is not written yet.
        end: how it ended: status (done, failed, stopped, lost), error, seconds; None while it has not.
        is_forgiven: the cell was retried since, so that it counts no more against it.
    """

    number: int
    owner: Mapping[str, Any] = field(default_factory=dict)
    end: Mapping[str, Any] | None = None
    is_forgiven: bool = False

    @property
    def status(self) -> str | None:
        """How it ended, None while it has not."""
        return None if self.end is None else str(self.end.get("status"))


class Claim:
    """An attempt that is ours: its heart beats until it ends.

    Args:
        folder: of the cell, in the state of the sweep.
        on_lost: called once, by another thread, when another worker has taken the cell over.
        on_beat: called with every beat.
    """

    def __init__(
        self, folder: Path, number: int, *, on_lost: Callable[[], object] = bool, on_beat: Callable[[], object] = bool
    ) -> None:
        self.folder, self.number = folder, number
        self._on_lost, self._on_beat, self._is_lost = on_lost, on_beat, False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    @property
    def log(self) -> Path:
        """Where all goes that the cell prints."""
        return self.folder / f"log-{self.number}.txt"

    @property
    def is_lost(self) -> bool:
        """Whether another worker has taken the cell over."""
        return self._is_lost or (self.folder / _name("claim", self.number + 1)).exists()

    def note(self, **what: Any) -> None:
        """Add to what others may know of the attempt while it is under way."""
        with suppress(Failed):
            write_json(self.folder / _name("note", self.number), what)

    def end(self, status: str, **what: Any) -> None:
        """Write down how it ended, unless it is another's by now.

        Raises:
            Failed: the disk refuses.
        """
        self._ended.set()
        self._thread.join()
        if self.is_lost:
            return
        write_json(self.folder / _name("end", self.number), {"status": status, "ended": now(), **what})

    def _beat(self) -> None:
        beats = 0
        while not self._ended.wait(BEAT_SECONDS if beats else 0):
            beats += 1
            with suppress(OSError):  # a full disk is no end: who observes sees whether the next one comes
                write_atomic(self.folder / f"beat-{self.number}", f"{beats}\n")
            if not self._is_lost and self.is_lost:
                self._is_lost = True
                self._on_lost()
            self._on_beat()


def claim(folder: Path, number: int, worker: str, **callbacks: Any) -> Claim | None:
    """Claim attempt ``number`` of a cell; None where another worker was first.

    Raises:
        Failed: the disk refuses.
    """
    path = folder / _name("claim", number)
    content = json.dumps({"worker": worker, "since": now(), **this_process()}) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    except OSError as error:
        raise Failed(f"cannot write to '{printable(folder)}': {error.strerror or error}") from error
    with suppress(OSError), os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)  # who claimed it is for people; that it is claimed is the file
        file.flush()
        os.fsync(file.fileno())
    return Claim(folder, number, **callbacks)


class Observer:
    """Tells which claims nobody keeps alive, by what it has seen of them itself."""

    def __init__(self, stale_seconds: float = STALE_SECONDS) -> None:
        self._stale_seconds = stale_seconds
        self._seen: dict[Path, tuple[str, float]] = {}

    def is_gone(self, folder: Path, attempt: Attempt) -> bool:
        """Return whether the owner of an attempt that has not ended is gone: at once where it was a process of this machine."""
        if is_of_this_machine(attempt.owner):
            return not is_alive(attempt.owner)
        path, here = folder / f"beat-{attempt.number}", time.monotonic()
        try:
            beat = path.read_text(encoding="ascii", errors="replace")
        except OSError:
            beat = ""
        seen, since = self._seen.get(path, (None, here))
        if beat != seen:
            self._seen[path] = (beat, here)
            return False
        return here - since > self._stale_seconds


def this_process() -> dict[str, Any]:
    """Return what tells this process from any other, on whatever machine."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "process": os.getpid(),
        "started": _started(os.getpid()),
    }


def is_of_this_machine(owner: Mapping[str, Any]) -> bool:
    """Return whether a process was of this machine since it started, and is seen from here: not one of another container."""
    return bool(owner) and owner.get("machine") == _machine()


def is_alive(owner: Mapping[str, Any]) -> bool:
    """Return whether a process of this machine still runs, and is the same one."""
    number = owner.get("process")
    return isinstance(number, int) and _started(number) not in ("", "Z") and _started(number) == owner.get("started")


def attempts_in(folder: Path) -> list[Attempt]:
    """Return the attempts at a cell in their order; none where there is no folder."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    numbers, ended = _numbers("claim", names), frozenset(_numbers("end", names))
    retried = max(_numbers("retry", names), default=0)
    return [
        Attempt(
            number,
            read_json_object(folder / _name("claim", number)),
            read_json_object(folder / _name("end", number)) if number in ended else None,
            number <= retried,
        )
        for number in numbers
    ]


def forgive(folder: Path) -> None:
    """Let the attempts at a cell so far count no more against it. Raises ``Failed`` where the disk refuses."""
    write_json(folder / _name("retry", attempts_in(folder)[-1].number), {"since": now()})


def note_of(folder: Path, number: int) -> Mapping[str, Any]:
    """Return what the owner of an attempt has told of it so far."""
    return read_json_object(folder / _name("note", number))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all.

    Raises:
        Failed: the disk refuses.
    """
    try:
        write_atomic(path, json.dumps(content, ensure_ascii=False, default=str) + "\n")
    except OSError as error:
        raise Failed(f"cannot write to '{printable(path.parent)}': {error.strerror or error}") from error


def _name(what: str, number: int) -> str:
    return f"{what}-{number}.json"


def _numbers(what: str, names: Iterable[str]) -> list[int]:
    """Return the numbers for which ``_name`` gives one of some names, in order."""
    pattern = re.compile(rf"{what}-(\d+)\.json")
    return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))


@cache
def _machine() -> str:
    """Return what names this machine since it started, and the container of this process if it is in one."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(process: int) -> str:
    """Return when a process started, in ticks since the machine did: empty where there is none, Z where it has ended.

    Where the system does not tell (no ``/proc``), a process that is there counts as the same.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "Z" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return ""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except OSError:  # there, and somebody else's
        pass
    return "there"
