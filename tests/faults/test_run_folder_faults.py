"""The writer of a task's samples and records, while the disk refuses one call after the other."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from fault_tools import die_at, fail_at, limit_files, points, run_forked
from made_records import made, number_of

from harness import HarnessError
from harness.records import ledger, samples
from harness.run.folder import RunFolder

OLD, NEW = 1, 2


def _rows(number: int) -> list[dict[str, Any]]:
    return [
        {"doc_id": place, "doc": {"text": f"ß {number}"}, "target": "x", "arguments": [["a", "b"]], "resps": [["c"]],
         "filtered_resps": ["c"], "filter": "none", "metrics": ["acc"], "doc_hash": "d", "prompt_hash": "p", "acc": 1.0}
        for place in range(3)
    ]  # fmt: skip


def _save(output: Path, number: int) -> None:
    folder = RunFolder(output, "run", model="tiny")
    folder._notes = {"status": "running", "tasks": {}}  # what ``owned`` writes first
    # One measurement, so that the new record takes the place of the old one.
    folder.save_task("t", _rows(number), [made(0, value=float(number))])


def _points(folder: Path, *, has_old: bool) -> list[tuple[str, int]]:
    _save(folder / "imports", OLD)
    if has_old:
        _save(folder / "count", OLD)
    return points(lambda: _save(folder / "count", NEW))


def _faults(output: Path) -> list[str]:
    """Return what is wrong: records that are not old or new, samples that are not theirs, files left over."""
    reading = ledger.read(output) if output.exists() else ledger.Reading()
    found = list(reading.problems)
    if len(reading.records) > 1 or any(record.value not in {OLD, NEW} for record in reading.records):
        found.append(f"records: {[(number_of(record), record.value) for record in reading.records]}")
    for record, origin in zip(reading.records, reading.origins, strict=True):
        path = samples.find(record, origin.file)
        if path is None or record.samples is None or samples.sha256(path) != record.samples.sha256:
            found.append("the samples of a record are not there, or not whole")
    return found + [path.name for path in output.rglob("*.partial")]


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for-good"])
@pytest.mark.parametrize("has_old", [False, True], ids=["new", "replacing"])
def test_a_task_is_saved_whole_or_not_at_all_whichever_call_fails(
    has_old: bool, for_good: bool, tmp_path: Path
) -> None:
    for name, k in _points(tmp_path, has_old=has_old):
        output = tmp_path / f"{name}-{k}"
        if has_old:
            _save(output, OLD)
        with fail_at(name, k, errno.ENOSPC, for_good=for_good):
            try:
                _save(output, NEW)
                is_told = False
            except (HarnessError, OSError):
                is_told = True
        where = (name, k)
        if name not in {"os.unlink", "os.stat"} or not for_good:  # then nothing can be removed, or known to be ours
            assert _faults(output) == [], where
        if not is_told:
            assert [record.value for record in ledger.read(output).records] == [NEW], where
        _save(output, NEW)
        assert [record.value for record in ledger.read(output).records] == [NEW], where


@pytest.mark.parametrize("has_old", [False, True], ids=["new", "replacing"])
def test_a_kill_in_any_call_leaves_a_task_old_or_new(has_old: bool, tmp_path: Path) -> None:
    for name, k in _points(tmp_path, has_old=has_old):
        output = tmp_path / f"{name}-{k}"
        if has_old:
            _save(output, OLD)

        def save(output: Path = output, name: str = name, k: int = k) -> None:
            with die_at(name, k):
                _save(output, NEW)

        assert os.WIFSIGNALED(run_forked(save)), (name, k)
        # What a killed process was writing under a temporary name stays; nothing else does.
        assert [fault for fault in _faults(output) if not fault.endswith(".partial")] == [], (name, k)
        _save(output, NEW)
        assert [record.value for record in ledger.read(output).records] == [NEW], (name, k)


@pytest.mark.parametrize("room", [0, 100, 600, 1000])
def test_a_full_disk_leaves_the_old_task(room: int, tmp_path: Path) -> None:
    _save(tmp_path, OLD)

    def save() -> None:
        limit_files(room)
        with pytest.raises(HarnessError, match=r"^could not save to "):
            _save(tmp_path, NEW)

    assert run_forked(save) == 0
    assert [record.value for record in ledger.read(tmp_path).records] == [OLD]
    assert _faults(tmp_path) == []
