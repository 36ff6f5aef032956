"""Records read for a command, and what cannot be read told once, on standard error."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from harness.names import counted, printable

if TYPE_CHECKING:
    from harness.records.ledger import Reading


def read(path: Path, *, tells_problems: bool = True) -> Reading:
    """Read a file of records, or all below a folder; tell what is no record or cannot be read, and what was passed over.

    Args:
        path: what the command was given.
        tells_problems: off where the command lists lines and files that are bad itself.

    Raises:
        HarnessError: there is no such file or folder.
    """
    from harness.records import ledger

    reading = ledger.read(path)
    for entry in reading.passed_over:
        print(f"harness: passed over {entry}", file=sys.stderr)
    for problem in reading.problems if tells_problems else ():
        print(f"harness: {problem}", file=sys.stderr)
    for reason, count in Counter(one.reason for one in reading.withdrawn).items():
        print(
            f"harness: left out {counted(count, 'record')} that {'was' if count == 1 else 'were'} withdrawn: "
            f"{printable(reason)}",
            file=sys.stderr,
        )
    return reading
