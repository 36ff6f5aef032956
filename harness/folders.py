"""Where the harness keeps files, and how a file or folder appears there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError
from harness.names import printable


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


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) so that a reader, or a crash, sees the old file or the whole new one.

    Raises:
        OSError: the disk is full or the folder not writable; the old file is intact then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``target`` that takes its place when the block ends well.

    When the block raises, or is interrupted, the temporary folder goes and ``target`` is as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:50]}.", suffix=".partial"))
    temporary.chmod(0o777 & ~_umask())
    try:
        yield temporary
        for path in temporary.rglob("*"):  # some writers leave files that only their owner can read
            if path.is_file() and path.stat().st_nlink == 1:
                path.chmod(0o666 & ~_umask())
        old = temporary.with_suffix(".old")
        if target.exists():
            os.replace(target, old)
        os.replace(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(target.parent)


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder by hard links where the file system can, by content where it cannot."""

    def link(source_file: str, target_file: str) -> str:
        try:
            os.link(source_file, target_file)
        except OSError:
            shutil.copy2(source_file, target_file)
        return target_file

    shutil.copytree(source, target, copy_function=link)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some file systems cannot sync a folder; the file itself is on disk
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
