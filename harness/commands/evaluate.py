"""``harness eval``: run a method on a model, score it, leave records."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import HELP
from harness.errors import HarnessError
from harness.run.flags import add_method_flags, add_task_flags, to_runs

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run.run import Run

EPILOG = """\
Without --plugin the model is evaluated as it is. Results go to a folder below --output_path: records_TASK.jsonl (one line a
metric, with all that is needed to repeat it), lm-eval's own files, the method's artefacts and the exact command. Each task is
on disk as soon as it ends; a command that was stopped goes on when it is given again. A second identical command trains
nothing. Two processes with the same run do it once: the second waits. Every task of lm-eval works too.
--seeds 1,2,3 is one process for three runs, whose records are those of three commands with --seed 1, 2 and 3.
--shard 1/16 ... 16/16, the same command otherwise and one --output_path, are sixteen processes for one run, in turn or
at once, on one machine or on several with a shared disk: the last one makes the records, those of the run without it. A shard
that was killed goes on, one that is done asks nothing, and the command without --shard finishes what is missing.
On a CPU the number of threads is measured unless OMP_NUM_THREADS or the like says it (docs/scoring.md, "Threads").

Exit status: 0 all there, 1 something has no score or could not be saved, 2 nothing was done, 130 or 143 stopped.
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "eval",
        help=HELP["eval"],
        description="Evaluate a method on a model: an lm_eval command with --plugin NAME.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_method_flags(parser)
    add_task_flags(parser)
    group = parser.add_argument_group("before a run")
    group.add_argument(
        "--dry-run", "--dry_run", action="store_true", dest="dry_run",
        help="check all that needs no weights, print what would be asked, what is there already and what it will take, "
        "and stop",
    )  # fmt: skip
    group.add_argument("--json", action="store_true", help="print what --dry-run finds as JSON, for a program")
    return parser


def execute(args: argparse.Namespace) -> int:
    """Evaluate, and print the table."""
    runs = to_runs(args)
    if args.dry_run:
        return _foresee(runs, as_json=args.json)
    if args.json:
        raise HarnessError("--json goes with --dry-run; the records of a run are JSON already (`harness show --json`)")

    from harness.progress import is_first_process
    from harness.run.evaluating import SomeFailed, evaluate

    failed: SomeFailed | None = None
    try:
        records = evaluate(*runs)
    except SomeFailed as error:
        records, failed = error.records, error
    if is_first_process():
        _show(records, runs[0].output_path)
    if failed is not None:
        raise failed
    return 0


def _foresee(runs: Sequence[Run], *, as_json: bool) -> int:
    """Print what the runs would do; raise what a task could not be asked for, after all the rest is told."""
    from harness.progress import suit_the_terminal
    from harness.run.preparing import prepare

    suit_the_terminal()
    found = []
    for run in runs:
        with nothing_left(run.output_path.absolute()):
            started = time.monotonic()
            prepared = prepare(run)
            checked = time.monotonic() - started
            from harness.run import foreseeing  # after the checks: it takes torch
            from harness.showing import foreseen

            ahead = foreseeing.foresee(prepared, checked_seconds=checked)
        found.append(ahead)
        if not as_json:
            if len(runs) > 1:
                print(f"seed {run.seeds[0]}")
            foreseen.print_ahead(ahead)
    if as_json:
        print(json.dumps([foreseeing.as_json(ahead) for ahead in found], ensure_ascii=False, indent=1))
    failed = [ahead for ahead in found if ahead.failures]
    if failed:
        raise HarnessError("; ".join(dict.fromkeys(map(foreseen.failures, failed))))
    return 0


@contextmanager
def nothing_left(*outputs: Path) -> Iterator[None]:
    """Remove the folders that the check whether results can be written makes within the block."""
    from harness.removal import remove_empty

    wanted = dict.fromkeys(folder for output in outputs for folder in (output, *output.parents))
    missing = sorted((folder for folder in wanted if not folder.exists()), key=lambda folder: -len(folder.parts))
    try:
        yield
    finally:
        for folder in missing:
            remove_empty(folder, below=folder.parent)


def _show(records: list[Record], output: Path) -> None:
    from harness.run.summary import print_beside

    print_beside(records, output)
    if records:
        folders = ", ".join(dict.fromkeys(str(output / str(record.run)) for record in records))
        print(f"{len(records)} records in {folders}")
