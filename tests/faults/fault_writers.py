"""Ways to append a record to a file: the harness's own, and the usual ones, which lose some."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import jsonlines
from fault_tools import Writer
from made_records import line_of

from harness.records import ledger
from harness.records.record import Record


def harness_ledger(path: Path) -> Callable[[Record], object]:
    """Append as the harness does."""
    return lambda record: ledger.append(path, [record])


def buffered(path: Path) -> Callable[[Record], object]:
    """Append with jsonlines as its documentation shows: acknowledged while still in this process's memory."""
    lines = jsonlines.open(path, "a")
    return lambda record: lines.write(json.loads(record.to_line()))


def flushed(path: Path) -> Callable[[Record], object]:
    """Append with jsonlines, flushed after each record."""
    lines = jsonlines.open(path, "a", flush=True)
    return lambda record: lines.write(json.loads(record.to_line()))


def one_write(path: Path) -> Callable[[Record], object]:
    """Append with one system call, whose return value nobody looks at."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    return lambda record: os.write(descriptor, line_of(record))


def no_heal(path: Path) -> Callable[[Record], object]:
    """Write all and sync, after whatever the writer before left without its end."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def append(record: Record) -> None:
        view = memoryview(line_of(record))
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)

    return append


def no_loop(path: Path) -> Callable[[Record], object]:
    """Heal and sync, but take it that one write writes all."""

    def append(record: Record) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.ftruncate(descriptor, content.rfind(b"\n") + 1)
        os.write(descriptor, line_of(record))
        os.fsync(descriptor)
        os.close(descriptor)

    return append


# Each usual way with its name in tables.
PLAIN_WRITERS: dict[str, Writer] = {
    '`jsonlines.open(…, "a")` (buffered)': buffered,
    '`jsonlines.open(…, "a", flush=True)`': flushed,
    "`os.write` with `O_APPEND`": one_write,
    "the same with a loop and `fsync`": no_heal,
}
BAD_WRITERS: dict[str, Writer] = {
    "buffered": buffered, "flushed": flushed, "one_write": one_write, "no_heal": no_heal, "no_loop": no_loop,
}  # fmt: skip
