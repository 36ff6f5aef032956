"""Ledgers that git or hands left half-merged, mended: nothing is lost, nothing stands twice, one chain."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_records import baseline, record

from harness.records import ledger, repairing
from harness.records.record import Record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is."""
    return tmp_path / "team.jsonl"


def _sides(tmp_path: Path, base: list[Record], *sides: list[Record]) -> list[list[str]]:
    """Return the lines of the common beginning, and those that each side appended to it."""
    made = []
    for number, side in enumerate(([], *sides)):
        file = tmp_path / f"side{number}.jsonl"
        ledger.append(file, base)
        if side:
            ledger.append(file, side)
        made.append(file.read_text(encoding="utf-8").splitlines())
    return [made[0], *(lines[len(base) :] for lines in made[1:])]


def _write(path: Path, *lines: str, end: str = "\n") -> bytes:
    path.write_bytes("".join(line + end for line in lines).encode())
    return path.read_bytes()


def _seeds(path: Path) -> list[int | None]:
    reading = ledger.read_file(path)
    assert reading.problems == []
    return [record.seeds.random for record in reading.records]


def _is_chained(path: Path) -> bool:
    last = ""
    for line in ledger.lines(path):
        assert line.record is not None and line.content is not None
        last = ledger.next_chain(last, line.record.digest())
        if line.content["chain"] != last:
            return False
    return True


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("middle", [["======="], ["||||||| 1a2b3c4", "======="]])
def test_both_sides_stay_in_one_chain(path: Path, tmp_path: Path, middle: list[str], end: str) -> None:
    """Whichever style of conflict git writes, and whichever end of line an editor left."""
    base, ours, theirs = _sides(tmp_path, [record(seed=0)], [record(seed=1), record(seed=2)], [record(seed=3)])
    old = _write(path, *base, "<<<<<<< HEAD", *ours, *middle, *theirs, ">>>>>>> 1a2b (a run)", end=end)
    done = repairing.repair(path)
    assert (done.kept, done.set_aside, done.doubled, done.has_conflict) == (4, [], 0, True)
    assert _seeds(path) == [0, 1, 2, 3] and _is_chained(path)
    assert done.backup is not None and done.backup.read_bytes() == old
    assert not path.with_name("team.jsonl.torn").exists()
    assert repairing.repair(path, renew_chain=True).backup is None


def test_a_mark_that_was_overlooked_is_enough(path: Path, tmp_path: Path) -> None:
    """Somebody took two of three away by hand."""
    base, ours, theirs = _sides(tmp_path, [record(seed=0)], [record(seed=1)], [record(seed=2)])
    _write(path, *base, *ours, "=======", *theirs)
    assert repairing.repair(path).has_conflict
    assert _seeds(path) == [0, 1, 2] and _is_chained(path)


def test_of_two_results_of_one_measurement_the_second_is_set_aside(path: Path, tmp_path: Path) -> None:
    """It is in the .torn file with its reason; the untouched model that scored the same again goes without a word."""
    ours = [baseline(0.25), record(0.5)]
    theirs = [baseline(0.25, created="2026-02-02T00:00:00Z"), record(0.75), record(0.5, seed=1)]
    _, one, two = _sides(tmp_path, [], ours, theirs)
    _write(path, "<<<<<<< HEAD", *one, "=======", *two, ">>>>>>> x")
    done = repairing.repair(path)
    assert (done.kept, done.doubled) == (3, 1)
    [said] = done.set_aside
    assert said.startswith(f"line 6: the measurement of line 3 (key {ours[1].key()})")
    assert path.with_name("team.jsonl.torn").read_text(encoding="utf-8") == two[1] + "\n"
    assert [record.value for record in ledger.read_file(path).records] == [0.25, 0.5, 0.5]


def test_a_chain_is_made_anew_only_when_asked(path: Path, tmp_path: Path) -> None:
    """Lines that a merge put in the wrong place, one of them twice."""
    base, ours, theirs = _sides(tmp_path, [record(seed=0)], [record(seed=1)], [record(seed=2)])
    old = _write(path, *base, *theirs, *ours, *theirs)
    assert repairing.repair(path).backup is None and path.read_bytes() == old
    done = repairing.repair(path, renew_chain=True)
    assert (done.kept, done.doubled) == (3, 1)
    assert _seeds(path) == [0, 2, 1] and _is_chained(path)


def test_records_of_a_run_have_no_chain_to_renew(path: Path) -> None:
    """Asked for or not, what is in order stays as it is."""
    ledger.write(path, [record(seed=0), record(seed=1)])
    old = path.read_bytes()
    assert repairing.repair(path, renew_chain=True).backup is None
    assert path.read_bytes() == old
