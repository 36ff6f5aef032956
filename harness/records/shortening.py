"""A ledger of whole records made short: what many of its lines say moves beside it, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

from harness.errors import HarnessError
from harness.folders import locked, write_atomic
from harness.names import printable
from harness.records import beside, ledger
from harness.records.ledger import Line


def shorten(path: Path) -> list[Path]:
    """Move what many lines of a ledger say beside it; the records, their keys and digests and the chain stay as they are.

    The files are there before the lines that name them, so it may be killed at any time and goes on when it is called again.
    Files of records without a chain, such as those of a run, are left alone.

    Returns:
        The files beside the ledger that its lines name now; none when there was nothing to do.

    Raises:
        HarnessError: a line is no record.
        OSError: the disk refuses; the ledger is as it was then.
    """
    with locked(path):
        read_lines, old = list(ledger.lines(path)), path.read_bytes()
        if not any(line.content is not None and "chain" in line.content for line in read_lines):
            return []
        bad = next((line for line in read_lines if line.record is None), None)
        if bad is not None:
            raise HarnessError(
                f"{printable(path)}, line {bad.origin.line}: {bad.problem}; nothing was moved, "
                f"`harness leaderboard {printable(path.parent)} --repair` sets such lines aside"
            )
        files: dict[str, bytes] = {}
        new = b"".join(_shortened(line, files) + b"\n" for line in read_lines)
        if new == old:
            return []
        for name, content in files.items():
            (path.parent / name).parent.mkdir(exist_ok=True)
            write_atomic(path.parent / name, content)
        write_atomic(path, new)
        return [path.parent / name for name in files]


def _shortened(line: Line, files: dict[str, bytes]) -> bytes:
    """Return the short form of a line, and put what it leaves out into ``files``; one without digest stays as it is."""
    if line.content is None or "digest" not in line.content or beside.FIELD in line.content:
        return line.raw
    content, more = beside.shortened(line.content)
    files |= more
    return beside.as_line(content).encode()
