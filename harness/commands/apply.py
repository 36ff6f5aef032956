"""``harness apply``: write the model a method makes as an ordinary Hugging Face folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.commands import HELP
from harness.redaction import redact
from harness.run.flags import add_method_flags, to_run


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "apply",
        help=HELP["apply"],
        description="Apply a method to a model and write the result as a Hugging Face folder, which lm_eval, vLLM and "
        "from_pretrained load. On a quantised model, which cannot be merged into, the folder is a PEFT adapter.",
    )
    add_method_flags(parser)
    parser.add_argument(
        "--output", "-o", type=Path, required=True, metavar="DIR", help="folder to write; must not exist yet"
    )
    return parser


def execute(args: argparse.Namespace) -> int:
    """Apply and write."""
    run = to_run(args)

    from harness.run.exporting import apply_and_write

    print(redact(apply_and_write(run, args.output)))
    return 0
