"""Files of records mended: what is no record set aside, what a merge left brought together, the chain made anew."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.folders import locked, set_aside, write_atomic
from harness.records import beside, conflicts, ledger
from harness.records.ledger import Line, Writable


@dataclass(frozen=True)
class Repair:
    """What ``repair`` did.

    Attributes:
        kept: lines that stay.
        set_aside: a sentence for each line that was moved to ``<name>.torn``.
        backup: where the old file is kept, None when nothing had to be done.
        doubled: how many lines went because the same record stands in another line.
        has_conflict: whether both sides of a conflict of git were brought together.
    """

    kept: int
    set_aside: list[str]
    backup: Path | None
    doubled: int = 0
    has_conflict: bool = False


def repair(path: Path, *, renew_chain: bool = False) -> Repair:
    """Mend the file of records at ``path``; the old one stays as ``<name>.backup-DIGEST``, a file in order is left alone.

    Lines that are no records go to ``<name>.torn``. Where git left both sides of a conflict, the records of both stay, each
    once; a measurement that both made with other contents is kept of the first side, and set aside of the second. The chain of
    a ledger is made anew over what stays.

    Args:
        renew_chain: do the last two for a ledger without marks of git, too: a merge without conflict, or somebody who took
            lines away, left a chain that does not fit.

    Raises:
        OSError: the disk refuses; the file is as it was then.
    """
    with locked(path):
        read_lines = list(ledger.lines(path))
        marks = [line for line in read_lines if line.record is None and conflicts.is_mark(line.raw)]
        bad = [line for line in read_lines if line.record is None and not conflicts.is_mark(line.raw)]
        good = [line for line in read_lines if line.record is not None]
        is_chained = any(line.content is not None and "chain" in line.content for line in good)
        doubled, others = _again(good) if marks or (renew_chain and is_chained) else ([], [])
        gone = {id(line) for line in [*doubled, *(line for line, _ in others)]}
        kept = [line for line in good if id(line) not in gone]
        needs_chain = is_chained and bool(marks or bad or gone or (renew_chain and not _is_chain_whole(good)))
        if not (marks or bad or needs_chain):
            return Repair(len(good), [], None)
        backup = _backed_up(path)
        aside = [*((line, str(line.problem)) for line in bad), *others]
        if aside:
            set_aside(path, b"".join(line.raw + b"\n" for line, _ in aside))
        write_atomic(path, _chained(kept) if needs_chain else b"".join(line.raw + b"\n" for line in kept))
        told = [f"line {line.origin.line}: {sentence}" for line, sentence in aside]
        return Repair(len(kept), told, backup, len(doubled), has_conflict=bool(marks))


def _again(lines: Sequence[Line]) -> tuple[list[Line], list[tuple[Line, str]]]:
    """Return the lines that say nothing an earlier one does not, and those that say otherwise of one measurement, with why."""
    first: dict[str, Line] = {}
    same, others = [], []
    for line in lines:
        assert line.record is not None
        known = first.setdefault(line.record.key(), line)
        if known is line:
            continue
        assert known.record is not None
        if line.record.digest() == known.record.digest() or line.record.repeats(known.record):
            same.append(line)
        else:
            sentence = f"the measurement of line {known.origin.line} (key {line.record.key()}), made at another time"
            others.append((line, sentence))
    return same, others


def _is_chain_whole(lines: Iterable[Line]) -> bool:
    last = ""
    for line in lines:
        assert line.record is not None and line.content is not None
        last = ledger.next_chain(last, line.record.digest())
        if line.content.get("chain") != last:
            return False
    return True


def _backed_up(path: Path) -> Path:
    old = path.read_bytes()
    backup = path.with_name(f"{path.name}.backup-{hashlib.sha256(old).hexdigest()[:8]}")
    write_atomic(backup, old)
    return backup


def _chained(lines: Sequence[Line]) -> bytes:
    return "".join(text + "\n" for text in ledger.chained([_as_it_stood(line) for line in lines])).encode()


def _as_it_stood(line: Line) -> Writable:
    assert line.record is not None and line.content is not None
    return beside.ShortLine(line.record) if beside.FIELD in line.content else line.record
