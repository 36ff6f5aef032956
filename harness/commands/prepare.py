"""``harness prepare``: fetch what a sweep or a run needs, and prove that it loads, before a machine without the Hub computes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import HELP
from harness.commands.evaluate import nothing_left
from harness.errors import HarnessError
from harness.names import counted, printable
from harness.redaction import redact
from harness.run.flags import add_method_flags, add_task_flags, to_runs

if TYPE_CHECKING:
    from harness.run.run import Run
    from harness.sweeps.proving import Proof

EPILOG = """\
examples:
  harness prepare sweep.yaml                                      # on a login node, which reaches the Hub
  harness prepare --model_args pretrained=HuggingFaceTB/SmolLM2-360M --tasks arc_easy    # for one run
  export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1                   # on the nodes that compute

Models are downloaded and not loaded; data sets, task files and what packages bring are loaded, one document of each task is
tried out, and every combination of method, model and tasks is checked, each once. A download that was stopped goes on. No
device is asked for: a node with a GPU may compute what a login node without one prepared, from the same caches
(HF_HOME, HARNESS_CACHE).

Exit status: 0 all is there, 1 something is missing (each with the command that cures it), 2 something has to be put right
in the file or the command.
"""
SECONDS_TO_ANSWER = 10.0
OFF = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
CACHES = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HARNESS_CACHE", "NLTK_DATA")


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "prepare",
        help=HELP["prepare"],
        description="Fetch the models, data sets and packages' data that a sweep needs, prove that every cell of it loads, "
        "and list what is missing. Without a file it takes the flags of `harness eval`, for one run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a sweep's file (docs/sweeps.md)")
    parser.add_argument(
        "--json", action="store_true", help="print what is there and what is missing as JSON, for a program"
    )
    add_method_flags(parser)
    add_task_flags(parser)
    return parser


def execute(args: argparse.Namespace) -> int:
    """Fetch and try, and print what is missing."""
    as_json, file = args.json, args.file
    del args.json, args.file
    runs, folder = _runs(file, args)
    again = redact(shlex.join(["harness", "prepare", *([str(file)] if file else runs[0].words())]))

    from harness.progress import say, suit_the_terminal

    suit_the_terminal()
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a line says what is downloaded
    reason = _why_off()
    if reason:
        say(f"{reason}: only what the caches here have counts")
    with contextlib.chdir(folder), nothing_left(*dict.fromkeys(folder / run.output_path for run in runs)):
        from harness.sweeps.proving import prove

        proof = prove(runs, again=again)
    print(json.dumps(_as_json(proof), ensure_ascii=False, indent=1)) if as_json else _print(proof, len(runs), file)
    return 0 if proof.is_whole else 2 if any(one.is_mistake for one in proof.missing) else 1


def _runs(file: Path | None, args: argparse.Namespace) -> tuple[Sequence[Run], Path]:
    """Return the runs of a sweep's cells, or that of the flags, and the folder where their paths begin."""
    if file is None:
        runs = to_runs(args)
        if not runs[0].tasks:
            raise HarnessError(
                "nothing to prepare: name a sweep's file, or give the flags of `harness eval` (--tasks ...)"
            )
        return runs, Path.cwd()
    from harness.sweeps import spec

    sweep = spec.read(file)
    return [cell.run for cell in sweep.cells], sweep.folder


def _why_off() -> str | None:
    """Return why the Hub is off, None where it answers; where it does not, nothing after this waits for it."""
    said = next((name for name in OFF if os.environ.get(name, "").upper() in {"1", "TRUE", "YES", "ON"}), None)
    if said:
        return f"{said} is set"
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError:
        return None  # it answers
    except (OSError, ValueError) as error:
        os.environ |= dict.fromkeys(OFF, "1")  # read when the Hub's client is imported
        return f"{printable(endpoint)} does not answer ({printable(getattr(error, 'reason', error))})"
    return None


def _print(proof: Proof, cells: int, file: Path | None) -> None:
    from harness.sweeps.fetching import size
    from harness.sweeps.proving import summary

    fetched = f" ({size(proof.fetched_bytes)} from the Hub)" if proof.fetched_bytes else ""
    print(f"there: {summary(proof)}{fetched}")
    for number, one in enumerate(proof.missing):
        print("\nmissing:" if not number else "", end="\n" if not number else "")
        print(f"  {one.what}: {one.why}")
        print(f"      {one.cure}" if one.cure else "      to be put right in the file or the command")
    if proof.is_whole:
        whole = f"all {counted(cells, 'cell')} load" if file else "the run loads"
        caches = [f"{name}={shlex.quote(os.environ[name])}" for name in CACHES if os.environ.get(name)]
        print(f"{whole}; machines that compute can have the Hub off:")
        print("  " + " ".join(["export", *(f"{name}=1" for name in OFF), *caches]))
    if proof.is_whole and file:
        print(f"  harness sweep run {shlex.quote(str(file))}")


def _as_json(proof: Proof) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(proof)
