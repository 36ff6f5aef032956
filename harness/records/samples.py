"""The sample file of a record: found beside it, read row by row, plain or compressed."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from harness.records.record import Record

PREFIX = "samples_"
# Beside a board's record files: sample files named by their content.
PUBLISHED_FOLDER = "samples"


def published_name(sha256: str) -> str:
    """Return the path of a published sample file, relative to the folder of the record file."""
    return f"{PUBLISHED_FOLDER}/{sha256[:16]}.jsonl.gz"


def find(record: Record, file: Path) -> Path | None:
    """Return the sample file of a record that was read from ``file``, None when it is not there.

    Only files below the folder of ``file`` are found, whatever path the record names.
    """
    if record.samples is None:
        return None
    root = file.parent.resolve()
    for name in (record.samples.path, published_name(record.samples.sha256)):
        try:
            path = (root / name).resolve()
            if path.is_relative_to(root) and path.is_file():
                return path
        except (OSError, ValueError):  # a name no file system takes
            continue
    return None


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a sample file as lm-eval writes them: one for each document and filter.

    Raises:
        HarnessError: the file cannot be read, or a line is no JSON object; the line is named.
    """
    number = 0
    try:
        with _opened(path) as lines:
            for number, line in enumerate(lines, start=1):  # noqa: B007
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"a {type(row).__name__}, where an object is due")
                yield row
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise HarnessError(f"{printable(path)}, line {number or 1}: {printable(error)[:200]}") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of the uncompressed content."""
    digest = hashlib.sha256()
    try:
        with _opened(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, EOFError) as error:
        raise HarnessError(f"{printable(path)} cannot be read: {printable(error)[:200]}") from error
    return digest.hexdigest()


def scores(record: Record, path: Path) -> dict[str, Any]:
    """Return the value of the record's metric for each document, by the document's key."""
    metric, chosen = record.metric.name, record.metric.filter
    return {
        document_key(row): row[metric] for row in rows(path) if row.get("filter", "none") == chosen and metric in row
    }


def document_key(row: dict[str, Any]) -> str:
    """Return what names a document in two runs over the same data: its number and the digest of its content."""
    return f"{row.get('doc_id')}:{row.get('doc_hash')}"


def _opened(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")
