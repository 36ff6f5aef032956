"""Making a ledger short under kills and failing calls: it is the old one or the short one, and every record is there."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from fault_tools import die_at, fail_at, points, run_forked
from made_records import made

from harness.errors import HarnessError
from harness.records import ledger, shortening

RECORDS = [made(number, report={"loss": [number // 2], "steps": 3}) for number in range(3)]


def _ledger(folder: Path) -> Path:
    path = folder / "p.jsonl"
    ledger.append(path, RECORDS)
    return path


def _is_whole(path: Path) -> bool:
    reading = ledger.read_file(path)
    return not reading.problems and reading.records == RECORDS


def test_killed_in_any_call_nothing_is_lost_and_the_same_command_completes_it(tmp_path: Path) -> None:
    counted = _ledger(tmp_path / "count")
    for name, k in points(lambda: shortening.shorten(counted)):
        path = _ledger(tmp_path / f"{name}-{k}")

        def killed(path: Path = path, name: str = name, k: int = k) -> None:
            with die_at(name, k):
                shortening.shorten(path)

        assert os.WIFSIGNALED(run_forked(killed)), (name, k)
        assert _is_whole(path), (name, k)
        shortening.shorten(path)
        assert _is_whole(path), (name, k)
        assert path.read_bytes() == counted.read_bytes(), (name, k)


def test_a_call_that_fails_leaves_the_old_ledger_or_the_short_one(tmp_path: Path) -> None:
    counted = _ledger(tmp_path / "count")
    old = counted.read_bytes()
    for name, k in points(lambda: shortening.shorten(counted)):
        path = _ledger(tmp_path / f"{name}-{k}")
        with fail_at(name, k, errno.ENOSPC), suppress(OSError, HarnessError):
            shortening.shorten(path)
        assert path.read_bytes() in {old, counted.read_bytes()}, (name, k)
        assert _is_whole(path), (name, k)
