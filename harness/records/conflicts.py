"""The lines that git leaves in a file where two people changed the same place."""

from __future__ import annotations

import re
from pathlib import Path

from harness.names import printable

SAID = "git left a conflict here"
# No record, and no other JSON, begins so.
_MARK = re.compile(rb"(?:<{7}|>{7}|\|{7})(?: .*)?|={7}")


def is_mark(line: bytes) -> bool:
    """Whether a line, without its end, is one of git's: where a side begins, or ends."""
    return _MARK.fullmatch(line) is not None


def in_text(content: bytes) -> bool:
    """Whether a file, such as a page, holds both sides of a conflict."""
    found = {line[:1] for line in content.splitlines() if line[:7] in {b"<" * 7, b"=" * 7, b">" * 7} and is_mark(line)}
    return found == {b"<", b"=", b">"}


def sentence(line: bytes, path: Path) -> str:
    """Return what is told of such a line in the file of records at ``path``."""
    return f"{SAID} ({printable(line.decode('utf-8', 'replace'))[:40]}); {cure(path)}"


def cure(path: Path) -> str:
    """Return what to do about a conflict in the file of records at ``path``."""
    return f"`harness leaderboard {printable(path)} --repair` keeps the records of both sides"
