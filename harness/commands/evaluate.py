"""``harness eval``: run a method on a model, score it, leave records."""

from __future__ import annotations

import argparse
from typing import Any

from harness.commands.run_flags import add_method_flags, add_task_flags, to_run

EPILOG = """\
Without --plugin the model is evaluated as it is. Results go to --output_path: records.jsonl (one line a metric, with all
that is needed to repeat it), lm-eval's own files, the method's artefacts and the exact command.
Every task of lm-eval works too. A second identical command trains nothing.
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "eval",
        help="evaluate a model, or a method on a model, on tasks",
        description="Evaluate a method on a model: an lm_eval command with --plugin NAME.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_method_flags(parser)
    add_task_flags(parser)
    return parser


def execute(args: argparse.Namespace) -> int:
    """Evaluate, and print the table."""
    run = to_run(args)

    from harness.progress import is_first_process
    from harness.records import ledger
    from harness.run import evaluate
    from harness.summary import print_summary

    records = evaluate(run)
    if not is_first_process():
        return 0
    print_summary(records, ledger.read_file(run.output_path / ledger.RECORDS_FILE).records)
    print(f"{len(records)} records in {run.output_path / ledger.RECORDS_FILE}")
    return 0
