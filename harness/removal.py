"""The one way a file or folder of ours goes, or is replaced: never through a link, never under a name that others may choose."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from harness.errors import HarnessError
from harness.names import printable

# What `mkstemp` makes of a name while that is being written, and of a folder while another takes its place.
TEMPORARY = re.compile(r"\..{1,50}\.[a-z0-9_]{8}\.(?:partial|old)", re.DOTALL)
_TIME = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{6}"
RESULTS = re.compile(rf"results_{_TIME}\.json")
PAGE = re.compile(r"[^.].*\.html", re.DOTALL)
# Who makes a run's records, below the cache.
CLAIM = re.compile(r"[0-9a-f]{16}\.json")
# What asks the workers of a sweep to end.
STOP = re.compile(r"stop\.json")
# A method's work, below the cache.
WORK = re.compile(r"[a-z0-9._A-Z-]{1,100}-[0-9a-f]{16}")
# What interrupted runs left to each other, below ``.unfinished``.
UNFINISHED = re.compile(r"[0-9a-f]{16}")
_WHOSE = r"answers-(?:\d+|shard\d+of\d+|shards)\.jsonl"
ANSWERS = re.compile(rf"{_WHOSE}(?:\.torn)?|\.{_WHOSE}\.lock|\.{_WHOSE}(?:\.torn)?\.[a-z0-9_]{{8}}\.partial")


def samples_of(task: str) -> re.Pattern[str]:
    """Return what the sample files of a task are called, given what it is called in the names of files."""
    return re.compile(rf"samples_{re.escape(task)}_{_TIME}\.jsonl")


def temporary_of(*names: str) -> re.Pattern[str]:
    """Return what is called so while it is being written; a name that ends in ``_`` stands for all that begin so."""
    kinds = "|".join(re.escape(name) + (".*" if name.endswith("_") else "") for name in names)
    return re.compile(rf"\.(?:{kinds})\.[a-z0-9_]{{8}}\.(?:partial|old)")


def remove(path: Path, *, below: Path, named: re.Pattern[str], folder: bool = False) -> bool:
    """Remove what the harness made, and return whether that was done; what may be anybody else's stays.

    Args:
        path: a file, or with ``folder`` a folder with all that is in it; links in it go, what they lead to stays.
        below: the folder of ours that it lies in; between the two are real folders alone, no links.
        named: the whole of its last name: one of the patterns of this module, which no user would choose.

    Raises:
        OSError: the disk refuses.
    """
    if not named.fullmatch(path.name) or not _lies(path, below):
        return False
    kind = path.lstat().st_mode
    if stat.S_ISREG(kind):
        path.unlink(missing_ok=True)
    elif stat.S_ISDIR(kind) and folder:
        shutil.rmtree(path)
    else:
        return False
    return True


def discard(temporary: Path) -> None:
    """Remove the file that this process has just made under a temporary name, whatever else the disk refuses to tell of it."""
    if TEMPORARY.fullmatch(temporary.name):
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # a link goes itself, a folder stays


def remove_empty(path: Path, *, below: Path) -> None:
    """Remove a folder of ours if nothing is in it."""
    with suppress(OSError):  # something is
        if _lies(path, below) and not path.is_symlink():
            path.rmdir()


def put(written: Path, target: Path) -> None:
    """Give what was written under a temporary name its own, in place of what the harness wrote there before.

    Raises:
        OSError: the disk refuses, or a link is there, which somebody else must have made.
    """
    if target.is_symlink():
        raise OSError(errno.ELOOP, "a link is there, and neither it nor what it leads to is the harness's to replace")
    os.replace(written, target)


def refuse_links(*paths: Path) -> None:
    """Refuse to work where a file or folder of ours should be and a link is.

    Raises:
        HarnessError: one of ``paths`` is a link.
    """
    for path in paths:
        if path.is_symlink():
            raise HarnessError(
                f"'{printable(path)}' is a link, where the harness keeps a file or folder of its own; take the link away, or "
                "name another place"
            )


def _lies(path: Path, below: Path) -> bool:
    """Return whether ``path`` is there and lies below a folder, with no link and no ``..`` on the way."""
    try:
        inner = path.relative_to(below)
        is_plain = bool(inner.parts) and ".." not in inner.parts and os.path.lexists(path)
        return is_plain and path.parent.resolve() == below.resolve() / inner.parent
    except (OSError, ValueError):  # not below it; a name no file system takes; a circle of links
        return False
