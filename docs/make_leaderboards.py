"""Render leaderboards/README.md from leaderboards/records; with --check, only say whether it is current."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.records import leaderboard, ledger

FOLDER = Path(__file__).parents[1] / "leaderboards"
NOTE = "Rendered from `records/` by `make docs`; do not edit.\n"


def main() -> int:
    """Write or check; 1 when a line of the records cannot be read or the page is old."""
    reading = ledger.read(FOLDER / "records")
    for problem in reading.problems:
        print(problem, file=sys.stderr)
    title, _, tables = leaderboard.render(reading.records).partition("\n")
    page = f"{title}\n\n{NOTE}{tables}"
    target = FOLDER / "README.md"
    if "--check" in sys.argv:
        is_current = target.is_file() and target.read_text(encoding="utf-8") == page
        if not is_current:
            print("leaderboards/README.md is not current; run `make docs`", file=sys.stderr)
        return 0 if is_current and not reading.problems else 1
    target.write_text(page, encoding="utf-8")
    return 1 if reading.problems else 0


if __name__ == "__main__":
    sys.exit(main())
