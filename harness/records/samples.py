"""The sample file of a record: found beside it and read row by row, plain or compressed, within bounds whatever it holds."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from harness.errors import HarnessError
from harness.foreign import reading as foreign
from harness.names import printable
from harness.plain_files import open_plain
from harness.records import rows as row_form

if TYPE_CHECKING:
    from harness.records.record import Record

PREFIX = "samples_"
# Beside a board's record files: sample files named by their content.
PUBLISHED_FOLDER = "samples"
# The longest row, which is held in memory, and what a compressed file may grow to.
MOST_LINE_BYTES = 5_000_000
MOST_SAMPLE_BYTES = 2_000_000_000
MOST_FILTERS = 1_000
BLOCK = 1 << 20
BOM = b"\xef\xbb\xbf"

Row = dict[str, Any]


def published_name(sha256: str) -> str:
    """Return the path of a published sample file, relative to the folder of the record file."""
    return f"{PUBLISHED_FOLDER}/{sha256[:16]}.jsonl.gz"


def find(record: Record, file: Path) -> Path | None:
    """Return the sample file of a record that was read from ``file``, None when it is not there.

    Only what lies below the folder of ``file`` is found, whatever path the record names. What is found may be no plain
    file; whoever reads it is told.
    """
    if record.samples is None:
        return None
    root = file.parent.resolve()
    found = None
    for name in (record.samples.path, published_name(record.samples.sha256)):
        try:
            path = (root / name).resolve()
            if path != root and path.is_relative_to(root) and path.exists():
                if path.is_file():
                    return path
                found = found or path
        except (OSError, RuntimeError, ValueError):  # a name no file system takes, links in a circle
            continue
    return found


def rows(path: Path, *, most_docs: int | None = None, digest: Any = None) -> Iterator[Row]:
    """Yield the rows of a sample file as lm-eval writes them: one for each document and filter.

    Args:
        path: whatever lies there.
        most_docs: how many documents there may be, each once for each filter; None where no record says so.
        digest: takes in the uncompressed content as it is read, such as ``hashlib.sha256()``.

    Raises:
        HarnessError: the file cannot be read, is too large, or a line is no such row; the line is named.
    """
    for _, row in placed_rows(path, most_docs=most_docs, digest=digest):
        yield row


def placed_rows(path: Path, *, most_docs: int | None = None, digest: Any = None) -> Iterator[tuple[int, Row]]:
    """Yield each row as ``rows`` does, with the place in the uncompressed content where it begins."""
    start, docs, name = 0, Counter[str](), printable(path)
    for number, line in enumerate(lines(path), start=1):
        where = f"{name}, line {number}"
        row = parsed(line, where)
        if most_docs is not None:
            chosen = row.get("filter", "none")
            docs[chosen] += 1
            if docs[chosen] > most_docs or len(docs) > MOST_FILTERS:
                raise HarnessError(f"{where}: more rows than the {most_docs} documents that its record counts")
        if digest is not None:
            digest.update(line)
        yield start, row
        start += len(line)


def row_at(path: Path, start: int) -> Row:
    """Return the row that begins at a place ``placed_rows`` gave.

    Raises:
        HarnessError: it is not there any more.
    """
    with _reading(path) as file:
        file.seek(start)
        line = file.readline(MOST_LINE_BYTES + 1)
    return parsed(line, f"{printable(path)}, byte {start}")


def parsed(line: bytes, where: str) -> Row:
    """Return the row on a line, as lm-eval writes it.

    Args:
        line: with its end or without.
        where: what the error begins with.

    Raises:
        HarnessError: it is none.
    """
    if len(line) > MOST_LINE_BYTES:
        raise _too_long(where)
    try:
        content = json.loads(line.removeprefix(BOM).decode())
        if line.count(b"[") + line.count(b"{") > row_form.MOST_LEVELS and row_form.is_too_deep(content):
            raise RecursionError
        if b"\\ud" in line or b"\\uD" in line:
            json.dumps(content, ensure_ascii=False).encode()
        return row_form.checked(content)
    except RecursionError as error:
        raise HarnessError(f"{where}: it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise HarnessError(f"{where}: it holds half of a character (a lone surrogate), which is no text") from error
    except ValueError as error:
        raise HarnessError(f"{where}: {printable(error)[:200]}") from error


def lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a sample file, plain or compressed; no longer one than allowed is ever in memory.

    Raises:
        HarnessError: it cannot be read, or is too large; the line is named.
    """
    number = total = 0
    with _reading(path, lambda: f", line {number + 1}") as file:
        while line := file.readline(MOST_LINE_BYTES + 1):
            number += 1
            total += len(line)
            if len(line) > MOST_LINE_BYTES:
                raise _too_long(f"{printable(path)}, line {number}")
            _check_size(path, total)
            yield line


def sha256(path: Path) -> str:
    """Return the SHA-256 of the uncompressed content.

    Raises:
        HarnessError: it cannot be read, or is too large.
    """
    digest, total = hashlib.sha256(), 0
    with _reading(path) as file:
        while block := file.read(BLOCK):
            total += len(block)
            _check_size(path, total)
            digest.update(block)
    return digest.hexdigest()


def document_key(row: Row) -> str:
    """Return what names a document in two runs over the same data: its number, or its name, and the digest of its content."""
    name = row.get("doc_name")
    return f"{row.get('doc_id') if name is None else str(name).replace(':', '_')}:{document_digest(row)}"


def document_digest(row: Row) -> str:
    """Return the digest of a document; of a row without one, as older versions of lm-eval wrote, as newer ones make it."""
    digest = row.get("doc_hash")
    if digest is None and "doc" in row:
        text = json.dumps(row["doc"], indent=2, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return str(digest)


def _too_long(where: str) -> HarnessError:
    return HarnessError(f"{where}: a line of more than {MOST_LINE_BYTES / 1e6:.0f} MB")


def _check_size(path: Path, total: int) -> None:
    """Raise ``HarnessError`` when what a compressed file has given is too much; a plain one is as large as it says."""
    if total > MOST_SAMPLE_BYTES and path.suffix == ".gz":
        raise HarnessError(f"{printable(path)}: it expands to more than {MOST_SAMPLE_BYTES / 1e9:g} GB")


@contextmanager
def _reading(path: Path, line: Callable[[], str] = lambda: "") -> Iterator[IO[bytes]]:
    """Open the file, plain, compressed, or of another tool; what goes wrong while it is read is told as ``HarnessError``."""
    try:
        if foreign.holds_rows(path):
            with foreign.as_sample_file(path) as rows_of:
                yield rows_of
            return
        with open_plain(path) as file:
            if path.suffix != ".gz":
                yield file
                return
            with gzip.GzipFile(fileobj=file, mode="rb") as content:
                yield cast("IO[bytes]", content)
    except (OSError, EOFError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise HarnessError(f"{printable(path)}{line()}: cannot be read ({printable(why)[:200]})") from error
