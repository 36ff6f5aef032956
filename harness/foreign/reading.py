"""One way in: the scores of a foreign file, and its documents as rows in the form of lm-eval's sample files."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from harness.errors import HarnessError
from harness.foreign import every_eval_ever, inspect_logs, inspect_rows, lm_eval, mteb_results
from harness.foreign.contents import Given
from harness.foreign.finding import EVERY_EVAL_EVER, INSPECT, LM_EVAL, MTEB, is_of_samples, kind_of
from harness.names import printable

# Of the rows that a process keeps, compressed.
MOST_KEPT_BYTES = 500_000_000
_READERS: dict[str, Callable[[Path], Given]] = {
    LM_EVAL: lm_eval.read,
    INSPECT: inspect_logs.read,
    MTEB: mteb_results.read,
    EVERY_EVAL_EVER: every_eval_ever.read,
}


def scores(path: Path) -> Given:
    """Return the scores of a file that ``kind_of`` knows; what is wrong with it is among its problems."""
    kind = kind_of(path)
    try:
        return _READERS[kind](path) if kind is not None else Given(problems=["is no result that is known here"])
    except HarnessError as error:
        return Given(problems=[str(error)])
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError) as error:
        return Given(problems=[f"has another form than {kind} gives its results ({type(error).__name__})"])


def holds_rows(path: Path) -> bool:
    """Whether the documents of a file have to be brought into the form of a sample file before they are read."""
    return path.suffix in {".eval", ".json"} or (is_of_samples(path.name) and not path.name.startswith("samples_"))


class _Kept:
    """Rows of files, made once in a process while the file they were made of stays as it is, and kept compressed."""

    def __init__(self) -> None:
        self._contents: dict[tuple[str, int, int], bytes] = {}

    def of(self, path: Path) -> bytes:
        status = path.stat()
        key = (str(path), status.st_mtime_ns, status.st_size)
        if key not in self._contents:
            buffer = io.BytesIO()
            with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as file:
                for row in _rows(path):
                    file.write(json.dumps(row, ensure_ascii=True).encode("ascii") + b"\n")
            while self._contents and sum(map(len, self._contents.values())) + buffer.tell() > MOST_KEPT_BYTES:
                self._contents.pop(next(iter(self._contents)))
            self._contents[key] = buffer.getvalue()
        return self._contents[key]


_KEPT = _Kept()


def as_sample_file(path: Path) -> IO[bytes]:
    """Return the documents of ``path`` as the content of a sample file, open for reading.

    Raises:
        HarnessError: the file cannot be read, or holds no such documents.
    """
    try:
        return cast("IO[bytes]", gzip.GzipFile(fileobj=io.BytesIO(_KEPT.of(path)), mode="rb"))
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise HarnessError(
            f"{printable(path)}: it has another form than is known here ({type(error).__name__})"
        ) from error
    except OSError as error:
        raise HarnessError(f"{printable(path)} cannot be read ({printable(error.strerror or error)})") from error
    except HarnessError as error:
        raise HarnessError(f"{printable(path)} {error}") from error


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    return every_eval_ever.rows(path) if is_of_samples(path.name) else inspect_rows.rows(path)
