"""``harness show``: one run on the terminal, with a browser of its documents."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import HELP, page_files
from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from harness.records.ledger import Reading
    from harness.records.record import Record
    from harness.showing.documents import Documents, Side
    from harness.showing.runs import Shown

EPILOG = """\
On a terminal, keys walk through the documents after the overview: n next, p previous, w next wrong, c next changed, t next
task, f whole prompt, q quit. Elsewhere, --task, --doc, --wrong and --changed choose documents to print. A document is
changed when the answer is another than that of the baseline, or of the run that --against names.

--html writes all documents into one page that needs no network: search, filters by right, wrong and changed, every metric and
filter as a column, a link to each document, keys (? lists them). The baseline's answers, or those of --against, stand beside.

examples:
  harness show results                                    the runs of a folder
  harness show results --run stochastok                   one of them
  harness show results --run stochastok --wrong           documents it got wrong
  harness show results --run stochastok --html            all of them, as stochastok-....html in this folder
  harness show results/stochastok-337096b5c5 --html a.html
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "show",
        help=HELP["show"],
        description="Show one run: what ran, results, time and memory, what the method left, and its documents.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, nargs="?", default=Path("results"), metavar="RUN",
                        help="a run's folder, a results folder, or a file of records (default results)")  # fmt: skip
    parser.add_argument("--run", metavar="NAME", help="which run of several, by the beginning of its name")
    parser.add_argument(
        "--model",
        metavar="TEXT",
        help="of several runs, those whose model's name (with adapter and revision) has this in it",
    )
    parser.add_argument("--quantization", metavar="NAME", help="those runs with this quantisation, or none")
    parser.add_argument("--method", metavar="TEXT", help="those runs whose method has this in its name")
    parser.add_argument(
        "--json", action="store_true", help="print runs, their options, scores and costs as JSON, and no documents"
    )
    parser.add_argument(
        "--task", metavar="TASK", help="documents of this task; of several runs, those that were asked it"
    )
    parser.add_argument("--metric", metavar="NAME", help="what tells right from wrong (default acc or exact_match)")
    parser.add_argument("--doc", type=int, metavar="N", help="the document with this number in the task")
    parser.add_argument("--wrong", action="store_true", help="documents that were answered wrong")
    parser.add_argument("--changed", action="store_true", help="documents answered otherwise than by --against")
    parser.add_argument(
        "--against",
        metavar="RUN",
        help="the run to compare with: as --run names it, or a path (default: the baseline's)",
    )
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="print so many documents (default 10)")
    page_files.add_flag(parser, "the run and all its documents")
    parser.add_argument("--whole", action="store_true", help="show long prompts whole")
    return parser


def execute(args: argparse.Namespace) -> int:
    """Show the run, then documents."""
    from harness.commands.reading import read
    from harness.showing.listing import as_json, print_runs
    from harness.showing.runs import contradictions_of, pick, print_overview, runs_of

    page_files.check_file(args)
    reading = read(args.path)
    all_runs = runs_of(reading)
    runs = _wanted(all_runs, args)
    run = pick(runs, args.run, path=args.path)
    if args.json:
        print(json.dumps(as_json(runs if run is None else [run]), ensure_ascii=False, indent=1, default=str))
        return 1 if reading.problems else 0
    if run is None and args.html is not None:
        raise HarnessError(
            f"'{printable(args.path)}' holds {len(runs)} runs and a page shows one; name it with --run NAME, "
            "or put two beside each other with `harness compare A B --html`"
        )
    if run is None:
        print_runs(runs, task=args.task)
        print("show one of them with --run NAME")
        return 1 if reading.problems else 0
    readings = [reading, *_readings_beside(run)]
    others = [record for one in readings for record in one.records]
    contradicted = contradictions_of(run, readings)
    for said in contradicted:
        print(f"harness: does not follow: {said}", file=sys.stderr)
    status = 1 if reading.problems or contradicted else 0
    if args.html is not None:
        pairs = [(r, o.file) for one in readings for r, o in zip(one.records, one.origins, strict=True)]
        beside = _beside(run, args, reading, all_runs)
        return max(status, page_files.write_run(run, pairs, beside, contradicted, args))
    chooses = args.doc is not None or args.wrong or args.changed or args.task is not None
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if is_terminal or not chooses:
        print_overview(run, others, contradicted)
    if is_terminal or chooses:
        tasks = _tasks(run, args, reading, all_runs)
        if is_terminal and tasks:
            _browse(tasks, args)
        elif chooses and not _print(tasks, args):
            status = 1
    return status


def _wanted(runs: list[Shown], args: argparse.Namespace) -> list[Shown]:
    """Return the runs that the filters let through.

    Raises:
        HarnessError: a filter lets none through; it says what there is.
    """
    from harness.records.labels import method_label, model_label

    texts: dict[str, Callable[[Shown], str]] = {
        "model": lambda run: model_label(run.records[0]),
        "quantization": lambda run: run.records[0].model.quantization,
        "method": lambda run: method_label(run.records[0]),
    }
    for name, text in texts.items():
        wanted = getattr(args, name)
        if wanted is None:
            continue
        left = [run for run in runs if wanted == text(run) or (name != "quantization" and wanted in text(run))]
        if runs and not left:
            there = ", ".join(sorted({text(run) for run in runs}))
            raise HarnessError(f"no run has {name} '{printable(wanted)}'; there is {printable(there)}")
        runs = left
    if args.task is not None and args.run is None and len(runs) > 1:
        left = [run for run in runs if any(record.task.name == args.task for record in run.records)]
        if not left:
            there = ", ".join(sorted({printable(record.task.name) for run in runs for record in run.records}))
            raise HarnessError(f"no run was asked task '{printable(args.task)}'; there is {there}")
        runs = left
    return runs


def _browse(tasks: Sequence[Callable[[], Documents]], args: argparse.Namespace) -> None:
    from harness.showing.documents import Browser, pressed_keys
    from harness.showing.runs import console

    browser = Browser(tasks, console())
    if args.doc is not None:
        browser.start(browser.documents.find(args.doc))
    elif args.wrong or args.changed:
        browser.follow("w" if args.wrong else "c")
    with pressed_keys() as keys:
        browser.run(keys)


def _print(tasks: Sequence[Callable[[], Documents]], args: argparse.Namespace) -> bool:
    """Print the documents that are asked for; return whether every sample file could be read, after telling of others."""
    from harness.showing.documents import print_document
    from harness.showing.runs import console

    if not tasks:
        raise HarnessError("the run has no sample files here, so it has no documents to show")
    out, left, asked, are_read = console(), args.limit, 0, True
    for task in tasks:
        try:
            documents = task()
        except HarnessError as error:
            print(f"harness: {error}", file=sys.stderr)
            are_read = False
            continue
        asked += len(documents)
        if documents.problem:
            print(f"harness: {documents.problem}", file=sys.stderr)
            are_read = False
        elif args.changed and documents.other is None:
            raise HarnessError("there is no run to compare with; name one with --against RUN")
        if args.wrong and not documents.has_wrong:
            print(f"harness: {documents.why_no_wrong}", file=sys.stderr)
        numbers = range(len(documents)) if args.doc is None else [documents.find(args.doc)]
        for number in numbers:
            is_wanted = (not args.wrong or documents.is_wrong(number)) and (
                not args.changed or documents.is_changed(number)
            )
            if is_wanted and left > 0:
                print_document(out, documents, number, whole=args.whole)
                left -= 1
    if left == args.limit and asked:
        out.print(f"none of {asked:,} documents fits")
    return are_read


def _tasks(
    run: Shown, args: argparse.Namespace, reading: Reading, runs: Sequence[Shown]
) -> list[Callable[[], Documents]]:
    """Return what reads the documents of each task of the run that has samples.

    Raises:
        HarnessError: the task that is asked for is not there, or has no samples.
    """
    from harness.showing.documents import Documents

    mine = _sides(run, args.metric)
    if args.task is not None and args.task not in mine:
        there = ", ".join(map(printable, mine)) or "none"
        raise HarnessError(f"no task '{printable(args.task)}' with samples in this run; there is {there}")
    theirs = _sides_of(_beside(run, args, reading, runs))
    wanted = [args.task] if args.task is not None else list(mine)

    def reader(side: Side) -> Callable[[], Documents]:
        other = theirs.get((side.record.task.name, side.record.metric.name, side.record.metric.filter))
        return lambda: Documents(side, other)

    return [reader(mine[task]) for task in wanted]


def _sides(run: Shown, metric: str | None) -> dict[str, Side]:
    """Return the record that tells right from wrong, else of the first metric, and its sample file, of each task of ``run``."""
    from harness.records import samples
    from harness.records.sources import RIGHT_OR_WRONG
    from harness.showing.documents import Side

    order = {name: place for place, name in enumerate([*([metric] if metric else []), *RIGHT_OR_WRONG])}
    found: dict[str, Side] = {}
    for record, file in zip(run.records, run.files, strict=True):
        path, known = samples.find(record, file), found.get(record.task.name)
        place = order.get(record.metric.name, len(order))
        if path is not None and (known is None or place < order.get(known.record.metric.name, len(order))):
            found[record.task.name] = Side(record, path)
    if metric is not None and not any(side.record.metric.name == metric for side in found.values()):
        names = ", ".join(dict.fromkeys(printable(record.metric.name) for record in run.records))
        raise HarnessError(f"no metric '{printable(metric)}' with samples in this run; there is {names}")
    return found


def _beside(run: Shown, args: argparse.Namespace, own: Reading, runs: Sequence[Shown]) -> list[tuple[Record, Path]]:
    """Return the records to compare with, and their files: of the run that is named, else of the baseline on the same boards."""
    return _of_named(run, args, runs) if args.against is not None else _of_baseline(run, own)


def _of_named(run: Shown, args: argparse.Namespace, runs: Sequence[Shown]) -> list[tuple[Record, Path]]:
    """Return the records of the run that ``--against`` names, whatever model or setting it has: the documents tell.

    Raises:
        HarnessError: it names none, or this one, or a run that shares no task with it.
    """
    from harness.commands.reading import read
    from harness.showing.runs import pick, runs_of

    path = Path(args.against)
    others = runs_of(read(path)) if path.exists() else [other for other in runs if other is not run]
    if not others and run.folder is not None:  # one run was named by its path: those beside it count
        beside = runs_of(read(run.folder.resolve().parent))
        others = [other for other in beside if other.name != run.name]
    other = pick(others, None if path.exists() else args.against, path=path if path.exists() else args.path)
    if other is None:
        names = ", ".join(printable(one.name) for one in others[:12])
        raise HarnessError(f"--against '{printable(args.against)}' holds several runs; name one of {names}")
    found = list(zip(other.records, other.files, strict=True))
    mine = {record.task.name for record in run.records}
    if not any(task in mine for task, _, _ in _sides_of(found)):
        raise HarnessError(
            f"run '{printable(other.name)}' has no samples of a task of '{printable(run.name)}', so nothing can be compared"
        )
    return found


def _of_baseline(run: Shown, own: Reading) -> list[tuple[Record, Path]]:
    """Return the records of the baseline on the same boards, and their files."""
    boards, keys = {record.board_key() for record in run.records}, {record.run_key() for record in run.records}
    return [
        (record, origin.file)
        for reading in [own, *_readings_beside(run)]
        for record, origin in zip(reading.records, reading.origins, strict=True)
        if record.is_baseline and record.run_key() not in keys and record.board_key() in boards
    ]


def _sides_of(pairs: Sequence[tuple[Record, Path]]) -> dict[tuple[str, str, str], Side]:
    """Return those records that have a sample file, by task, metric and filter; of two alike the first."""
    from harness.records import samples
    from harness.showing.documents import Side

    found: dict[tuple[str, str, str], Side] = {}
    for record, file in pairs:
        path = samples.find(record, file)
        if path is not None:
            found.setdefault((record.task.name, record.metric.name, record.metric.filter), Side(record, path))
    return found


def _readings_beside(run: Shown) -> list[Reading]:
    """Return the readings of the baselines' folders beside a run's own."""
    from harness.records import ledger

    folders = sorted(run.folder.resolve().parent.glob("baseline-*")) if run.folder is not None else []
    return [ledger.read(folder) for folder in folders if folder.is_dir()]
