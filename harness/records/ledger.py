"""Read and write files of records, one JSON object a line, losing nothing."""

from __future__ import annotations

import hashlib
import json
import marshal
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import jsonlines
from pydantic import ValidationError
from pydantic_core import from_json

from harness.errors import HarnessError
from harness.folders import append_lines, locked, set_aside, write_atomic
from harness.names import printable
from harness.records import beside, samples
from harness.records.record import COMPUTED, FINITE, SCHEMA, Record, canonical, digest_of_texts, field_text

# Folders of a run that hold the method's own files.
SKIPPED_FOLDERS = {"artefacts"}
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record was read: the file, and the line from 1."""

    file: Path
    line: int


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file: the record in it, or a sentence that says why there is none."""

    origin: Origin
    raw: bytes
    content: dict[str, Any] | None = None
    record: Record | None = None
    problem: str | None = None


class Writable(Protocol):
    """What a ledger takes in: a record, or one whose line leaves out what stands beside the ledger."""

    def digest(self) -> str:
        """Return the digest of the record."""

    def to_line(self, **more: str) -> str:
        """Return its line, with ``more`` beside its fields."""


@dataclass
class Reading:
    """What a file or folder held: the records with where each one stands, and a sentence for each line that is none."""

    records: list[Record] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Take in one line."""
        if line.record is None:
            self.problems.append(f"{printable(line.origin.file)}, line {line.origin.line}: {line.problem}")
        else:
            self.records.append(line.record)
            self.origins.append(line.origin)


def read(path: Path) -> Reading:
    """Read a file of records, or every such file in a folder.

    Raises:
        HarnessError: there is no such file or folder.
    """
    reading, known = Reading(), Parts()
    for file in record_files(path):
        for line in lines(file, known):
            reading.add(line)
    return reading


def read_file(path: Path) -> Reading:
    """Read one file of records; a bad line is told by file and line, the rest is used."""
    reading = Reading()
    for line in lines(path):
        reading.add(line)
    return reading


def record_files(path: Path) -> list[Path]:
    """Return ``path`` itself, or the files of records below it: no samples, artefacts or hidden files.

    Raises:
        HarnessError: there is no such file or folder.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise HarnessError(f"no records at '{printable(path)}': there is no such file or folder")
    return [file for file in sorted(path.rglob("*.jsonl")) if _holds_records(file.relative_to(path))]


def lines(path: Path, known: Parts | None = None) -> Iterator[Line]:
    """Yield the lines of a file that are not blank, each with its record or with what is wrong.

    Args:
        known: parts of records read before, to share equal ones.

    Raises:
        HarnessError: the file cannot be read.
    """
    known = known or Parts()
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                text = raw.strip().removeprefix(BOM)
                if text:
                    yield _line(Origin(path, number), text, known)
    except OSError as error:
        raise HarnessError(f"cannot read '{printable(path)}': {error.strerror or error}") from error


def append(path: Path, records: Sequence[Writable]) -> None:
    """Add ``records`` to the ledger at ``path``: all of them are on disk when this returns, or none is in the file.

    Each line carries a chain value over the line before, so a line that is removed, moved or put between is seen. What a
    killed writer left without its end is moved to ``<name>.torn`` first.

    Raises:
        OSError: the disk refuses; the file is as it was then.
    """
    append_lines(path, lambda last: chained(records, _chain_of(last)))


def write(path: Path, records: Sequence[Record]) -> None:
    """Write a file of ``records`` that appears whole or not at all, in place of the one at ``path``.

    Raises:
        OSError: the disk refuses; the old file is intact then.
    """
    write_atomic(path, "".join(record.to_line() + "\n" for record in records))


def chained(records: Sequence[Writable], last: str = "") -> Iterator[str]:
    """Yield the ledger lines of ``records``; ``last`` is the chain value before the first of them."""
    for record in records:
        last = next_chain(last, record.digest())
        yield record.to_line(chain=last)


def next_chain(last: str, digest: str) -> str:
    """Return the chain value of a line whose record has ``digest``; ``last`` is that of the line before, or empty."""
    return hashlib.sha256(f"{last}\n{digest}".encode()).hexdigest()


@dataclass(frozen=True)
class Repair:
    """What ``repair`` did: lines kept, lines set aside (their sentences), and where the old file is kept."""

    kept: int
    set_aside: list[str]
    backup: Path | None


def repair(path: Path) -> Repair:
    """Move the lines of ``path`` that are no records to ``<name>.torn``, keep the old file as ``<name>.backup-DIGEST``.

    The chain of a ledger is made anew over what stays. A file without bad lines is left alone.

    Raises:
        OSError: the disk refuses; the file is as it was then.
    """
    with locked(path):
        read_lines = list(lines(path))
        bad = [line for line in read_lines if line.record is None]
        if not bad:
            return Repair(len(read_lines), [], None)
        old = path.read_bytes()
        backup = path.with_name(f"{path.name}.backup-{hashlib.sha256(old).hexdigest()[:8]}")
        write_atomic(backup, old)
        set_aside(path, b"".join(line.raw + b"\n" for line in bad))
        good = [line for line in read_lines if line.record is not None]
        is_chained = any(line.content is not None and "chain" in line.content for line in good)
        new = (
            "".join(text + "\n" for text in chained([_as_it_stood(line) for line in good])).encode()
            if is_chained
            else b"".join(line.raw + b"\n" for line in good)
        )
        write_atomic(path, new)
        return Repair(len(good), [f"line {line.origin.line}: {line.problem}" for line in bad], backup)


class Parts:
    """Parts of records that were read already: the thousands of records of a board share models, settings, versions."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes | str], _Known] = {}
        self._names: dict[frozenset[str], set[str]] = {}
        self._files: dict[tuple[Path, str, str], dict[str, tuple[_Known, str]]] = {}

    def of(self, name: str, content: Any) -> _Known:
        """Return the part called ``name`` with this content: made, written as text and counted once."""
        if name not in SHARED:
            # A finite float, the most frequent case, is its own JSON.
            text = repr(content) if type(content) is float and math.isfinite(content) else field_text(name, content)
            return _Known(content, text, _count_strings(content))
        key = (name, content if isinstance(content, str) else marshal.dumps(content))
        known = self._known.get(key)
        if known is None:
            part, text = _part(name, content), field_text(name, content)
            known = self._known[key] = _Known(part, text, _count_strings(content))
        return known

    def beside(self, content: dict[str, Any], folder: Path) -> dict[str, _Known]:
        """Return the fields that stand beside a ledger in ``folder``, by the files that a line with this content names.

        Raises:
            ValueError: a file is not there or not what its name says, or the line says otherwise.
        """
        names = beside.named(content.get(beside.FIELD, {}))
        if names and "digest" not in content:
            raise ValueError("it leaves out fields and has no digest that vouches for them")
        found: dict[str, _Known] = {}
        for where, digest in names.items():
            for name, (known, left) in self._file(folder, where, digest).items():
                found[name] = known
                if canonical(content.get(name)) != left:
                    raise ValueError(f"its {name} is not what {where}/{digest}.json says: it was edited or damaged")
        return found

    def _file(self, folder: Path, where: str, digest: str) -> dict[str, tuple[_Known, str]]:
        """Return the fields in a file beside a ledger, each with what a line that names the file keeps of it."""
        place = (folder, where, digest)
        if place not in self._files:
            fields = beside.read(folder, where, digest)
            self._files[place] = {n: (self.of(n, v), canonical(beside.kept(n, v))) for n, v in fields.items()}
        return self._files[place]

    def record(self, fields: dict[str, Any]) -> Record:
        """Return the record with these parts as fields."""
        record = Record.model_validate(fields, context=FINITE)
        # pydantic notes in every record which fields were given: the same few sets, 2 kB each.
        names = record.__pydantic_fields_set__
        object.__setattr__(record, "__pydantic_fields_set__", self._names.setdefault(frozenset(names), names))
        return record


@dataclass(frozen=True, slots=True)
class _Known:
    """A part of a record, its canonical JSON, and how many strings are in it, names included."""

    part: Any
    text: str
    strings: int


# What many records have in common; not the numbers, and not what only one record has.
SHARED = frozenset(Record.model_fields) - {"value", "stderr"}


def _part(name: str, content: Any) -> Any:
    kind: Any = Record.model_fields[name].annotation if isinstance(content, dict) else None
    try:
        return kind.model_validate(content) if hasattr(kind, "model_validate") else content
    except ValidationError:
        return content  # the record's own validation says it with the name of the part


def _count_strings(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_count_strings, value.values()))
    if isinstance(value, list):
        return sum(map(_count_strings, value))
    return isinstance(value, str)


def _as_it_stood(line: Line) -> Writable:
    assert line.record is not None and line.content is not None
    return beside.ShortLine(line.record) if beside.FIELD in line.content else line.record


def _holds_records(relative: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in relative.parts)
    return not (is_hidden or SKIPPED_FOLDERS & set(relative.parts[:-1]) or relative.name.startswith(samples.PREFIX))


def _line(origin: Origin, text: bytes, known: Parts) -> Line:
    try:
        # jsonlines checks that the line is one JSON object; a reader per line keeps its neighbours.
        content = jsonlines.Reader([text.decode()], loads=_loads).read(type=dict)
        return Line(origin, text, content, _parse(content, text, known, origin.file.parent))
    except (jsonlines.Error, ValueError, RecursionError) as error:
        return Line(origin, text, problem=_cause(error))


def _loads(text: str) -> Any:
    return from_json(text, allow_inf_nan=False)


def _parse(content: dict[str, Any], text: bytes, known: Parts, folder: Path) -> Record:
    version = content.get("schema_version")
    if type(version) is not int:
        raise ValueError("no record: it has no schema_version")
    if version > SCHEMA:
        raise ValueError(f"record of schema {version}, newer than this harness reads ({SCHEMA}); upgrade token-harness")
    moved = known.beside(content, folder)
    fields, texts = {name: part.part for name, part in moved.items()}, {name: part.text for name, part in moved.items()}
    strings = len(content)
    for name, value in content.items():
        if name in COMPUTED or name in moved:
            strings += _count_strings(value)
            continue
        part = known.of(name, value)
        fields[name], texts[name] = part.part, part.text
        strings += part.strings
    if b"\\" in text or 2 * strings != text.count(b'"'):
        _refuse_doubles(text)
    if "digest" in content and content["digest"] != digest_of_texts(texts):
        raise ValueError("its content does not give its digest: it was edited or damaged")
    return known.record(fields)


def _refuse_doubles(text: bytes) -> None:
    """Raise ``ValueError`` when an object names a field twice: readers differ on which of the two counts."""

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(content := dict(pairs)) != len(pairs):
            raise ValueError("a field stands in it twice")
        return content

    json.loads(text, object_pairs_hook=check)


def _chain_of(last: bytes) -> str:
    """Return the chain value of a line; empty when there is none, and a chain begins."""
    try:
        return str(json.loads(last).get("chain", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _cause(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        field_name = ".".join(str(part) for part in first["loc"])
        return printable(f"field {field_name}: {first['msg']}" if field_name else first["msg"])
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    inner = error.__cause__ if isinstance(error, jsonlines.Error) else error
    # The parsers count lines of their own, of which they saw one.
    text = re.sub(r" at line 1 (?=column \d)", " at ", str(inner or error).split(" (line ")[0])
    return printable(text.splitlines()[0][:200])
