"""Faults on demand: a writer killed at random, a system call that fails or never returns, a disk that is full."""

from __future__ import annotations

import builtins
import io
import itertools
import os
import pkgutil
import random
import resource
import select
import signal
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from made_records import made, number_of

from harness.records import ledger
from harness.records.record import Record

# Opens a file and returns what appends one record to it; a record is acknowledged when that returns.
Writer = Callable[[Path], Callable[[Record], object]]
Act = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

FILE_CALLS = ("file.write", "file.flush", "file.close")
CALLS = (
    "os.open", "os.write", "os.lseek", "os.fsync", "os.ftruncate", "os.truncate", "os.replace", "os.rename", "os.link",
    "os.unlink", "os.chmod", "os.mkdir", "os.stat", "os.close", "fcntl.flock", "io.open", *FILE_CALLS,
)  # fmt: skip
_ACK = struct.Struct("<q")
_acknowledge = os.write  # whatever happens to ``os.write`` later
_MAY_HAVE_FAILED = 1_000_000  # more records than one writer writes before it is killed


@dataclass(frozen=True)
class Kills:
    """What a file held after its writers were killed.

    ``lost``: acknowledged but not there; ``unreadable``: lines that are no records; ``doubled``: there twice;
    ``healed``: torn ends that were set aside.
    """

    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    unreadable: int = 0
    doubled: int = 0
    healed: int = 0

    def __add__(self, other: Kills) -> Kills:
        return Kills(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, torn or doubled."""
        return not (self.lost or self.unreadable or self.doubled)


def kill_loop(
    writer: Writer, path: Path, *, n: int, seed: int, size: int = 0, longest: float = 0.15, in_write: bool = False
) -> Kills:
    """Start a writer on ``path``, kill it with SIGKILL after 0 to ``longest`` seconds, and so on, ``n`` times.

    One more writer ends well, so that it can heal what the last one left.

    Args:
        size: bytes that each line is longer than a small record's.
        in_write: kill each within one of its first ten writes, when half of that is done.
    """
    draw, acknowledged = random.Random(seed), set[int]()
    for kill in range(n):
        first, seconds, k = kill * _MAY_HAVE_FAILED, draw.uniform(0, longest), draw.randint(1, 10)

        def write(pipe: int, first: int = first, k: int = k) -> None:
            with die_at("os.write", k if in_write else 0), die_at("file.write", k if in_write else 0):
                _write_for_ever(writer, path, first, size, pipe)

        acknowledged |= _killed_after(60 if in_write else seconds, write)
    run_forked(lambda: writer(path)(made(-1, size=size)))
    return examine(path, acknowledged, kills=n)


def examine(path: Path, acknowledged: set[int], *, kills: int = 0) -> Kills:
    """Return how the file at ``path`` differs from what was acknowledged."""
    found: Counter[int] = Counter()
    unreadable = 0
    for line in ledger.lines(path) if path.exists() else ():
        if line.record is None:
            unreadable += 1
        else:
            found[number_of(line.record)] += 1
    torn = path.with_name(f"{path.name}.torn")
    return Kills(
        kills=kills,
        acknowledged=len(acknowledged),
        lost=len(acknowledged - set(found)),
        unreadable=unreadable,
        doubled=found.total() - len(found),
        healed=len(torn.read_bytes().splitlines()) if torn.exists() else 0,
    )


def _killed_after(seconds: float, write: Callable[[int], None]) -> set[int]:
    """Return the numbers that ``write``, which is given a pipe, acknowledged before it was killed or killed itself."""
    end = time.monotonic() + seconds
    reader, pipe = os.pipe()
    pid = _fork(lambda: write(pipe))
    os.close(pipe)
    received = bytearray()
    while (left := end - time.monotonic()) > 0:
        if select.select([reader], [], [], left)[0]:
            received += (block := os.read(reader, 1 << 16))
            if not block:
                break
    os.kill(pid, signal.SIGKILL)
    while block := os.read(reader, 1 << 16):
        received += block
    os.close(reader)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status), "the writer ended before it was killed; its traceback is on standard error"
    whole = len(received) - len(received) % _ACK.size
    return {number for (number,) in _ACK.iter_unpack(received[:whole])}


def _write_for_ever(writer: Writer, path: Path, first: int, size: int, pipe: int) -> None:
    append = writer(path)
    for number in itertools.count(first):
        append(made(number, size=size))
        _acknowledge(pipe, _ACK.pack(number))


def run_forked(function: Callable[[], object]) -> int:
    """Run ``function`` in a process of its own; return its wait status: 0, or how it ended.

    An ``OSError`` ends it with exit status 3.
    """
    return os.waitpid(_fork(function), 0)[1]


def _fork(function: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        function()
        code = 0
    except OSError:
        code = 3
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@contextmanager
def at_call(
    name: str,
    k: int,
    act: Act,
    *,
    for_good: bool = False,
    watch: Sequence[str] = CALLS,
    tell: Callable[[str], object] | None = None,
) -> Iterator[list[str]]:
    """Let ``act`` take the place of the ``k``-th call (from 1) of ``name`` within the block.

    Args:
        name: one of ``CALLS``; those of ``file`` are methods of files that Python opened for writing.
        for_good: of every call from the ``k``-th on.
        watch: which calls are looked at.
        tell: is given the name of each call before it is made.

    Yields:
        The names that were called, in order.
    """
    calls: list[str] = []
    counts: Counter[str] = Counter()

    def watched(called: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(called)
            if tell is not None:
                tell(called)
            counts[called] += 1
            is_due = counts[called] >= k if for_good else counts[called] == k
            return act(original, args, kwargs) if called == name and is_due else original(*args, **kwargs)

        return call

    with ExitStack() as stack:
        for called in set(watch) - {*FILE_CALLS, "io.open"}:
            module, _, attribute = called.rpartition(".")  # "module.name", or "module:class.name"
            place = pkgutil.resolve_name(module)
            stack.enter_context(mock.patch.object(place, attribute, watched(called, getattr(place, attribute))))
        if {*FILE_CALLS, "io.open"} & set(watch):
            opener = watched("io.open", _opener(io.open, watched))
            stack.enter_context(mock.patch.object(io, "open", opener))
            stack.enter_context(mock.patch.object(builtins, "open", opener))
        yield calls


def _opener(original: Callable[..., Any], watched: Callable[..., Any]) -> Callable[..., Any]:
    def call(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        opened = original(file, mode, *args, **kwargs)
        return _File(opened, watched) if set(mode) & set("wxa+") else opened

    return call


class _File:
    """A file whose writing can fail."""

    def __init__(self, file: Any, watched: Callable[..., Any]) -> None:
        self._file = file
        self.write, self.flush = watched("file.write", file.write), watched("file.flush", file.flush)
        self.close = watched("file.close", file.close)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fail_at(name: str, k: int, code: int, *, for_good: bool = False, watch: Sequence[str] = CALLS) -> Any:
    """Let the ``k``-th call of ``name`` within a ``with`` block raise ``OSError(code)``; a ``close`` closes first."""

    def fail(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name.endswith(".close"):
            original(*args, **kwargs)
        raise OSError(code, os.strerror(code))

    return at_call(name, k, fail, for_good=for_good, watch=watch)


def die_at(name: str, k: int, *, watch: Sequence[str] = CALLS) -> Any:
    """Let the process be killed in the ``k``-th call of ``name``, which does half its work if it writes, else none."""

    def die(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name.endswith(".write"):
            *before, content = args
            original(*before, content[: len(content) // 2], **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    return at_call(name, k, die, watch=watch)


def calls_in_order(function: Callable[[], object]) -> list[str]:
    """Return which of ``CALLS`` a function calls, one after the other."""
    with at_call("", 0, lambda *_: None) as calls:
        function()
    return calls


def points(function: Callable[[], object]) -> list[tuple[str, int]]:
    """Return every call of ``CALLS`` that ``function`` makes, as a name and a number from 1."""
    counts = Counter(calls_in_order(function))
    assert counts, "no call was counted"
    return [(name, k) for name in sorted(counts) for k in range(1, counts[name] + 1)]


def limit_files(length: int) -> None:
    """Let no file of this process grow beyond ``length`` bytes, as if the disk were full then. For a forked child."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
