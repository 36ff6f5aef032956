"""Where the harness keeps files, and how a file or folder appears there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from harness.errors import HarnessError
from harness.names import printable
from harness.removal import TEMPORARY, discard, put, remove


def cache_folder() -> Path:
    """Return the folder for what can be made again: ``HARNESS_CACHE``, else ``token-harness`` in the user's cache."""
    named = os.environ.get("HARNESS_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "token-harness"


def check_writable(folder: Path) -> None:
    """Make ``folder`` and try to write in it.

    Raises:
        HarnessError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
    except OSError as error:
        raise HarnessError(f"cannot write to {printable(folder)}: {error.strerror or error}") from error


def write_atomic(path: Path, content: str | bytes | Iterable[str | bytes]) -> None:
    """Write ``content`` (text as UTF-8, whole or in parts) so that a reader, or a crash, sees the old file or the whole new one.

    Raises:
        OSError: the disk is full, the folder not writable, or a link stands at ``path``; what was there is intact then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in [content] if isinstance(content, str | bytes) else content:
                file.write(part.encode("utf-8") if isinstance(part, str) else part)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        put(Path(temporary), path)
    except BaseException:
        discard(Path(temporary))
        raise
    sync_folder(path.parent)


def append_lines(path: Path, make_lines: Callable[[bytes], Iterable[str]]) -> None:
    """Add lines to the end of a file: all of them are on disk when this returns, or none is in the file.

    One process at a time writes. A last line without its end, left by a killed writer, is moved to ``<name>.torn`` first,
    so it spoils no line after it.

    Args:
        path: made, with its folder, when it is not there.
        make_lines: given the last line in the file (empty when there is none), returns those to add.

    Raises:
        OSError: the disk refuses, or a link stands at ``path``; the file is as it was then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    with locked(path):
        path.parent.mkdir(parents=True, exist_ok=True)  # another process may have found it empty, and removed it
        descriptor = os.open(path, own, 0o666)
        try:
            last = _healed_tail(path, descriptor)
            start = os.lseek(descriptor, 0, os.SEEK_END)
            try:
                _write_all(descriptor, "".join(line + "\n" for line in make_lines(last)).encode())
                os.fsync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, start)
                raise
        finally:
            with suppress(OSError):  # what was written is on disk, or was taken back
                os.close(descriptor)
        if not start:
            sync_folder(path.parent)


def locked(path: Path) -> FileLock:
    """Return the lock that one writer of ``path`` at a time holds."""
    return FileLock(path.parent / f".{path.name}.lock")


def set_aside(path: Path, content: bytes) -> None:
    """Add what ``path`` should not hold to ``<name>.torn`` beside it."""
    torn = path.with_name(f"{path.name}.torn")
    write_atomic(torn, (torn.read_bytes() if torn.exists() else b"") + content)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``target`` that takes its place when the block ends well.

    When the block raises, or is interrupted, the temporary folder goes and ``target`` is as it was.

    Raises:
        OSError: the disk refuses, or a link stands at ``target``.
    """
    with scratch_folder(target) as temporary:
        yield temporary
        for path in temporary.rglob("*"):  # some writers leave files that only their owner can read
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                path.chmod(0o666 & ~umask())
        old = temporary.with_suffix(".old")
        has_old = target.exists() and not target.is_symlink()
        if has_old:
            put(target, old)
        try:
            put(temporary, target)
        except BaseException:
            if has_old:
                put(old, target)
            raise
        with suppress(OSError):
            remove(old, below=target.parent, named=TEMPORARY, folder=True)
    sync_folder(target.parent)


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``target``, named as if it were to take its place, that is gone after the block."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:50]}.", suffix=".partial"))
    temporary.chmod(0o777 & ~umask())
    try:
        yield temporary
    finally:
        with suppress(OSError):
            remove(temporary, below=target.parent, named=TEMPORARY, folder=True)


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder by hard links where the file system can, by content where it cannot."""

    def link(source_file: str, target_file: str) -> str:
        try:
            os.link(source_file, target_file)
        except OSError:
            shutil.copy2(source_file, target_file)
        return target_file

    shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)


def carry_over(old: Path, new: Path) -> None:
    """Add to ``new`` what only ``old`` has, links as links, so that ``new`` can take its place.

    Raises:
        OSError: the disk refuses, or one has a folder where the other has none.
    """
    for entry in os.scandir(old):
        target = new / entry.name
        if entry.is_dir(follow_symlinks=False):
            target.mkdir(exist_ok=True)
            carry_over(Path(entry.path), target)
        elif not os.path.lexists(target):
            try:
                os.link(entry.path, target, follow_symlinks=False)
            except OSError:
                shutil.copy2(entry.path, target, follow_symlinks=False)


def sync_folder(folder: Path) -> None:
    """Put on disk which files a folder holds, after one was made or renamed there."""
    with suppress(OSError):  # some file systems cannot sync a folder; the file itself is on disk
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _healed_tail(path: Path, descriptor: int) -> bytes:
    """Return the last line of a file; one without its end gets it, or is set aside when it is no whole JSON."""
    tail = _tail(path)
    if not tail or tail.endswith(b"\n"):
        return tail
    try:
        json.loads(tail)
    except (ValueError, RecursionError):
        set_aside(path, tail + b"\n")
        os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_END) - len(tail))
        return _tail(path)
    _write_all(descriptor, b"\n")
    return tail


def _tail(path: Path, block: int = 1 << 16) -> bytes:
    """Return the last line of a file, with its newline when it has one."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail = b""
        while len(tail) < size and b"\n" not in tail[:-1]:
            step = min(block, size - len(tail))
            file.seek(size - len(tail) - step)
            tail = file.read(step) + tail
    return tail[tail[:-1].rfind(b"\n") + 1 :]


def _write_all(descriptor: int, content: bytes) -> None:
    """Write all of it: a full disk may take a part and report nothing."""
    view = memoryview(content)
    while view:
        written = os.write(descriptor, view)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[written:]


def umask() -> int:
    """Return the mask of the files that this process makes; it can be read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
