"""Read and write files of records, one JSON object a line, losing nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jsonlines
from filelock import FileLock
from pydantic import ValidationError

from harness.errors import HarnessError
from harness.folders import write_atomic
from harness.names import printable
from harness.records.record import SCHEMA, Record

RECORDS_FILE = "records.jsonl"
# Folders of a run that hold the method's own files, and files that hold samples.
SKIPPED_FOLDERS = {"artefacts"}
BOM = b"\xef\xbb\xbf"
SAMPLES_PREFIX = "samples_"


@dataclass
class Reading:
    """What a file or folder held: the records, and a sentence for each line that is none."""

    records: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_file(path: Path) -> Reading:
    """Read one file of records; a bad line is told by file and line, the rest is used."""
    reading = Reading()
    for number, line in _numbered_lines(path):
        try:
            # jsonlines checks that the line is one JSON object; a reader per line keeps its neighbours.
            reading.records.append(_parse(jsonlines.Reader([line.decode()]).read(type=dict)))
        except (jsonlines.Error, ValueError, RecursionError) as error:
            reading.problems.append(f"{printable(path)}, line {number}: {_cause(error)}")
    return reading


def read(path: Path) -> Reading:
    """Read a file of records, or every such file in a folder.

    Raises:
        HarnessError: there is no such file or folder.
    """
    if path.is_file():
        return read_file(path)
    if not path.is_dir():
        raise HarnessError(f"no records at '{printable(path)}': there is no such file or folder")
    total = Reading()
    for file in sorted(path.rglob("*.jsonl")):
        relative = file.relative_to(path)
        is_hidden = any(part.startswith(".") for part in relative.parts)
        if is_hidden or SKIPPED_FOLDERS & set(relative.parts[:-1]) or file.name.startswith(SAMPLES_PREFIX):
            continue
        part = read_file(file)
        total.records += part.records
        total.problems += part.problems
    return total


def merge(path: Path, new: Sequence[Record]) -> None:
    """Add ``new`` to the file at ``path``; a record with the same key takes the place of the older one.

    The file is rewritten whole, by temporary file, sync and rename under a lock, so a reader or a crash sees all of
    the old or all of the new, and two runs that end together both stay. Lines that are no records are kept as they are.

    Raises:
        OSError: the disk refuses; the old file is intact then.
    """
    replaced = {record.key() for record in new}
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / f".{path.name}.lock"):
        old = path.read_bytes().split(b"\n") if path.exists() else []
        kept = [line for line in old if line.strip() and _key(line) not in replaced]
        lines = [*kept, *(record.to_line().encode() for record in new)]
        write_atomic(path, b"".join(line + b"\n" for line in lines))


def _numbered_lines(path: Path) -> Iterable[tuple[int, bytes]]:
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        line = raw.strip().removeprefix(BOM)
        if line:
            yield number, line


def _key(line: bytes) -> str | None:
    """Return the key of the record in ``line``, None when it holds no record."""
    try:
        return _parse(json.loads(line.removeprefix(BOM))).key()
    except (ValueError, RecursionError):
        return None


def _parse(content: object) -> Record:
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}, where an object is due")
    version = content.get("schema_version")
    if not isinstance(version, int):
        raise ValueError("no record: it has no schema_version")
    if version > SCHEMA:
        raise ValueError(f"record of schema {version}, newer than this harness reads ({SCHEMA}); upgrade token-harness")
    return Record.model_validate({name: value for name, value in content.items() if name != "key"})


def _cause(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        field_name = ".".join(str(part) for part in first["loc"])
        return printable(f"field {field_name}: {first['msg']}" if field_name else first["msg"])
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    inner = error.__cause__ if isinstance(error, jsonlines.Error) else error
    # The reader counts lines of its own, of which it saw one.
    text = inner.msg if isinstance(inner, json.JSONDecodeError) else str(inner or error).split(" (line ")[0]
    return printable(text.splitlines()[0][:200])
