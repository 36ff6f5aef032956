"""``harness eval`` into a folder that holds something odd: it prints its table and ends by its own records."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_runs import Command

pytestmark = pytest.mark.usefixtures("fresh")


def lay(folder: Path) -> None:
    """Put what is no plain file, and a file that gives nobody its beginning, where records are looked for."""
    (folder / "a.jsonl").mkdir()
    (folder / "b.jsonl").symlink_to("nowhere")
    os.mkfifo(folder / "c.jsonl")
    (folder / "d.jsonl").touch()
    (folder / "e.jsonl").symlink_to("/proc/self/mem")


def test_what_else_lies_in_its_folders_ends_no_run(evaluate: Command) -> None:
    """Case stray_entries: beside the runs and inside the run's own folder, before lm-eval's files are written."""
    out = Path("out")
    out.mkdir()
    lay(out)
    first = evaluate()
    assert (first.code, "colours" in first.out) == (0, True), first.err
    [run] = [path.parent for path in out.glob("*/run.json")]
    for written in run.glob("*/results_*.json"):
        written.unlink()
    lay(run)
    again = evaluate()
    assert (again.code, "colours" in again.out) == (0, True), again.err
    assert list(run.glob("*/results_*.json"))
