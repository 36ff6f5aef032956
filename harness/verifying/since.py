"""What became of the records of an earlier copy of a board: all have to stand, or to be withdrawn."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from harness.names import counted, printable
from harness.records import ledger, withdrawals
from harness.records.ledger import Reading


@dataclass
class Before:
    """The records of an earlier copy of a board.

    ``places``: ledger and digest of each record, the ledger relative to its folder. ``withdrawn``: digests, with the reason.
    """

    root: Path
    reading: Reading
    places: set[tuple[str, str]]
    withdrawn: dict[str, str]

    def is_in(self, root: Path, file: Path, digest: str) -> bool:
        """Whether a record stood in the ledger that is ``file`` below ``root`` now."""
        return (_relative(file, root), digest) in self.places


@dataclass
class Changes:
    """What an earlier copy lost, a sentence for each ledger, and what a person should look at."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read(root: Path) -> Before:
    """Read the earlier copy in the folder ``root`` of records; one that is not there had none.

    Raises:
        HarnessError: it cannot be read.
    """
    reading = ledger.read(root, with_foreign=False) if root.is_dir() else Reading()
    everything = [
        *zip(reading.records, reading.origins, strict=True),
        *((w.record, w.origin) for w in reading.withdrawn),
    ]
    places = {(_relative(origin.file, root), record.digest()) for record, origin in everything}
    reasons = withdrawals.read([root]).reasons
    return Before(root, reading, places, {digest: reason for (_, digest), reason in reasons.items()})


def compare(before: Before, reading: Reading, root: Path) -> Changes:
    """Compare an earlier copy with what the folder ``root`` of records holds now."""
    found = Changes()
    now = {record.digest(): origin for record, origin in zip(reading.records, reading.origins, strict=True)}
    untouched = {(record.key(), record.value) for record in reading.records if record.is_baseline}
    withdrawn = {one.record.digest(): one for one in reading.withdrawn}
    named = {digest for _, digest in withdrawals.read([root]).reasons}  # whose lines may be gone, too
    gone: dict[str, list[int]] = defaultdict(list)
    again: dict[str, list[int]] = defaultdict(list)
    moved: dict[tuple[str, str], int] = defaultdict(int)
    stand = {(_relative(origin.file, root), digest) for digest, origin in now.items()}
    stand |= {(_relative(one.origin.file, root), digest) for digest, one in withdrawn.items()}
    for record, origin in zip(before.reading.records, before.reading.origins, strict=True):
        digest, file = record.digest(), _relative(origin.file, before.root)
        if digest not in now and digest not in withdrawn:
            is_again = record.is_baseline and (record.key(), record.value) in untouched
            if digest not in named:
                (again if is_again else gone)[file].append(origin.line)
        elif (file, digest) not in stand:
            place = now.get(digest) or withdrawn[digest].origin
            moved[file, _relative(place.file, root)] += 1
    for file, lines in gone.items():
        first = f"line {lines[0]}" if len(lines) == 1 else f"line {lines[0]} and {len(lines) - 1} more"
        found.problems.append(
            f"{printable(file)}: {counted(len(lines), 'record')} that stood there ({first}) "
            f"{'is' if len(lines) == 1 else 'are'} gone or changed; a board only grows: put back what stood there, and withdraw "
            "what is wrong (`harness leaderboard BOARD --withdraw`)"
        )
    for file, lines in again.items():
        what = f"{counted(len(lines), 'record')} of the untouched model"
        found.warnings.append(f"{printable(file)}: {what} went, and others with the same value stand")
    for (old, new), count in moved.items():
        found.warnings.append(f"{printable(new)}: {counted(count, 'record')} stood in {printable(old)} before")
    _tell_withdrawals(before, root, found)
    _tell_chains(before, root, found)
    return found


def _tell_withdrawals(before: Before, root: Path, found: Changes) -> None:
    new: dict[str, int] = defaultdict(int)
    now = {digest: reason for (_, digest), reason in withdrawals.read([root]).reasons.items()}
    for digest, reason in now.items():
        if digest not in before.withdrawn:
            new[reason] += 1
    found.warnings += [f"{counted(count, 'record')} withdrawn: {printable(reason)}" for reason, count in new.items()]
    back = len(before.withdrawn.keys() - now.keys())
    if back:
        found.warnings.append(f"{counted(back, 'record')} withdrawn before, and not any more")


def _tell_chains(before: Before, root: Path, found: Changes) -> None:
    for file in ledger.record_files(before.root) if before.root.is_dir() else []:
        now = root / file.relative_to(before.root)
        if now.is_file() and _chains(file) - _chains(now):
            place = printable(_relative(file, before.root))
            found.warnings.append(f"{place}: its chain was made anew, or lines of it were")


def _chains(file: Path) -> set[object]:
    return {
        line.content.get("chain") for line in ledger.lines(file) if line.content is not None and line.record is not None
    }


def _relative(file: Path, root: Path) -> str:
    """Return the path of a ledger from the board's folder, in which ``root`` holds the records."""
    return f"{root.name}/{file.relative_to(root).as_posix()}"
