"""Which records of a results folder may be published: checked, without secrets, each with its sample file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.names import printable
from harness.records import ledger, samples
from harness.records.labels import tool_label
from harness.records.ledger import Origin, Reading
from harness.records.record import Record
from harness.redaction import redact_json, redactor

MOST_SENTENCES = 10


@dataclass(frozen=True)
class SampleFile:
    """A sample file as it is published: secrets taken out line by line, and digested after that."""

    source: Path
    sha256: str
    rows: int

    def blocks(self) -> Iterator[bytes]:
        """Yield the lines to publish."""
        return redacted_lines(self.source)


@dataclass(frozen=True)
class Item:
    """One record to publish, as it is published, and where it was read."""

    record: Record
    origin: Origin
    samples: SampleFile | None


@dataclass(frozen=True)
class Selection:
    """What is published, a sentence for each record that is not, and one for each that a person should look at."""

    items: list[Item]
    refused: list[str]
    warnings: list[str]


def select(path: Path, *, allow_partial: bool, skip_refused: bool, note: Callable[[str], None]) -> Selection:
    """Return the records at ``path`` that may be published.

    Records are checked as they lie there (form, digest, score against samples), then secrets are taken out.

    Args:
        allow_partial: take runs over some of a task's documents, too.
        skip_refused: leave out what may not be published, and tell; without it that is an error.
        note: is told how far it is.

    Raises:
        HarnessError: nothing may be published, or something may not and ``skip_refused`` is off.
    """
    from harness.verifying import verify

    reading = ledger.read(path)
    for entry in reading.passed_over:
        note(f"passed over {entry}")
    note(f"checking {len(reading.records)} records")
    refused: dict[Origin, str] = {}
    warnings: dict[Origin, str] = {}
    for record, origin in zip(reading.records, reading.origins, strict=True):
        if reason := _reason_against(record, allow_partial=allow_partial):
            refused.setdefault(origin, reason)
    for finding in verify.examine(reading, path).findings:
        found = refused if finding.severity == "error" else warnings
        found.setdefault(Origin(finding.file, finding.line), finding.sentence)
    if refused and not skip_refused:
        raise HarnessError(
            f"{len(refused)} of what is at '{printable(path)}' may not be published, so nothing is (--skip-refused "
            f"publishes the rest): {'; '.join(grouped(refused))}"
        )
    kept = [n for n, origin in enumerate(reading.origins) if not {origin, Origin(origin.file, 0)} & refused.keys()]
    items = _without_doubles(_items(reading, kept, note))
    if not items:
        reasons = f": {'; '.join(grouped(refused))}" if refused else ""
        raise HarnessError(f"there are no records to publish at '{printable(path)}'{reasons}")
    return Selection(items, grouped(refused), grouped(warnings))


def grouped(sentences: Mapping[Origin, str]) -> list[str]:
    """Return each different sentence once, with the place of the first and how often it holds."""
    places: dict[str, list[Origin]] = {}
    for origin, sentence in sentences.items():
        places.setdefault(sentence, []).append(origin)
    shown = [
        f"{where(origins[0])}{f' and {len(origins) - 1} more' if len(origins) > 1 else ''}: {sentence}"
        for sentence, origins in places.items()
    ]
    more = [f"and {len(shown) - MOST_SENTENCES} other reasons"] if len(shown) > MOST_SENTENCES else []
    return shown[:MOST_SENTENCES] + more


def where(origin: Origin) -> str:
    """Return file and line of a record, for a sentence."""
    return printable(origin.file) + (f", line {origin.line}" if origin.line else "")


def redacted_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a sample file, plain or compressed, without secrets."""
    clean = redactor()
    yield from (_redacted(line, clean) for line in samples.lines(path))


def _redacted(line: bytes, clean: Callable[[str], str]) -> bytes:
    return clean(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _reason_against(record: Record, *, allow_partial: bool) -> str | None:
    name = printable(record.task.name)
    if record.foreign is not None:
        return (
            f"task '{name}' was measured by {tool_label(record)}, not by this harness, and its files do not state what a "
            "record has to; run it with `harness eval` to publish it"
        )
    if record.status != "ok":
        return f"task '{name}' has no valid score ({printable(record.metric.name)} is {record.status})"
    if record.is_partial and not allow_partial:
        asked = f"{record.counts.docs} of {record.task.size or 'more'} documents"
        return f"task '{name}' was asked only {asked} (--allow-partial takes it all the same)"
    return None


def _items(reading: Reading, numbers: Sequence[int], note: Callable[[str], None]) -> list[Item]:
    known: dict[Path, SampleFile] = {}
    items = []
    for number in numbers:
        record, origin = reading.records[number], reading.origins[number]
        path = samples.find(record, origin.file)
        if path is not None and path not in known:
            if path.stat().st_size > 1 << 24:
                note(f"reading {printable(path.name)}")
            known[path] = _sample_file(path, record, origin)
        file = known[path] if path is not None else None
        items.append(Item(_as_published(record, file), origin, file))
    return items


def _sample_file(path: Path, record: Record, origin: Origin) -> SampleFile:
    before, after, rows, clean = hashlib.sha256(), hashlib.sha256(), 0, redactor()
    for line in samples.lines(path):
        before.update(line)
        after.update(_redacted(line, clean))
        rows += 1
    if record.samples is not None and before.hexdigest() != record.samples.sha256:
        raise HarnessError(
            f"{where(origin)}: the sample file {printable(path)} does not have the digest the record names"
        )
    return SampleFile(path, after.hexdigest(), rows)


def _as_published(record: Record, file: SampleFile | None) -> Record:
    content = record.content()
    clean = redact_json(content)
    if record.samples is not None:
        path = {"path": samples.published_name(file.sha256 if file else record.samples.sha256)}
        clean["samples"] |= path | ({"sha256": file.sha256} if file else {})
    return record if clean == content else Record.model_validate(clean)


def _without_doubles(items: list[Item]) -> list[Item]:
    """Return each measurement once; the same one with another content is an error."""
    first: dict[str, Item] = {}
    for item in items:
        known = first.setdefault(item.record.key(), item)
        if known.record.digest() != item.record.digest():
            raise HarnessError(
                f"{where(item.origin)} and {where(known.origin)} are one measurement (key {item.record.key()}) made "
                "twice; publish one of the two"
            )
    return list(first.values())
