"""Read and write files of records, one JSON object a line, losing nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import jsonlines
from pydantic import ValidationError
from pydantic_core import from_json

from harness.errors import HarnessError
from harness.folders import append_lines, write_atomic
from harness.foreign import finding
from harness.names import printable
from harness.plain_files import Found, find_plain, open_plain
from harness.records import conflicts, elsewhere, samples, withdrawals
from harness.records.parts import Parts, count_strings
from harness.records.record import COMPUTED, SCHEMA, Record, digest_of_texts

# Folders of a run that hold the method's own files.
SKIPPED_FOLDERS = {"artefacts"}
# No line of a record is longer; one that is, is not held in memory.
MOST_LINE_BYTES = 100_000_000
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


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a line is no record, or a file (line 0) cannot be read."""

    origin: Origin
    sentence: str

    def __str__(self) -> str:
        """Return the sentence with its place."""
        line = f", line {self.origin.line}" if self.origin.line else ""
        return f"{printable(self.origin.file)}{line}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A record that stands in a ledger and was taken back, and why."""

    record: Record
    origin: Origin
    reason: str


@dataclass
class Reading:
    """What a file or folder held: the records with where each one stands, and what is wrong with lines and files.

    ``withdrawn`` are records that were taken back, which count nowhere, with the reason.
    ``passed_over`` are sentences for what is called like a file of records and is none: folders, pipes, links to nothing.
    """

    records: list[Record] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    bad: list[Problem] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    withdrawn: list[Withdrawn] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """A sentence for each line that is no record, and for each file that cannot be read."""
        return [str(problem) for problem in self.bad]

    def add(self, line: Line) -> None:
        """Take in one line."""
        if line.record is None:
            self.bad.append(Problem(line.origin, str(line.problem)))
        else:
            self.records.append(line.record)
            self.origins.append(line.origin)

    def set_withdrawn_aside(self) -> None:
        """Take out the records that a file beside their ledger withdraws."""
        folders = list(dict.fromkeys(origin.file.parent for origin in self.origins))
        withdrawn = withdrawals.read(folders)
        self.bad += [Problem(Origin(path, 0), sentence) for path, sentence in withdrawn.problems]
        if not withdrawn.reasons:
            return
        pairs = list(zip(self.records, self.origins, strict=True))
        reasons = [withdrawn.reasons.get((origin.file.parent, record.digest())) for record, origin in pairs]
        for (record, origin), reason in zip(pairs, reasons, strict=True):
            if reason is not None:
                self.withdrawn.append(Withdrawn(record, origin, reason))
        self.records = [record for (record, _), reason in zip(pairs, reasons, strict=True) if reason is None]
        self.origins = [origin for (_, origin), reason in zip(pairs, reasons, strict=True) if reason is None]

    def add_file(self, path: Path, known: Parts | None = None) -> None:
        """Take in the lines of a file; one that cannot be read is a problem, what was read of it is kept."""
        try:
            for line in lines(path, known):
                self.add(line)
        except HarnessError as error:
            self.bad.append(Problem(Origin(path, 0), str(error)))

    def add_foreign(self, path: Path, known: Parts) -> None:
        """Take in the scores of another tool's file, but for those that were exported from records read before."""
        found, problems = elsewhere.records(path, known)
        here = {record.digest() for record in self.records} if any(_copied(record) for record in found) else set()
        for record in found:
            if _copied(record) not in here:
                self.records.append(record)
                self.origins.append(Origin(path, 0))
        self.bad += [Problem(Origin(path, 0), problem) for problem in problems]


def read(path: Path, *, with_foreign: bool = True) -> Reading:
    """Read a file of records, or every such file in a folder.

    Args:
        path: of records, or of results that another tool wrote.
        with_foreign: read the results of other tools in a folder, too (``harness.foreign``); they come last.

    Raises:
        HarnessError: there is no such file or folder, or the one file cannot be read.
    """
    reading, known = Reading(), Parts()
    if path.is_file():
        if finding.kind_of(path) is not None:
            reading.add_foreign(path, known)
            return reading
        _check_is_known(path)
        for line in lines(path, known):
            reading.add(line)
    else:
        found = _found(path)
        reading.passed_over = found.passed_over
        for file in found.files:
            reading.add_file(file, known)
        for file in finding.find(path) if with_foreign else ():
            reading.add_foreign(file, known)
    reading.set_withdrawn_aside()
    return reading


def read_file(path: Path) -> Reading:
    """Read one file of records; a bad line is told by file and line, the rest is used."""
    reading = Reading()
    reading.add_file(path)
    return reading


def record_files(path: Path) -> list[Path]:
    """Return ``path`` itself, or the files of records below it: no samples, artefacts or hidden files.

    Raises:
        HarnessError: there is no such file or folder.
    """
    return [path] if path.is_file() else _found(path).files


def lines(path: Path, known: Parts | None = None) -> Iterator[Line]:
    """Yield the lines of a file that are not blank, each with its record or with what is wrong.

    Args:
        known: parts of records read before, to share equal ones.

    Raises:
        HarnessError: the file cannot be read.
    """
    known = known or Parts()
    for number, raw in raw_lines(path):
        text = raw.strip().removeprefix(BOM)
        if len(raw) > MOST_LINE_BYTES:
            yield Line(Origin(path, number), b"", problem=f"a line of more than {MOST_LINE_BYTES / 1e6:.0f} MB")
        elif conflicts.is_mark(text):
            yield Line(Origin(path, number), text, problem=conflicts.sentence(text, path))
        elif text:
            yield _line(Origin(path, number), text, known)


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file with their numbers, from 1; of one that is too long the first bytes, more than are allowed.

    Raises:
        HarnessError: the file cannot be read.
    """
    number, most = 0, MOST_LINE_BYTES + 1
    try:
        with open_plain(path) as file:
            while line := file.readline(most):
                number += 1
                yield number, line
                while len(line) == most and not line.endswith(b"\n"):
                    line = file.readline(most)
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
    return hashlib.sha256(f"{last}\n{digest}".encode("utf-8", "surrogatepass")).hexdigest()


def _copied(record: Record) -> str | None:
    """Return the digest of the record of ours that a foreign one was made of, None where it was not."""
    digest = record.report.get("record_digest")
    return digest if isinstance(digest, str) else None


def _check_is_known(path: Path) -> None:
    """Raise ``HarnessError`` for one file that is called like another tool's result, and is neither one nor one of records."""
    if path.suffix not in {".json", ".eval"}:
        return
    first = next((raw.strip() for _, raw in raw_lines(path) if raw.strip()), b"")
    if not (first.startswith(b"{") and first.endswith(b"}")):
        raise HarnessError(
            f"'{printable(path)}' is neither a file of records nor a result of {finding.KNOWN} in a form that is known here"
        )


def _found(folder: Path) -> Found:
    if not folder.is_dir():
        raise HarnessError(f"no records at '{printable(folder)}': there is no such file or folder")
    found = find_plain(folder, is_wanted=_is_called_like_records, is_skipped=_is_no_folder_of_records)
    return Found([path for path in found.files if not finding.lies_beside_results(path)], found.passed_over)


def _is_called_like_records(name: str) -> bool:
    return name.endswith(".jsonl") and not name.startswith((".", samples.PREFIX))


def _is_no_folder_of_records(name: str) -> bool:
    return name.startswith(".") or name in SKIPPED_FOLDERS


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
            strings += count_strings(value)
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
