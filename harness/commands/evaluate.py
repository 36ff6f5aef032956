"""``harness eval``: run a method on a model, score it, leave records."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import HELP
from harness.commands.run_flags import add_method_flags, add_task_flags, to_runs

if TYPE_CHECKING:
    from harness.records.record import Record

EPILOG = """\
Without --plugin the model is evaluated as it is. Results go to a folder below --output_path: records_TASK.jsonl (one line a
metric, with all that is needed to repeat it), lm-eval's own files, the method's artefacts and the exact command. Each task is
on disk as soon as it ends; a command that was stopped goes on when it is given again. A second identical command trains
nothing. Two processes with the same run do it once: the second waits. Every task of lm-eval works too.
--seeds 1,2,3 is one process for three runs, whose records are those of three commands with --seed 1, 2 and 3.
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
    return parser


def execute(args: argparse.Namespace) -> int:
    """Evaluate, and print the table."""
    runs = to_runs(args)

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


def _show(records: list[Record], output: Path) -> None:
    from harness.records import ledger
    from harness.run.summary import print_summary

    if records:
        print_summary(records, ledger.read(output).records)
        folders = ", ".join(dict.fromkeys(str(output / str(record.run)) for record in records))
        print(f"{len(records)} records in {folders}")
