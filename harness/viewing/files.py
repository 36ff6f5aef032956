"""Where a page goes: its name, and what may be replaced there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.errors import HarnessError
from harness.folders import write_atomic
from harness.names import printable
from harness.plain_files import open_plain

MARK = "token-harness page of runs"
SUFFIXES = (".html", ".htm")
# A page says in its first characters what it is.
HEAD_BYTES = 4_096
MOST_NAME = 100


def target(given: Path | None, name: str) -> Path:
    """Return where a page is to be written, after checking that it may be.

    Args:
        given: by the user; None for a file called ``name`` in the working folder.
        name: without its ending.

    Raises:
        HarnessError: it is a folder, ends otherwise than a page, or something stands there that is no page of ours.
    """
    path = Path(f"{_plain(name)}.html") if given is None else given
    if path.is_dir():
        raise HarnessError(
            f"'{printable(path)}' is a folder; --html takes the file to write, and stands last without one"
        )
    if path.suffix.lower() not in SUFFIXES:
        raise HarnessError(f"'{printable(path)}' does not end in .html, so it is no file for a page; name it so")
    if os.path.lexists(path) and not _is_ours(path):
        raise HarnessError(
            f"'{printable(path)}' is there already and is no page that `harness show --html` or `harness compare --html` "
            "wrote; move it away or name another file with --html FILE"
        )
    return path


def write(path: Path, html: str) -> None:
    """Write a page, whole or not at all.

    Raises:
        HarnessError: the disk refuses; what was there is intact then.
    """
    try:
        write_atomic(path, html)
    except OSError as error:
        raise HarnessError(f"cannot write '{printable(path)}': {error.strerror or error}") from error


def _plain(name: str) -> str:
    """Return a name as people read it, with what no file system misreads alone in it."""
    return re.sub(r"[^A-Za-z0-9._=,+-]+", "_", name)[:MOST_NAME].strip("._-") or "page"


def _is_ours(path: Path) -> bool:
    if path.is_symlink():
        return False
    try:
        with open_plain(path) as file:
            return MARK.encode() in file.read(HEAD_BYTES)
    except OSError:
        return False
