"""Published records taken back: a file beside their ledgers names them and says why; no line of a ledger changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.board.published import records_folder
from harness.errors import HarnessError
from harness.folders import write_atomic
from harness.names import printable, suggestion
from harness.records import ledger, withdrawals
from harness.records.ledger import Reading
from harness.records.record import Record
from harness.removal import refuse_links
from harness.verifying import following


@dataclass(frozen=True)
class Withdrawal:
    """The records that were withdrawn, the file that says so, and a sentence for each group whose tasks are gone with them."""

    records: list[Record]
    file: Path
    warnings: list[str]


def withdraw(folder: Path, names: Sequence[str], reason: str) -> Withdrawal:
    """Withdraw records from a board, and say why; they are in no table any more, and cannot be published again.

    Args:
        folder: the leaderboard's.
        names: runs, keys of records or ledgers (without ``.jsonl``).

    Raises:
        HarnessError: there is no reason, no such run, key or ledger, or the disk refuses.
    """
    if not reason.strip():
        raise HarnessError("a withdrawal needs a reason that readers of the board can follow: --reason TEXT")
    root = records_folder(folder)
    refuse_links(root, root / withdrawals.FOLDER)
    reading = ledger.read(root, with_foreign=False)
    if reading.problems:
        raise HarnessError(
            f"the board has bad lines ({reading.problems[0]}); `--repair` comes first, nothing is withdrawn"
        )
    chosen = sorted({number for name in names for number in _called(name, reading)})
    records = [reading.records[number] for number in chosen]
    path, content = withdrawals.planned(
        [record.digest() for record in records], reason.strip(), f"{datetime.now(UTC):%Y-%m-%d}"
    )
    try:
        write_atomic(root / path, content)
    except OSError as error:
        raise HarnessError(f"cannot write '{printable(root / path)}': {error.strerror or error}") from error
    return Withdrawal(records, root / path, _broken_groups(reading, set(chosen)))


def _called(name: str, reading: Reading) -> list[int]:
    """Return the numbers of the records that a name stands for."""
    wanted = name.removesuffix(".jsonl")
    pairs = list(zip(reading.records, reading.origins, strict=True))
    found = [n for n, (record, origin) in enumerate(pairs) if wanted in {record.run, origin.file.stem, record.key()}]
    if not found:
        gone = [one for one in reading.withdrawn if wanted in {one.record.run, one.origin.file.stem, one.record.key()}]
        if gone:
            raise HarnessError(f"'{printable(name)}' is withdrawn already: {printable(gone[0].reason)}")
        known = dict.fromkeys(str(part) for record, origin in pairs for part in (record.run, origin.file.stem) if part)
        raise HarnessError(f"the board has no run, key or ledger '{printable(name)}'; {suggestion(wanted, known)}")
    return found


def _broken_groups(reading: Reading, gone: set[int]) -> list[str]:
    """Return a sentence for each group that stays while a task of it goes, so that nothing gives its score any more."""
    broken = []
    for group, tasks, _ in following.tasks_of_groups(reading.records, reading.origins):
        if group not in gone and gone & set(tasks):
            record = reading.records[group]
            broken.append(
                f"group {printable(record.task.name)} of run {printable(record.run or record.key())} stays, and does not follow "
                "without its tasks; withdraw the run as a whole"
            )
    return list(dict.fromkeys(broken))
