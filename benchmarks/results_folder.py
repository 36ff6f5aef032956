"""How long commands take over a results folder of many small files: ``python benchmarks/results_folder.py [--files N]``.

Writes N files of records as ``harness eval`` does (``folders``: a run's folder for each; ``flat``: all in one folder), then
asks ``verify``, ``show`` and ``leaderboard`` for them, each in a process of its own, and prints the processor time it took.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from board import generated

from harness.records.record import Record

COMMANDS = ("verify", "show", "leaderboard")


def main() -> int:
    """Write, measure and print; 1 when a command did not end well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000, metavar="N", help="how many (default 10000)")
    parser.add_argument(
        "--layout", choices=("folders", "flat"), default="folders", help="a folder for each, or one for all"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write them there, and leave them there")
    arguments = parser.parse_args()
    print(f"{arguments.files:,} files of one record, {arguments.layout}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        if not folder.is_dir() or not any(folder.iterdir()):
            write(folder, arguments.files, arguments.layout)
        return max(_measured(command, folder) for command in COMMANDS)


def write(folder: Path, count: int, layout: str) -> None:
    """Write ``count`` files of one record below ``folder``, each with what a run notes of itself."""
    # Every seventh, so that there are many methods, and no measurement stands twice.
    for number, content in enumerate(islice(generated(7 * count, "wide"), 0, None, 7)):
        name = f"run-{number:010x}"
        record = Record.model_validate({**content, "run": name})
        place = folder / name if layout == "folders" else folder
        place.mkdir(parents=True, exist_ok=True)
        (place / f"records_{record.task.name}-{number:08x}.jsonl").write_text(record.to_line() + "\n", encoding="utf-8")
        if layout == "folders":
            notes = {"status": "finished", "started": record.created, "ended": record.created, "tasks": {}}
            (place / "run.json").write_text(json.dumps(notes), encoding="utf-8")


def _measured(command: str, folder: Path) -> int:
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(os.devnull, "wb") as nothing:
        status = subprocess.run([sys.executable, "-m", "harness.cli", command, str(folder)], stdout=nothing).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = time.perf_counter() - start
    print(f"{command:16}{seconds:>8.2f} s ({busy:.2f} s of processor time), status {status}")
    return status


if __name__ == "__main__":
    sys.exit(main())
