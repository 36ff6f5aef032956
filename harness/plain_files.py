"""Files that others may have put there: only plain ones are opened, and one odd entry hides no other."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from harness.names import printable

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass
class Found:
    """The plain files of a folder in the order of their paths, and a sentence for each other entry that was passed over."""

    files: list[Path] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file, or a link to one, to read its bytes; nothing else is opened, so no pipe is waited for.

    Raises:
        OSError: it cannot be read, or is no plain file.
    """
    _check_is_plain(os.stat(path).st_mode)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_is_plain(os.fstat(descriptor).st_mode)  # it may be another by now
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_plain(path: Path) -> bytes:
    """Return the content of a plain file.

    Raises:
        OSError: it cannot be read, or is no plain file.
    """
    with open_plain(path) as file:
        return file.read()


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a plain file; an empty one where there is no such file, or none that can be read."""
    try:
        content = json.loads(read_plain(path).decode())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def find_plain(
    folder: Path, *, is_wanted: Callable[[str], bool], is_skipped: Callable[[str], bool] = lambda _: False
) -> Found:
    """Find the plain files below a folder; links to folders are not followed.

    Args:
        folder: it may be read.
        is_wanted: says by its name whether an entry is looked for.
        is_skipped: says by its name whether a folder is left out with all that it holds.
    """
    found: list[tuple[tuple[str, ...], Path]] = []
    others: list[tuple[tuple[str, ...], str]] = []
    waiting: list[tuple[str, tuple[str, ...]]] = [(str(folder), ())]
    while waiting:
        parent, parts = waiting.pop()
        try:
            entries = _entries(parent)
        except OSError as error:
            others.append((parts, f"{printable(parent)}: {error.strerror or error}"))
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not is_skipped(entry.name):
                waiting.append((entry.path, (*parts, entry.name)))
            if is_wanted(entry.name):
                kind, place = _kind_of(entry), (*parts, entry.name)
                if kind:
                    others.append((place, f"{printable(entry.path)}: {kind}, no plain file"))
                else:
                    found.append((place, Path(entry.path)))
    return Found([path for _, path in sorted(found)], [sentence for _, sentence in sorted(others)])


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _kind_of(entry: os.DirEntry[str]) -> str:
    """Return what an entry is that is no plain file and no link to one, empty for those."""
    try:
        return "" if entry.is_file() else _word(entry.stat().st_mode)
    except OSError:
        return "a link to nothing" if entry.is_symlink() else "gone"


def _check_is_plain(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {_word(mode)}, no plain file")


def _word(mode: int) -> str:
    return next((word for is_one, word in _KINDS if is_one(mode)), "something else")
