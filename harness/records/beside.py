"""What many lines of a ledger say, written once beside it: a method's report, and what all records of a command share.

A line whose field ``beside`` names such files is the record without what stands there. Files are named by their content, as
sample files are, so one file serves every line that says the same, and a file that was edited is seen by its name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.names import printable

if TYPE_CHECKING:
    from harness.records.record import Record

FIELD = "beside"
REPORTS, COMMANDS = "reports", "commands"
FOLDERS = (REPORTS, COMMANDS)
FILE_NAME = re.compile(r"[0-9a-f]{16}\.json")
# What all records of one command say, but for its tasks, and what of it a line keeps, so that people can read the line.
OF_A_COMMAND = (
    "plugin", "method", "model", "tokenizer", "settings", "seeds", "environment", "batch_size", "command",
)  # fmt: skip
NAMED = frozenset({"plugin", "method", "model"})
LONGEST_TEXT = 200

Files = dict[str, bytes]


class ShortLine:
    """A record as a ledger holds it: one short line, and the files beside it that hold the rest."""

    def __init__(self, record: Record) -> None:
        """Split ``record``; nothing is written."""
        self._record = record
        self._content, self.files = shortened(record.content())

    def digest(self) -> str:
        """Return the digest of the whole record."""
        return self._record.digest()

    def to_line(self, **more: str) -> str:
        """Return the line, with key and digest of the whole record (and ``more``) beside the fields."""
        return as_line(self._content | {"key": self._record.key(), "digest": self.digest(), **more})


def shortened(content: Mapping[str, Any]) -> tuple[dict[str, Any], Files]:
    """Return the content of a line that names files beside it, and the bytes of those files by their path.

    Args:
        content: of a whole record, key, digest and chain as they may stand in its line.
    """
    command = {name: content[name] for name in OF_A_COMMAND if name in content}
    parts = {COMMANDS: command} if command else {}
    report = content.get("report")
    if isinstance(report, Mapping) and _first_level(report) != report:
        parts[REPORTS] = dict(report)
    moved = {*command, *(["report"] if REPORTS in parts else [])}
    left = {name: kept(name, value) if name in moved else value for name, value in content.items()}
    line = {name: value for name, value in left.items() if name not in moved or value is not None}
    files = {folder: as_bytes(part) for folder, part in parts.items()}
    if files:
        line[FIELD] = {folder: name_of(file) for folder, file in files.items()}
    return line, {f"{folder}/{name_of(file)}.json": file for folder, file in files.items()}


def kept(name: str, value: Any) -> Any:
    """Return what a line keeps of a field that stands beside it: a name, a report's scalars; None where it is nothing."""
    if name == "report":
        return _first_level(value)
    return {"name": value.get("name")} if name in NAMED and isinstance(value, Mapping) else None


def read(folder: Path, where: str, digest: str) -> dict[str, Any]:
    """Return the fields that stand in one file beside a ledger in ``folder``.

    Args:
        where: ``reports`` or ``commands``.
        digest: the name of the file, as the line gives it.

    Raises:
        ValueError: there is no such file, or it is not what its name says.
    """
    place = f"{where}/{digest}.json"
    path = folder / place
    if not path.is_file():
        raise ValueError(f"{place}, where the rest of it stands, is not beside this file")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{place}, where the rest of it stands, cannot be read: {error.strerror or error}") from error
    content = checked(raw, place, digest)
    fields = {"report": content} if where == REPORTS else content
    if where == COMMANDS and not set(fields) <= set(OF_A_COMMAND):
        raise ValueError(f"{place} holds what no command says")
    return fields


def named(value: Any) -> dict[str, str]:
    """Return the files that the field ``beside`` of a line names: the digest by folder.

    Raises:
        ValueError: it names none that could be there.
    """
    is_one = isinstance(value, dict) and set(value) <= set(FOLDERS)
    if not is_one or not all(
        isinstance(digest, str) and FILE_NAME.fullmatch(f"{digest}.json") for digest in value.values()
    ):
        raise ValueError(f"its field {FIELD} names no files of a ledger")
    return dict(value)


def is_intact(path: Path) -> bool:
    """Whether a file beside a ledger is what its name says."""
    try:
        checked(path.read_bytes(), path.name, path.stem)
    except (OSError, ValueError, RecursionError):
        return False
    return True


def as_line(content: Mapping[str, Any]) -> str:
    """Return the JSON of a line, without the spaces that nobody needs in it."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _first_level(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if _is_scalar(value)}


def _is_scalar(value: Any) -> bool:
    return len(value) <= LONGEST_TEXT if isinstance(value, str) else not isinstance(value, Mapping | list)


def as_bytes(content: Mapping[str, Any]) -> bytes:
    """Return the one text that a file of this content has."""
    return (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode()


def name_of(raw: bytes) -> str:
    """Return what a file of these bytes is called, without its ending."""
    return hashlib.sha256(raw).hexdigest()[:16]


def checked(raw: bytes, place: str, digest: str) -> dict[str, Any]:
    """Return what a file holds. One content has one text, so none hides a field that stands in it twice.

    Args:
        place: how an error calls it.
        digest: its name, without the ending.

    Raises:
        ValueError: it is not what its name says, or no JSON object as the harness writes it.
    """
    if name_of(raw) != digest:
        raise ValueError(f"{place} is not what its name says: it was edited or damaged")
    try:
        content = json.loads(raw)
        is_ours = isinstance(content, dict) and as_bytes(content) == raw
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is no JSON: {printable(error)[:100]}") from error
    if not is_ours:
        raise ValueError(f"{place} is no JSON object as the harness writes it")
    found: dict[str, Any] = content
    return found
