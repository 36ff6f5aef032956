"""What every way to append a record has to stand, as functions that return what went wrong.

The harness's own writer is checked by them, and so are bad ones, to see that the checks find something.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fault_tools import Writer, die_at, examine, fail_at, kill_loop, limit_files, points, run_forked
from made_records import line_of, made, number_of

from harness.records import ledger

OLD, NEW, LATER = {0, 1, 2}, 3, 4
ERRORS = (errno.ENOSPC, errno.EIO, errno.EINTR)
SEED = 20_261_127


def kills(writer: Writer, folder: Path) -> list[str]:
    """Twenty kills at random moments, and five within a write."""
    for longest in (0.15, 1.5, 15.0):  # where others use the machine, a writer begins late
        at_random = kill_loop(writer, folder / f"random-{longest}.jsonl", n=20, seed=SEED, longest=longest)
        if at_random.acknowledged > 20:
            break
    within = kill_loop(writer, folder / "within.jsonl", n=5, seed=SEED, in_write=True)
    assert at_random.acknowledged > 20, "too slow to tell anything"
    return [f"seed {SEED}: {found}" for found in (at_random, within) if not found.is_clean]


def torn_end(writer: Writer, folder: Path) -> list[str]:
    """A writer before this one left a line without its end, cut anywhere."""
    found, line = [], line_of(made(9))
    for cut in (1, 20, len(line) // 2, len(line) - 2):
        path = with_old(folder / f"torn-{cut}.jsonl")
        path.write_bytes(path.read_bytes() + line[:cut])
        run_forked(lambda path=path: _append_and_close(writer, path, NEW))
        if not (kills := examine(path, OLD | {NEW})).is_clean:
            found.append(f"cut after {cut} bytes: {kills}")
        torn = path.with_name(f"{path.name}.torn")
        if not torn.exists() or torn.read_bytes() != line[:cut] + b"\n":
            found.append(f"cut after {cut} bytes: the torn line is not kept")
    return found


def whole_line_without_newline(writer: Writer, folder: Path) -> list[str]:
    """Only the newline is missing: the record is there, and stays."""
    path = with_old(folder / "no-newline.jsonl")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    run_forked(lambda: _append_and_close(writer, path, NEW))
    return [] if (kills := examine(path, OLD | {NEW})).is_clean else [str(kills)]


def full_disk(writer: Writer, folder: Path) -> list[str]:
    """The disk takes a part of the line and no more."""
    found, length = [], len(line_of(made(NEW, size=2000)))
    for room in (0, 1, 100, length // 2, length - 1, length + 200):
        path = with_old(folder / f"full-{room}.jsonl")
        start = path.stat().st_size

        def write(path: Path = path, limit: int = start + room) -> None:
            limit_files(limit)
            writer(path)(made(NEW, size=2000))

        status = run_forked(write)
        found += [f"room for {room} of {length} bytes: {text}" for text in _after(path, status, writer)]
    return found


def failing_calls(writer: Writer, folder: Path, *, make: Callable[[Path], Path] | None = None) -> list[str]:
    """Each system call of an append fails once, or from then on, with each of three errors."""
    return [text for found in each_failing_call(writer, folder, make=make) for text in found]


def each_failing_call(
    writer: Writer,
    folder: Path,
    *,
    make: Callable[[Path], Path] | None = None,
    errors: Sequence[int] = ERRORS,
) -> Iterator[list[str]]:
    """Yield what goes wrong for each failure of ``failing_calls``: an empty list for most, one hopes."""
    make = make or with_old
    for name, k in _points(writer, make, folder):
        for code, for_good in ((code, for_good) for code in errors for for_good in (False, True)):
            path = make(folder / f"{name}-{k}-{code}-{for_good}.jsonl")

            def write(
                path: Path = path, fault: tuple[str, int, int] = (name, k, code), for_good: bool = for_good
            ) -> None:
                with fail_at(*fault, for_good=for_good):
                    writer(path)(made(NEW))

            status = run_forked(write)
            where = f"{name} {k} {errno.errorcode[code]}{' for good' if for_good else ''}"
            yield [f"{where}: {text}" for text in _after(path, status, writer, old=_numbers(make, folder))]


def killed_in_each_call(writer: Writer, folder: Path, *, make: Callable[[Path], Path] | None = None) -> list[str]:
    """The process is killed in each system call of an append; in a write, when half of it is done."""
    return [text for found in each_deadly_call(writer, folder, make=make) for text in found]


def each_deadly_call(
    writer: Writer, folder: Path, *, make: Callable[[Path], Path] | None = None
) -> Iterator[list[str]]:
    """Yield what goes wrong for each kill of ``killed_in_each_call``."""
    make = make or with_old
    for name, k in _points(writer, make, folder):
        path = make(folder / f"{name}-{k}.jsonl")

        def write(path: Path = path, name: str = name, k: int = k) -> None:
            with die_at(name, k):
                writer(path)(made(NEW))

        status = run_forked(write)
        assert os.WIFSIGNALED(status), (name, k)
        run_forked(lambda path=path: _append_and_close(writer, path, LATER))
        kills = examine(path, _numbers(make, folder) | {LATER})
        yield [] if kills.is_clean else [f"killed in {name} {k}: {kills}"]


def no_file_yet(path: Path) -> Path:
    """Return a path where no file is, in a folder of its own that is not there either."""
    return path.parent / f"new-{path.stem}" / path.name


def torn_file(path: Path) -> Path:
    """Return the path of a file whose last line is torn."""
    with_old(path).write_bytes(path.read_bytes() + line_of(made(9))[:300])
    return path


def with_old(path: Path) -> Path:
    """Write a file of three records."""
    path.write_bytes(b"".join(line_of(made(number)) for number in sorted(OLD)))
    return path


def _points(writer: Writer, make: Callable[[Path], Path], folder: Path) -> list[tuple[str, int]]:
    path = make(folder / "count.jsonl")
    return points(lambda: writer(path)(made(NEW)))


def _numbers(make: Callable[[Path], Path], folder: Path) -> set[int]:
    return set() if make is no_file_yet else OLD


def _holds(path: Path, number: int) -> bool:
    return path.exists() and number in {number_of(record) for record in ledger.read_file(path).records}


def _append_and_close(writer: Writer, path: Path, number: int) -> None:
    """Append in a process that ends as Python does, with what is in its buffers written."""
    append = writer(path)
    append(made(number))
    del append


def _after(path: Path, status: int, writer: Writer, *, old: set[int] = OLD) -> Iterator[str]:
    """Yield what is wrong after a writer that was hindered, and after one more that is not."""
    code = os.waitstatus_to_exitcode(status)
    if code not in {0, 3}:
        yield f"neither done nor an OSError: exit status {code}"
    kills = examine(path, old | ({NEW} if code == 0 else set()))
    # A torn end that was there before may still be: nothing was acknowledged.
    if kills.lost or kills.doubled:
        yield str(kills)
    if litter := [file.name for file in path.parent.rglob("*.partial")] if path.parent.exists() else []:
        yield f"left {litter}"
    if code and not _holds(path, NEW):  # after an error only in closing it may be there: a file is old or new, not half
        run_forked(lambda: _append_and_close(writer, path, NEW))
    run_forked(lambda: _append_and_close(writer, path, LATER))
    if not (kills := examine(path, old | {NEW, LATER})).is_clean:
        yield f"after trying again: {kills}"


CHECKS: dict[str, Callable[[Writer, Path], list[str]]] = {
    check.__name__: check
    for check in (kills, torn_end, whole_line_without_newline, full_disk, failing_calls, killed_in_each_call)
}
