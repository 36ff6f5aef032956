"""``python -m harness_critical_tokens``: stories with planted errors, a run's responses as a page, runs as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.commands import own
from harness.json_lines import json_line

EPILOG = """\
examples:
  python -m harness_critical_tokens stories --count 400 --output train.jsonl
  python -m harness_critical_tokens stories --count 150 --split test --styles notes --output test.jsonl
  python -m harness_critical_tokens report results/RUN/artefacts
  python -m harness_critical_tokens table results/RUN-OF-SEED-0 results/RUN-OF-SEED-1 --by kind
"""
STORIES_EPILOG = """\
styles:
  plain, notes, spoken, ledger and lesson tell the same kind of sums, each in words that the others never use. Join some by +,
  or write mixed for all. Train on some and test on another to see what is learned of errors and what of phrasing.

splits:
  No sums of a test story occur in a train story, whatever seeds and styles. The tasks planted_pairs, planted_step and
  planted_recovery ask test stories.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 2 for a mistake of the user.
    """
    arguments = _parser().parse_args(argv)
    return own.run(lambda: arguments.execute(arguments))


def _stories(arguments: argparse.Namespace) -> None:
    from harness_critical_tokens.stories import write_stories

    rows = write_stories(arguments.count, seed=arguments.seed, styles=arguments.styles, split=arguments.split)
    own.write(map(json_line, rows), arguments.output)


def _report(arguments: argparse.Namespace) -> None:
    from harness_critical_tokens.report.gathering import gather
    from harness_critical_tokens.report.page import PAGE, render

    page = render(gather(arguments.folder), most=arguments.most, first=arguments.first)
    own.write(page, arguments.output or arguments.folder / PAGE)


def _table(arguments: argparse.Namespace) -> None:
    from harness_critical_tokens.identification_table import table

    own.write(table(arguments.folders, by=arguments.by), arguments.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness_critical_tokens",
        description="Write stories with planted errors, show a run's responses token by token, or runs as a table. "
        "No model is loaded.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_stories(commands)
    _add_report(commands)
    _add_table(commands)
    return parser


def _add_stories(commands: Any) -> None:
    parser = commands.add_parser(
        "stories",
        help="write pairs of a right and a wrong solution",
        description="Write arithmetic stories with a right solution and a wrong one whose first wrong character is known, as "
        "JSON lines that pairs_file takes.",
        epilog=STORIES_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=400, metavar="N", help="how many (default: 400)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every draw (default: 0)")
    parser.add_argument("--styles", default="plain", metavar="NAMES", help="of phrasing, see below (default: plain)")
    parser.add_argument("--split", default="train", help="train or test, see below (default: train)")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE.jsonl", help="by default, standard output")
    parser.set_defaults(execute=_stories)


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="show a run's responses as a page",
        description="Write a page that needs nothing else: each response with its tokens coloured by weight, critical tokens "
        "outlined, and the run's figures.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="artefacts/ of a run of score, cdpo or find")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE.html", help="by default report.html in the folder")
    parser.add_argument("--most", type=int, default=200, metavar="N", help="responses on the page; the figures are of all "
                        "(default: 200)")  # fmt: skip
    parser.add_argument("--first", type=int, default=0, metavar="N", help="pass over so many, to page through a large run "
                        "(default: 0)")  # fmt: skip
    parser.set_defaults(execute=_report)


def _add_table(commands: Any) -> None:
    parser = commands.add_parser(
        "table",
        help="show how well runs found known errors",
        description="Write a Markdown table of how well each weight finds errors whose place is known, over runs of score.",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="runs of score, or their artefacts/")
    parser.add_argument("--by", choices=("kind", "style"), help="hit@1 for each kind of error or style of phrasing")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE.md", help="by default, standard output")
    parser.set_defaults(execute=_table)


if __name__ == "__main__":
    sys.exit(main())
