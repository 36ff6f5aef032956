"""``harness leaderboard``: which method is best, as Markdown and HTML; a leaderboard's folder checked, repaired or made short."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import HELP
from harness.errors import HarnessError
from harness.names import printable, suggestion

if TYPE_CHECKING:
    from harness.board.settings import Settings
    from harness.board.tables import Board

SUFFIXES = {".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html"}
ALL = "all"
HINT = "The tables of each task: `--task NAME`, or `--task all`."
EPILOG = """\
examples:
  harness leaderboard results                                     the summary over all tasks, on the terminal
  harness leaderboard results --task langgame                     the tables of one task; --task all for every table
  harness leaderboard results --retention plain_text,arc_easy     tasks that tell what methods cost elsewhere
  harness leaderboard results -o board.md -o board.html           summary and tables, into files; HTML needs nothing else
  harness leaderboard leaderboards --render                       README.md, index.html and pages of a leaderboard's folder
  harness leaderboard leaderboards --check                        what CI asks of a pull request that adds records
  harness leaderboard results --repair                            set lines that are no records aside
  harness leaderboard leaderboards --shorten                      what many records say once, beside their ledger

The summary has a row for each method and model: its scores with their differences to the untouched model, its mean rank over
tasks, tasks won, lost and tied, what is retained elsewhere, and what it took. A file board.toml in FOLDER gives the board a
title, links, its tasks for retention and a sentence for each task (docs/leaderboards.md).
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "leaderboard",
        help=HELP["leaderboard"],
        description="Render records: a summary that says which method is best over all tasks, then a table for each task, with "
        "ranks, differences to the baseline and, in HTML, plots, options, commands and sample answers. No plugin has to be "
        "installed; nothing in the folder is executed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results"), metavar="FOLDER",
                        help="a folder that holds records, or one file of them (default results)")  # fmt: skip
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", action="append",
                        help="write there instead of printing; .md or .html; may be given several times")  # fmt: skip
    parser.add_argument("--format", choices=("markdown", "html"),
                        help="what to print, or to write into a FILE of another name (default: by its ending)")  # fmt: skip
    parser.add_argument(
        "--task",
        "--tasks",
        type=_names,
        default=(),
        metavar="NAMES",
        help="the tables of these tasks, separated by commas, instead of the summary; all for every one",
    )
    parser.add_argument("--retention", type=_names, metavar="NAMES",
                        help="tasks that tell what a method costs elsewhere and take no part in ranks (default: those in "
                        "board.toml, else plain_text)")  # fmt: skip
    parser.add_argument("--no-samples", "--no_samples", action="store_true",
                        help="do not read sample files: differences are unpaired, no answers are shown, and scores are not "
                        "held against them")  # fmt: skip
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--render", action="store_true",
                       help="write README.md, index.html and a page for each plugin in a leaderboard's folder")  # fmt: skip
    modes.add_argument("--check", action="store_true",
                       help="check a leaderboard's folder: files, records, chain, samples, pages; write nothing")  # fmt: skip
    modes.add_argument("--repair", action="store_true",
                       help="move lines that are no records to FILE.torn, keeping a copy of the old file")  # fmt: skip
    modes.add_argument("--shorten", action="store_true",
                       help="move reports and what a command's records share out of ledgers, into files beside them")  # fmt: skip
    return parser


def execute(args: argparse.Namespace) -> int:
    """Render, check, repair or shorten; 1 when a line was no record, a score is contradicted, or the check found something."""
    chosen = next((name for name in ("render", "check", "repair", "shorten") if getattr(args, name)), None)
    if chosen is None:
        return _render(args)
    if args.output or args.format or args.task or args.retention:
        raise HarnessError(
            f"--{chosen} takes no --output, --format, --task and --retention; give one of them at a time"
        )
    return {"render": _render_folder, "check": _check, "repair": _repair, "shorten": _shorten}[chosen](args.folder)


def _render(args: argparse.Namespace) -> int:
    from harness.board import board, settings
    from harness.commands.reading import read
    from harness.folders import write_atomic

    own = settings.read(args.folder)
    if args.retention is not None:
        own = own.model_copy(update={"retention": list(args.retention)})
    kinds = [(path, args.format or _kind(path)) for path in args.output or []]
    reading = read(args.folder)
    built = board.build_reading(reading, with_samples=not args.no_samples)
    chosen = _of_tasks(built, args.task)
    _check_names(built, own.retention if args.retention is not None else ())
    if not kinds:
        print(_text(args.format or "markdown", chosen, own, args.task, is_file=False), end="")
    for path, kind in kinds:
        try:
            write_atomic(path, _text(kind, chosen, own, args.task, is_file=True))
        except OSError as error:
            raise HarnessError(f"cannot write '{printable(path)}': {error.strerror or error}") from error
    for said in built.omissions.contradicted:
        print(f"harness: not ranked: {said}", file=sys.stderr)
    return 1 if reading.problems or built.omissions.contradicted else 0


def _kind(path: Path) -> str:
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise HarnessError(
            f"'{printable(path)}' ends neither in .md nor in .html; name the file so, or say --format markdown or html"
        )
    return kind


def _of_tasks(built: Board, names: Sequence[str]) -> Board:
    from harness.board import board

    if not names or names == (ALL,):
        return built
    _check_names(built, names)
    return board.part(built, [table for table in built.tables if table.first.task.name in names])


def _check_names(built: Board, names: Sequence[str]) -> None:
    known = dict.fromkeys(table.first.task.name for table in built.tables)
    for name in names:
        if name not in known:
            raise HarnessError(f"no record is of a task '{printable(name)}'; {suggestion(name, known)}")


def _text(kind: str, built: Board, own: Settings, tasks: Sequence[str], *, is_file: bool) -> str:
    """Return a board as it is asked for: on a terminal the summary or the tables, in a file both."""
    from harness.board import markdown_page, page

    if kind == "html":
        return page.render(built, settings=own)
    if tasks:
        return markdown_page.render_board(built, settings=own, with_summary=False)
    if is_file:
        return markdown_page.render_board(built, settings=own, tables=markdown_page.FOLDED)
    return markdown_page.render_board(built, settings=own, tables="", hint=HINT)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _render_folder(folder: Path) -> int:
    from harness.board import published

    found = published.render(folder)
    for said in found:
        print(f"harness: {said}", file=sys.stderr)
    print(f"wrote {published.where(folder)}")
    return 1 if found else 0


def _check(folder: Path) -> int:
    from harness.verifying import checking

    checked = checking.check(folder)
    for warning in checked.warnings:
        print(f"harness: warning: {warning}", file=sys.stderr)
    for problem in checked.problems:
        print(f"harness: {problem}", file=sys.stderr)
    found = f"{len(checked.problems)} problems" if checked.problems else "in order"
    print(f"{printable(folder)}: {checked.records} records in {checked.files} files, {found}")
    return 1 if checked.problems else 0


def _repair(folder: Path) -> int:
    from harness.records import ledger

    count = status = 0
    for file in ledger.record_files(folder):
        try:
            repair = ledger.repair(file)
        except OSError as error:
            raise HarnessError(f"cannot repair '{printable(file)}': {error.strerror or error}") from error
        except HarnessError as error:
            print(f"harness: {error}", file=sys.stderr)
            status = 1
            continue
        count += len(repair.set_aside)
        for sentence in repair.set_aside:
            print(f"{printable(file)}, {sentence}")
        if repair.backup is not None:
            kept = f"{repair.kept} lines kept, {len(repair.set_aside)} moved to {printable(file.name)}.torn"
            print(f"{printable(file)}: {kept}; the old file is {printable(repair.backup.name)}")
    if not count:
        print(f"{printable(folder)}: every line is a record, nothing to repair")
    return status


def _shorten(folder: Path) -> int:
    from harness.records import ledger, shortening

    has_moved = False
    for file in ledger.record_files(folder):
        before = file.stat().st_size
        try:
            files = shortening.shorten(file)
        except OSError as error:
            raise HarnessError(f"cannot shorten '{printable(file)}': {error.strerror or error}") from error
        if files:
            has_moved = True
            now, more = file.stat().st_size, sum(path.stat().st_size for path in files)
            print(f"{printable(file)}: {before:,} bytes before, {now:,} now, {more:,} in {len(files)} files beside it")
    if not has_moved:
        print(f"{printable(folder)}: no ledger is longer than it has to be")
    return 0
