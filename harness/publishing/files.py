"""Files that are about to be written: how long they are, whether they are there already, and writing them whole."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.errors import HarnessError
from harness.folders import write_atomic
from harness.names import printable
from harness.plain_files import open_plain

BLOCK = 1 << 16


@dataclass(frozen=True)
class PlannedFile:
    """A file to write.

    Attributes:
        path: relative to the target folder.
        blocks: gives the content, block by block and the same each time it is called, so that none is held in memory.
    """

    path: PurePosixPath
    blocks: Callable[[], Iterable[bytes]]

    def size(self) -> int:
        """Return the length in bytes, which makes the content once."""
        return sum(len(block) for block in self.blocks())


@dataclass(frozen=True)
class Outcome:
    """What happened, or would happen, to a file: ``new``, ``changed`` or ``same``."""

    path: Path
    size: int
    state: str


def planned(path: str | PurePosixPath, content: str | bytes) -> PlannedFile:
    """Return a file whose content is at hand."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    return PlannedFile(PurePosixPath(path), lambda: (data,))


def write_all(files: Sequence[PlannedFile], folder: Path, *, dry_run: bool) -> list[Outcome]:
    """Write ``files`` below ``folder``, each whole or not at all; one that is there with the same content stays.

    Raises:
        HarnessError: a path leads out of the folder, or the disk refuses.
    """
    outcomes = []
    for file in files:
        target = _inside(folder, file.path)
        try:
            outcome = _outcome(file, target, dry_run=dry_run)
        except OSError as error:
            raise HarnessError(f"cannot write '{printable(target)}': {error.strerror or error}") from error
        outcomes.append(outcome)
    return outcomes


def _outcome(file: PlannedFile, target: Path, *, dry_run: bool) -> Outcome:
    if not dry_run and not target.exists():  # no need to make it twice
        return Outcome(target, _write(file, target), "new")
    outcome = Outcome(target, *_compare(file, target))
    if outcome.state != "same" and not dry_run:
        _write(file, target)
    return outcome


def compressed(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield ``blocks`` as gzip without name or time, so that equal content gives equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0, compresslevel=6) as file:
        for block in blocks:
            file.write(block)
            if buffer.tell() > BLOCK:
                yield _drained(buffer)
    yield _drained(buffer)


def _drained(buffer: io.BytesIO) -> bytes:
    content = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return content


def _inside(folder: Path, path: PurePosixPath) -> Path:
    target = folder / path
    is_outside = path.is_absolute() or ".." in path.parts
    if is_outside or not target.parent.resolve().is_relative_to(folder.resolve()) or target.is_symlink():
        raise HarnessError(f"'{printable(path)}' leads out of '{printable(folder)}'; nothing is written there")
    return target


def _compare(file: PlannedFile, target: Path) -> tuple[int, str]:
    """Return the size of what would be written, and how it differs from what is there."""
    new, size = hashlib.sha256(), 0
    for block in file.blocks():
        new.update(block)
        size += len(block)
    if not target.exists():
        return size, "new"
    old = hashlib.sha256()
    with open_plain(target) as existing:
        while block := existing.read(BLOCK):
            old.update(block)
    return size, "same" if old.digest() == new.digest() else "changed"


def _write(file: PlannedFile, target: Path) -> int:
    """Write the file whole or not at all, and return its size."""
    sizes = [0]

    def counted() -> Iterator[bytes]:
        for block in file.blocks():
            sizes.append(len(block))
            yield block

    write_atomic(target, counted())
    return sum(sizes)
