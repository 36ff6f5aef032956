"""Records that were published and are taken back: they stay in their ledger, and a file beside it names them and the reason.

A withdrawal is a file of its own, named by its content, so that two of them never change the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.records import beside

FOLDER = "withdrawn"
_FIELDS = {"reason", "date", "digests"}


@dataclass
class Withdrawals:
    """The reason by folder and digest of the record, and what is wrong with files that should say so."""

    reasons: dict[tuple[Path, str], str] = field(default_factory=dict)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def read(folders: Sequence[Path]) -> Withdrawals:
    """Read what is withdrawn of the ledgers in each of ``folders``."""
    found = Withdrawals()
    for folder in folders:
        for path in sorted((folder / FOLDER).glob("*.json")):
            try:
                reason, digests = _content(path)
            except (OSError, ValueError) as error:
                found.problems.append((path, f"no withdrawal: {error}"))
                continue
            found.reasons |= {(folder, digest): reason for digest in digests}
    return found


def planned(digests: Sequence[str], reason: str, date: str) -> tuple[str, bytes]:
    """Return path, relative to the folder of the ledgers, and content of the file that withdraws these records.

    Args:
        digests: of the whole records.
        date: as ISO 8601 writes it.
    """
    content = beside.as_bytes({"reason": reason, "date": date, "digests": sorted(digests)})
    return f"{FOLDER}/{beside.name_of(content)}.json", content


def _content(path: Path) -> tuple[str, list[str]]:
    content = beside.checked(path.read_bytes(), path.name, path.stem)
    reason, digests = content.get("reason"), content.get("digests")
    is_one = set(content) == _FIELDS and isinstance(reason, str) and reason.strip() and isinstance(digests, list)
    if not is_one or not all(isinstance(digest, str) for digest in digests or ()):
        raise ValueError("it has to hold a reason, a date and the digests of records")
    return str(reason), list(digests or ())
