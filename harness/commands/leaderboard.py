"""``harness leaderboard``: which method is best, as Markdown and HTML; a leaderboard's folder checked, repaired or made short."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import HELP
from harness.errors import HarnessError
from harness.names import counted, printable, suggestion

if TYPE_CHECKING:
    from harness.board.settings import Settings
    from harness.board.tables import Board
    from harness.records.repairing import Repair

SUFFIXES = {".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html"}
ALL = "all"
HINT = "The tables of each task: `--task NAME`, or `--task all`."
EPILOG = """\
examples:
  harness leaderboard results                                     the summary over all tasks, on the terminal
  harness leaderboard logs                                        the same of what inspect, lm-eval, mteb or EEE left
  harness leaderboard results --task langgame                     the tables of one task; --task all for every table
  harness leaderboard results --retention plain_text,arc_easy     tasks that tell what methods cost elsewhere
  harness leaderboard results --json | jq '.summary[0].models'     the same for programs, with every score
  harness leaderboard results -o board.md -o board.html           summary and tables, into files; HTML needs nothing else
  harness leaderboard leaderboards --render                       README.md, index.html and pages of a leaderboard's folder
  harness leaderboard leaderboards --check --since main/leaderboards   what CI asks of a pull request that adds records
  harness leaderboard leaderboards --repair                       keep both sides of a conflict, set bad lines aside
  harness leaderboard leaderboards --withdraw RUN --reason "..."  take published records back, and say why
  harness leaderboard leaderboards --shorten                      what many records say once, beside their ledger

The summary has a row for each method and model: its scores with their differences to the untouched model, its mean rank over
tasks, tasks won, lost and tied, what is retained elsewhere, and what it took. A file board.toml in FOLDER gives the board a
title, links, its tasks for retention and a sentence for each task (docs/leaderboards.md).
Several people, one board: docs/boards.md.
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
    parser.add_argument("--json", action="store_true", help="print the summary and every score as JSON, for programs")
    parser.add_argument("--no-samples", "--no_samples", action="store_true",
                        help="do not read sample files: differences are unpaired, no answers are shown, and scores are not "
                        "held against them")  # fmt: skip
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--render", action="store_true",
                       help="write README.md, index.html and a page for each plugin in a leaderboard's folder")  # fmt: skip
    modes.add_argument("--check", action="store_true",
                       help="check a leaderboard's folder: files, records, chain, samples, pages; write nothing")  # fmt: skip
    modes.add_argument("--repair", action="store_true",
                       help="bring both sides of a git conflict together and move lines that are no records to FILE.torn, "
                       "keeping a copy of the old file")  # fmt: skip
    modes.add_argument("--shorten", action="store_true",
                       help="move reports and what a command's records share out of ledgers, into files beside them")  # fmt: skip
    modes.add_argument("--withdraw", nargs="+", metavar="NAME",
                       help="take back the records of a run, a key or a ledger, which then count nowhere")  # fmt: skip
    parser.add_argument("--since", type=Path, metavar="OLD",
                        help="with --check: an earlier copy of FOLDER, such as the branch a request goes to; its records have "
                        "to stand, and what was wrong before is a warning")  # fmt: skip
    parser.add_argument("--renew-chain", "--renew_chain", action="store_true",
                        help="with --repair: make the chain of a ledger anew over the records it has, each once, when you know "
                        "why it broke")  # fmt: skip
    parser.add_argument(
        "--reason", metavar="TEXT", help="with --withdraw: what is wrong with them, for readers of the board"
    )
    return parser


def execute(args: argparse.Namespace) -> int:
    """Render, check, repair or shorten; 1 when a line was no record, a score is contradicted, or the check found something."""
    modes = {"render": _render_folder, "check": _check, "repair": _repair, "shorten": _shorten, "withdraw": _withdraw}
    chosen = next((name for name in modes if getattr(args, name)), None)
    for flag, mode in (("since", "check"), ("renew_chain", "repair"), ("reason", "withdraw")):
        if getattr(args, flag) and chosen != mode:
            raise HarnessError(f"--{flag.replace('_', '-')} goes with --{mode}")
    if chosen is None:
        return _render(args)
    if args.output or args.format or args.task or args.retention or args.json:
        raise HarnessError(
            f"--{chosen} takes no --output, --format, --json, --task and --retention; give one of them at a time"
        )
    return modes[chosen](args)


def _render(args: argparse.Namespace) -> int:
    from harness.board import board, settings
    from harness.commands.reading import read
    from harness.folders import write_atomic

    if args.json and (args.output or args.format):
        raise HarnessError("--json prints, and takes no --output and no --format")
    own = settings.read(args.folder)
    if args.retention is not None:
        own = own.model_copy(update={"retention": list(args.retention)})
    kinds = [(path, args.format or _kind(path)) for path in args.output or []]
    reading = read(args.folder)
    built = board.build_reading(reading, with_samples=not args.no_samples)
    chosen = _of_tasks(built, args.task)
    _check_names(built, own.retention if args.retention is not None else ())
    if args.json:
        print(_json(chosen, own))
    elif not kinds:
        print(_text(args.format or "markdown", chosen, own, args.task, is_file=False), end="")
    for path, kind in kinds:
        try:
            write_atomic(path, _text(kind, chosen, own, args.task, is_file=True))
        except OSError as error:
            raise HarnessError(f"cannot write '{printable(path)}': {error.strerror or error}") from error
        print(f"wrote {printable(path)}")
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


def _json(built: Board, own: Settings) -> str:
    from harness.board.summary_rows import summary_rows
    from harness.exports.tidy import score_rows

    content = {"title": own.title, "summary": summary_rows(built, own.retention), "scores": score_rows(built)}
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False, default=str)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _render_folder(args: argparse.Namespace) -> int:
    from harness.board import published

    folder = args.folder
    found = published.render(folder)
    for said in found:
        print(f"harness: {said}", file=sys.stderr)
    print(f"wrote {published.where(folder)}")
    return 1 if found else 0


def _check(args: argparse.Namespace) -> int:
    from harness.verifying import checking

    folder = args.folder
    if args.since is not None and not args.since.is_dir():
        raise HarnessError(
            f"--since '{printable(args.since)}' is no folder; give an earlier copy of {printable(folder)}"
        )
    checked = checking.check(folder, args.since)
    for warning in checked.warnings:
        print(f"harness: warning: {warning}", file=sys.stderr)
    for problem in checked.problems:
        print(f"harness: {problem}", file=sys.stderr)
    found = counted(len(checked.problems), "problem") if checked.problems else "in order"
    files = counted(checked.files, "file")
    print(f"{printable(folder)}: {counted(checked.records, 'record')} in {files}, {found}")
    return 1 if checked.problems else 0


def _repair(args: argparse.Namespace) -> int:
    from harness.records import ledger, repairing

    done = status = 0
    for file in ledger.record_files(args.folder):
        try:
            repair = repairing.repair(file, renew_chain=args.renew_chain)
        except OSError as error:
            raise HarnessError(f"cannot repair '{printable(file)}': {error.strerror or error}") from error
        except HarnessError as error:
            print(f"harness: {error}", file=sys.stderr)
            status = 1
            continue
        done += repair.backup is not None
        _tell_repair(file, repair)
        status = max(status, _tell_chain(file))
    if not done and not status:
        print(f"{printable(args.folder)}: every line is a record, nothing to repair")
    return status


def _tell_repair(file: Path, repair: Repair) -> None:
    for sentence in repair.set_aside:
        print(f"{printable(file)}, {sentence}")
    if repair.backup is None:
        return
    parts = [f"{counted(repair.kept, 'line')} kept"]
    parts += ["of both sides of git's conflict"] if repair.has_conflict else []
    parts += [f"{repair.doubled} that stood twice left out"] if repair.doubled else []
    parts += [f"{len(repair.set_aside)} moved to {printable(file.name)}.torn"] if repair.set_aside else []
    print(f"{printable(file)}: {', '.join(parts)}; the old file is {printable(repair.backup.name)}")


def _tell_chain(file: Path) -> int:
    """Say where the chain of a ledger is broken, and return 1 then."""
    from harness.verifying import verify

    for line, sentence in verify.chain_breaks(file):
        print(
            f"harness: {printable(file)}, line {line}: {sentence}; if a merge did it, `--repair --renew-chain` makes the chain "
            "anew",
            file=sys.stderr,
        )
        return 1
    return 0


def _withdraw(args: argparse.Namespace) -> int:
    from harness.publishing import withdrawing

    done = withdrawing.withdraw(args.folder, args.withdraw, args.reason or "")
    runs = ", ".join(dict.fromkeys(printable(record.run or record.key()) for record in done.records))
    print(
        f"withdrew {counted(len(done.records), 'record')} of {runs}: {printable(done.file)} says so, and without it they count"
    )
    for warning in done.warnings:
        print(f"harness: warning: {warning}", file=sys.stderr)
    return 0


def _shorten(args: argparse.Namespace) -> int:
    from harness.records import ledger, shortening

    folder = args.folder
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
