"""Render the pages of leaderboards/ from leaderboards/records; with --check, only say what is not in order."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.cli import main as harness

FOLDER = Path(__file__).parents[1] / "leaderboards"


def main() -> int:
    """Write or check; 1 when something is not in order."""
    return harness(["leaderboard", str(FOLDER), "--check" if "--check" in sys.argv else "--render"])


if __name__ == "__main__":
    sys.exit(main())
