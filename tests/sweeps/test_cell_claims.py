"""Claims of cells: one worker at a time, taken over when nobody keeps them alive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness.run.run import Run
from harness.sweeps import claims
from harness.sweeps.cell import Cell, Sweep
from harness.sweeps.claims import Observer, attempts_in
from harness.sweeps.state import MOST_FAILURES, State


def _sweep(folder: Path) -> tuple[State, Cell]:
    cell = Cell(Run(tasks=("langgame",)), {"task": "langgame"})
    return State(Sweep(folder / "sweep.yaml", folder / "results", (cell,)), identify=lambda one: one.key), cell


def test_one_of_two_claims_a_cell(tmp_path: Path) -> None:
    """Of two that want the same attempt one gets it; the cell is under way until it ends."""
    state, cell = _sweep(tmp_path)
    first = state.claim(cell, "one")
    assert first is not None
    assert claims.claim(state.cell_folder(cell), 1, "two") is None
    assert state.claim(cell, "two") is None
    assert state.of(cell).status == "running"
    first.end("stopped")
    assert state.of(cell).status == "waiting"


def test_a_cell_of_a_process_that_is_gone_is_taken_over(tmp_path: Path) -> None:
    """A claim whose process of this machine is gone waits at once, and its next attempt has the next number."""
    state, cell = _sweep(tmp_path)
    code = (
        "import sys, os, pathlib; from harness.sweeps import claims;"
        "claims.claim(pathlib.Path(sys.argv[1]), 1, 'gone'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(state.cell_folder(cell))], check=False)
    assert (state.of(cell).status, state.of(cell).lost) == ("waiting", 1)
    second = state.claim(cell, "two")
    assert second is not None
    assert second.number == 2
    second.end("stopped")


def test_a_beat_that_stands_still_is_stale_by_the_observers_own_clock(tmp_path: Path) -> None:
    """The claim of another machine is gone when its beat did not change, whatever times its files bear."""
    folder = tmp_path / "cell"
    claims.claim(folder, 1, "far")
    (attempt,) = attempts_in(folder)
    far = claims.Attempt(1, {**attempt.owner, "machine": "another"})
    patient, hasty = Observer(stale_seconds=3600.0), Observer(stale_seconds=0.0)
    os.utime(folder / "claim-1.json", (0, 0))
    assert not patient.is_gone(folder, far)
    assert not patient.is_gone(folder, far)
    assert not hasty.is_gone(folder / "no such cell", far)  # seen for the first time
    assert hasty.is_gone(folder / "no such cell", far)


def test_three_failures_are_the_end_until_it_is_retried(tmp_path: Path) -> None:
    """A cell that failed three times has failed, with its last error; a retry lets it be claimed again."""
    state, cell = _sweep(tmp_path)
    for number in range(MOST_FAILURES):
        claim = state.claim(cell, "one")
        assert claim is not None
        claim.end("failed", error=f"error {number}")
    assert (state.of(cell).status, state.of(cell).why) == ("failed", f"error {MOST_FAILURES - 1}")
    assert state.claim(cell, "one") is None
    assert state.retry([cell]) == [cell]
    assert state.of(cell).status == "waiting"


def test_done_is_what_its_records_say(tmp_path: Path) -> None:
    """A cell is done while its records are there and it is what it was; else it waits again."""
    state, cell = _sweep(tmp_path)
    records = tmp_path / "results" / "run" / "records_langgame.jsonl"
    records.parent.mkdir(parents=True)
    records.write_text("{}\n", encoding="utf-8")
    claim = state.claim(cell, "one")
    assert claim is not None
    claim.end("done", **state.done(cell, [records]))
    assert state.of(cell).status == "done"
    other = State(Sweep(tmp_path / "s.yaml", tmp_path / "results", (cell,)), identify=lambda one: "other")
    assert other.of(cell).status == "waiting"
    records.unlink()
    assert (state.of(cell).status, state.of(cell).why) == ("waiting", "its records are gone")
