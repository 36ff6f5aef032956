"""``harness leaderboard``: records to Markdown."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.names import printable


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "leaderboard",
        help="render a folder of records to Markdown",
        description="Render records to Markdown: one table for each task and model. No plugin has to be installed.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results"), metavar="FOLDER",
                        help="a folder that holds records, or one file of them (default results)")  # fmt: skip
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help="write there instead of printing")
    return parser


def execute(args: argparse.Namespace) -> int:
    """Render; 1 when a line was no record."""
    from harness.folders import write_atomic
    from harness.records import leaderboard, ledger

    reading = ledger.read(args.folder)
    for problem in reading.problems:
        print(f"harness: {problem}", file=sys.stderr)
    page = leaderboard.render(reading.records)
    if args.output is None:
        print(page, end="")
    else:
        try:
            write_atomic(args.output, page)
        except OSError as error:
            raise HarnessError(f"cannot write '{printable(args.output)}': {error.strerror or error}") from error
    return 1 if reading.problems else 0
