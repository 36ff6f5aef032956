"""Lines that a file of records may hold, each with what reading it has to give: a record, nothing, or a complaint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from made_records import CONTENT, made

from harness.records import ledger

RECORD, NOTHING, COMPLAINT = "record", "nothing", "complaint"

LINE = made(7).to_line()
BYTES = LINE.encode()


# What a fuzzer does to a file, at a place and with some bytes.
CHANGES: dict[str, Callable[[bytes, int, bytes], bytes]] = {
    "replace": lambda content, at, more: content[:at] + more + content[at + len(more) :],
    "insert": lambda content, at, more: content[:at] + more + content[at:],
    "delete": lambda content, at, more: content[:at] + content[at + len(more) :],
    "cut": lambda content, at, more: content[:at],
    "repeat": lambda content, at, more: content[: at + 40 * len(more)] + content[at:],
    "flip": lambda content, at, more: (
        content[:at] + bytes(byte ^ 1 << len(more) % 8 for byte in content[at : at + 1]) + content[at + 1 :]
    ),
}
ORIGINALS = [made(number, value=number / 3).to_line() for number in range(3)]
CONTENT_OF_FILE = "".join(line + "\n" for line in ORIGINALS).encode()


def changed(changes: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Return a file of three records after ``changes``."""
    content = CONTENT_OF_FILE
    for name, at, more in changes:
        content = CHANGES[name](content, at % (len(content) + 1), more)
    return content


def wrong_with(content: bytes, path: Path) -> list[str]:
    """Write ``content`` to ``path``, read it, append to it, and return what went wrong."""
    path.write_bytes(content)
    path.with_name(f"{path.name}.torn").unlink(missing_ok=True)
    lines = list(ledger.lines(path))
    found = [
        f"line {line.origin.line} gives a wrong number"
        for line in lines
        if line.record is not None and _has_digest(line.raw) and line.record.to_line() not in ORIGINALS
    ]
    before = [line.record.to_line() for line in lines if line.record is not None]
    ledger.append(path, [made(9)])
    after = [line.record.to_line() for line in ledger.lines(path) if line.record is not None]
    if after != [*before, made(9).to_line()]:
        found.append("an append changed what is read")
    return found


def _has_digest(raw: bytes) -> bool:
    """Return whether a line still says what its content has to give; without that nothing can tell that it was damaged."""
    return "digest" in json.loads(raw)


def with_text(path: str, text: str, *, digest: bool = False) -> bytes:
    """Return a record's line with raw JSON ``text`` as the value at a dotted path; ``digest``: keep the old digest."""
    content: dict[str, Any] = json.loads(LINE) if digest else json.loads(json.dumps(CONTENT))
    *parents, last = path.split(".")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = "HERE"
    return json.dumps(content, ensure_ascii=False).replace('"HERE"', text).encode()


LINES: dict[str, tuple[bytes, str]] = {
    "torn at once": (BYTES[:10], COMPLAINT),
    "torn before the last brace": (BYTES[:-1], COMPLAINT),
    "torn within a character": (BYTES[: BYTES.index("🎉".encode()) + 2], COMPLAINT),
    "two records on one line": (BYTES + BYTES, COMPLAINT),
    "a torn record with a whole one glued on": (BYTES[:200] + BYTES, COMPLAINT),
    "blank": (b"", NOTHING),
    "spaces and tabs": (b"  \t ", NOTHING),
    "a carriage return": (b"\r", NOTHING),
    "a byte order mark alone": (b"\xef\xbb\xbf", NOTHING),
    "a byte order mark before a record": (b"\xef\xbb\xbf" + BYTES, RECORD),
    "a record that ends as Windows ends lines": (BYTES + b"\r", RECORD),
    "a record with spaces around it": (b"  " + BYTES + b"\t", RECORD),
    "a record with line separators of Unicode in it": (with_text("report.text", '"a\u2028b\u2029c\u0085d"'), RECORD),
    "a record of a megabyte": (made(7, size=1_000_000).to_line().encode(), RECORD),
    "a record with fields nobody knows": (with_text("judge", '{"name": [1, null]}'), RECORD),
    "Latin-1": (BYTES.replace("ß".encode(), b"\xdf"), COMPLAINT),
    "UTF-16": (LINE.replace("\n", "").encode("utf-16-le").replace(b"\n", b" "), COMPLAINT),
    "an overlong form of NUL": (BYTES.replace(b"cpu", b"c\xc0\x80u"), COMPLAINT),
    "a surrogate in UTF-8": (BYTES.replace(b"cpu", b"c\xed\xa0\x80u"), COMPLAINT),
    "zeros, as after a power cut": (b"\0" * 512, COMPLAINT),
    "a raw control character": (BYTES.replace(b"cpu", b"c\x01u"), COMPLAINT),
    "a field twice": (with_text("value", '0.5, "value": 0.75'), COMPLAINT),
    "a field of a part twice": (with_text("counts.docs", '4, "docs": 5'), COMPLAINT),
    "a digest twice": (BYTES[:-1] + b', "digest": "0"}', COMPLAINT),
    "a value that is NaN": (with_text("value", "NaN"), COMPLAINT),
    "an infinite error": (with_text("stderr", "-Infinity"), COMPLAINT),
    "NaN deep in a report": (with_text("report.loss", "[1, [NaN]]"), COMPLAINT),
    "a number too large for a float": (with_text("value", "1e999"), COMPLAINT),
    "a number too large for a float in a report": (with_text("report.loss", "-1e999"), COMPLAINT),
    "a count of 5000 digits": (with_text("counts.docs", "9" * 5000), COMPLAINT),
    "a value of 400 digits": (with_text("value", "9" * 400), COMPLAINT),
    "a lone surrogate": (with_text("model.name", '"\\ud800"'), COMPLAINT),
    "a lone surrogate in a report": (with_text("report.text", '"\\udfff"'), COMPLAINT),
    "a lone surrogate in the name of an option": (with_text("method.options", '{"\\ud800": 1}'), COMPLAINT),
    "no value, and no word why": (with_text("value", "null"), COMPLAINT),
    "a value that is a list": (with_text("value", "[0.5]"), COMPLAINT),
    "a value that was edited": (with_text("value", "0.9", digest=True), COMPLAINT),
    "a field that was added to what has a digest": (with_text("judge", "1", digest=True), COMPLAINT),
    "a list": (b"[" + BYTES + b"]", COMPLAINT),
    "null": (b"null", COMPLAINT),
    "a number": (b"17", COMPLAINT),
    "words": (b"just words", COMPLAINT),
    "an empty object": (b"{}", COMPLAINT),
    "a conflict marker": (b"<<<<<<< HEAD", COMPLAINT),
    "a comma too many": (BYTES[:-1] + b",}", COMPLAINT),
    "single quotes": (b"{'schema_version': 1}", COMPLAINT),
    "a hundred thousand brackets": (b"[" * 100_000, COMPLAINT),
    "a report nested a hundred thousand deep": (with_text("report.deep", "[" * 100_000 + "]" * 100_000), COMPLAINT),
    "a report nested a hundred deep": (with_text("report.deep", "[" * 100 + "]" * 100), RECORD),
    "a version that is text": (with_text("schema_version", '"1"'), COMPLAINT),
    "a version that is true": (with_text("schema_version", "true"), COMPLAINT),
    "a newer version": (with_text("schema_version", "2"), COMPLAINT),
    "a status nobody knows": (with_text("status", '"perfect"'), COMPLAINT),
    "a count of 400 digits": (with_text("counts.docs", "9" * 400), COMPLAINT),
    "a negative count": (with_text("counts.docs", "-4"), COMPLAINT),
    "a value that is true": (with_text("value", "true"), COMPLAINT),
    "a value that is text": (with_text("value", '"0.5"'), COMPLAINT),
    "a version below the first": (with_text("schema_version", "0"), COMPLAINT),
}
