"""``harness publish``: records to a leaderboard, a data set, model pages, and the formats of others."""

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
    from harness.publishing.files import Outcome, PlannedFile
    from harness.publishing.selection import Selection

BOARD = "leaderboards"
EPILOG = """\
where to:
  FOLDER       a leaderboard (default leaderboards/): records go to a new FOLDER/records/PLUGIN-DIGEST.jsonl, samples
               to FOLDER/records/samples, what many records say written to FOLDER/records/commands and reports, README.md,
               index.html and pages rendered anew; a pull request with the records is a submission (docs/boards.md)
  eee DIR      Every Eval Ever 0.3.0: data/COLLECTION/DEVELOPER/MODEL/UUID.json, samples beside it
  card DIR     .eval_results/*.yaml for registered benchmarks, and a model card for what a method made
  hub REPO     a pull request to the data set OWNER/NAME on the Hugging Face Hub (login: `hf auth login` or HF_TOKEN)
  lm-eval DIR  lm-eval's own files of each run, for its viewers

Records are checked first (`harness verify` says how), invalid and partial ones are refused, and secrets, the home folder
and names of user and host are taken out. Done again, it publishes nothing twice. See docs/publishing.md.

examples:
  harness publish results --dry-run                    what would be added to leaderboards/
  harness publish results                              add it
  harness publish results --to hub ada/evaluations --dry-run
  harness publish leaderboards --to eee out --developer HuggingFaceTB --availability open_weights
  harness publish results --to lm-eval out
  harness publish results --track trackio --track_args project=splitting
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "publish",
        help=HELP["publish"],
        description="Publish the records of a results folder. --dry-run shows what would be written or sent.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results folder, run, board or file of records")
    parser.add_argument("--to", nargs="+", metavar="WHERE", help="see below (default leaderboards/)")
    parser.add_argument("--track", metavar="TRACKER", help="trackio or wandb: log each run there, as lm-eval does")
    parser.add_argument(
        "--track_args", "--track-args", metavar="K=V", nargs="+", help="what its init takes: project=..."
    )
    parser.add_argument("--dry-run", "--dry_run", action="store_true", help="only show it; write and send nothing")
    parser.add_argument("--skip-refused", "--skip_refused", action="store_true",
                        help="publish the rest when some records may not be published (exit status 1 then)")  # fmt: skip
    parser.add_argument("--allow-partial", "--allow_partial", action="store_true",
                        help="publish runs over a part of a task (--limit), too; they are never ranked")  # fmt: skip
    parser.add_argument(
        "--name", help="add to the ledger of this name, for a leaderboard (default: a new one, named by what it holds)"
    )
    _add_format_flags(parser)
    return parser


def _add_format_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what records do not say (eee, card)")
    group.add_argument("--developer", metavar="NAME", help="who made the models whose name has no owner")
    group.add_argument("--collection", default="token-harness", metavar="NAME", help="(default token-harness)")
    group.add_argument(
        "--organization", default="individual", metavar="NAME", help="who evaluated (default individual)"
    )
    group.add_argument("--relationship", default="third_party", metavar="KIND",
                       help="of evaluator to model: first_party, third_party (default), collaborative, other")  # fmt: skip
    group.add_argument("--availability", default="unknown", metavar="KIND",
                       help="of the weights: open_weights, closed_weights, unknown (default)")  # fmt: skip
    group.add_argument("--source-url", "--source_url", metavar="URL", help="where the whole records can be read")


def execute(args: argparse.Namespace) -> int:
    """Publish; 1 when something of it was left out."""
    if args.track is not None:
        if args.to:
            raise HarnessError("--track and --to are two ways to publish; give one of them")
        return _track(args)
    kind, target = _destination(args.to)
    if kind == "lm-eval":
        from harness.publishing import lm_eval_files

        return _write(lm_eval_files.export(args.results), Path(target), args)
    selection = _select(args)
    try:
        status = {"board": _to_board, "hub": _to_hub, "eee": _to_eee, "card": _to_card}[kind](selection, target, args)
    finally:
        for sentence in selection.refused:
            print(f"harness: left out: {sentence}", file=sys.stderr)
    return status or (1 if selection.refused else 0)


def _destination(to: Sequence[str] | None) -> tuple[str, str]:
    """Return what kind of place ``--to`` names, and which."""
    first, *rest = to or [BOARD]
    kinds = {"eee": "DIR", "card": "DIR", "lm-eval": "DIR", "hub": "OWNER/NAME"}
    if first in kinds:
        if len(rest) != 1:
            raise HarnessError(f"--to {first} takes one {kinds[first]} after it: --to {first} {kinds[first]}")
        return first, rest[0]
    if rest:
        near = suggestion(first, kinds)
        raise HarnessError(
            f"--to takes a folder, or eee, card, hub, lm-eval and a place, not '{printable(first)}'; {near}"
        )
    return "board", first


def _select(args: argparse.Namespace) -> Selection:
    from harness.progress import say
    from harness.publishing.selection import select

    selection = select(args.results, allow_partial=args.allow_partial, skip_refused=args.skip_refused, note=say)
    for sentence in selection.warnings:
        say(f"warning: {sentence}")
    bare = sum(item.record.samples is not None and item.samples is None for item in selection.items)
    if bare:
        say(f"{bare} records name sample files that are not here: nobody can recompute their scores")
    return selection


def _to_board(selection: Selection, target: str, args: argparse.Namespace) -> int:
    from harness.board.published import render, where
    from harness.publishing import ledgers

    folder = Path(target)
    published = ledgers.publish(
        selection.items, folder, name=args.name, skip_refused=args.skip_refused, dry_run=args.dry_run
    )
    _print_files(published.files, args.dry_run)
    for path, lines in published.added.items():
        size = sum(len(line.to_line(chain="0" * 64).encode("utf-8")) + 1 for line in lines)
        print(f"{_would('append', args.dry_run)} {len(lines)} records to {printable(path)} ({size:,} bytes)")
    if published.known:
        print(f"{published.known} records are already published")
    for sentence in published.refused:
        print(f"harness: left out: {sentence}", file=sys.stderr)
    if not args.dry_run:
        for sentence in render(folder):
            print(f"harness: on the board: {sentence}", file=sys.stderr)
    print(f"{'would render' if args.dry_run else 'rendered'} {where(folder)}")
    if published.added and _is_in_git(folder):
        print(f"for a pull request: git add {printable(folder)} (docs/boards.md says how both sides of a merge stay)")
    return 1 if published.refused else 0


def _is_in_git(folder: Path) -> bool:
    place = folder.absolute()
    return any((parent / ".git").exists() for parent in (place, *place.parents))


def _to_eee(selection: Selection, target: str, args: argparse.Namespace) -> int:
    from harness.publishing import every_eval_ever

    for flag, value, known in (
        ("--relationship", args.relationship, every_eval_ever.RELATIONSHIPS),
        ("--availability", args.availability, every_eval_ever.AVAILABILITIES),
    ):
        if value not in known:
            raise HarnessError(f"{flag} '{printable(value)}' is none of {', '.join(known)}")
    submitter = every_eval_ever.Submitter(
        collection=args.collection,
        developer=args.developer,
        organization=args.organization,
        relationship=args.relationship,
        availability=args.availability,
    )
    return _write(every_eval_ever.export(selection.items, submitter), Path(target), args)


def _to_card(selection: Selection, target: str, args: argparse.Namespace) -> int:
    from harness.publishing import cards

    if args.source_url is not None and not args.source_url.startswith(("https://", "http://")):
        raise HarnessError(f"--source-url '{printable(args.source_url)}' is no web address; it begins with https://")
    return _write(cards.export(selection.items, Path(target), source_url=args.source_url), Path(target), args)


def _to_hub(selection: Selection, target: str, args: argparse.Namespace) -> int:
    from harness.progress import say
    from harness.publishing import hub

    files = hub.plan(selection.items)
    hub.check_name(target)
    if args.dry_run:
        total = sum(_print_planned(file) for file in files)
        print(
            f"would send {len(files)} files ({total:,} bytes) to the data set {printable(target)} as one pull request"
        )
        return 0
    say(f"sending {len(files)} files to the data set {printable(target)}")
    upload = hub.upload(files, target, say=say)
    print(
        {
            "new": f"opened {upload.url}",
            "open": f"already published: {upload.url} is open with these very files",
            "nothing": f"already published: all of it is in the data set ({upload.url})",
        }[upload.state]
    )
    return 0


def _track(args: argparse.Namespace) -> int:
    from harness.arguments import parse_args
    from harness.progress import say
    from harness.publishing import lm_eval_files, tracking

    if args.track not in tracking.TRACKERS:
        raise HarnessError(f"--track takes {' or '.join(tracking.TRACKERS)}, not '{printable(args.track)}'")
    options = parse_args(",".join(args.track_args) if args.track_args else None, flag="--track_args")
    runs = lm_eval_files.find_runs(args.results)
    if args.dry_run:
        for run in runs:
            print(f"would log {printable(run.run)}: {printable(run.results.name)} and {len(run.samples)} sample files")
        return 0
    tracking.track(runs, args.track, options, say=say)
    print(f"logged {len(runs)} runs to {args.track}")
    return 0


def _write(files: Sequence[PlannedFile], folder: Path, args: argparse.Namespace) -> int:
    from harness.publishing.files import write_all

    _print_files(write_all(files, folder, dry_run=args.dry_run), args.dry_run)
    return 0


def _print_planned(file: PlannedFile) -> int:
    size = file.size()
    print(f"would send {printable(file.path)} ({size:,} bytes)")
    return size


def _print_files(outcomes: Sequence[Outcome], dry_run: bool) -> None:
    words = {"new": "write", "changed": "replace"}
    for outcome in outcomes:
        if outcome.state in words:
            print(f"{_would(words[outcome.state], dry_run)} {printable(outcome.path)} ({outcome.size:,} bytes)")
    same = sum(outcome.state == "same" for outcome in outcomes)
    if same:
        print(f"{same} files are there already, with the same content")


def _would(verb: str, dry_run: bool) -> str:
    past = {"write": "wrote", "replace": "replaced", "append": "appended"}
    return f"would {verb}" if dry_run else past[verb]
