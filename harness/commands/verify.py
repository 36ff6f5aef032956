"""``harness verify``: say which records do not follow from their samples, their ledger and themselves."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import HELP
from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from harness.verifying.verify import Report

EPILOG = """\
Checked are: digest and key of each record, the chain of a ledger, bounds and counts, the command against the fields, the
sample file (there, its SHA-256, rows, documents, rows that contradict themselves), the score and its error computed again
from the samples, of a group from its tasks, what records of one run share, and records or samples that stand twice.
Invented samples pass all of that: only running again finds them (`harness reproduce`).
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help=HELP["verify"],
        description="Check every record of a results folder, a board or a file, and name each that does not follow.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, nargs="?", default=Path("results"), metavar="PATH",
                        help="results folder, board folder or file of records (default results)")  # fmt: skip
    parser.add_argument(
        "--without-samples", "--without_samples", action="store_true",
        help="a sample file that is not there is counted, but is no error",
    )  # fmt: skip
    parser.add_argument(
        "--since", type=Path, metavar="OLD",
        help="an earlier copy of PATH: its lines have to stand there still, which no chain can show of the last ones",
    )  # fmt: skip
    parser.add_argument("--format", choices=["text", "json"], default="text", help="how to print what was found")
    return parser


def execute(args: argparse.Namespace) -> int:
    """Check and print; 1 when a record does not follow."""
    from harness import plugins
    from harness.commands.reading import read
    from harness.verifying import verify

    reading = read(args.path, tells_problems=False)
    plugins.load_owners(record.metric.aggregation for record in reading.records)
    if not reading.records and not reading.problems:
        raise HarnessError(f"no records in '{printable(args.path)}'; give a folder that `harness eval` wrote to")
    report = verify.examine(reading, args.path, needs_samples=not args.without_samples)
    if args.since is not None:
        report.findings += verify.removed(args.since, args.path)
    if args.format == "json":
        print(json.dumps(_as_json(report), ensure_ascii=False, indent=2))
    else:
        _print(report)
    return 1 if report.errors else 0


def _print(report: Report) -> None:
    from harness.names import counted

    for finding in report.findings:
        where = printable(finding.file) + (f", line {finding.line}" if finding.line else "")
        key = f" (key {printable(finding.key)})" if finding.key else ""
        print(f"{finding.severity}: {where}{key}: {finding.sentence}")
    sys.stdout.flush()
    warnings = len(report.findings) - report.errors
    found = f" ({counted(report.errors, 'error')}, {counted(warnings, 'warning')})" if report.findings else ""
    print(report.sentence() + found)


def _as_json(report: Report) -> dict[str, Any]:
    counts = (
        "records",
        "follow",
        "grouped",
        "no_rule",
        "no_samples",
        "no_score",
        "no_digest",
        "foreign",
        "wrong",
        "errors",
    )
    return {name: getattr(report, name) for name in counts} | {
        "sentence": report.sentence(),
        "findings": [vars(finding) | {"file": str(finding.file)} for finding in report.findings],
    }
