"""The ledger under kills, failing system calls, full disks and many writers; bad writers fall through the same checks."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import pytest
from fault_tools import calls_in_order, examine, fail_at, kill_loop, points, run_forked
from fault_writers import BAD_WRITERS, harness_ledger
from made_records import line_of, made, number_of
from writer_checks import CHECKS, ERRORS, each_failing_call, killed_in_each_call, no_file_yet, torn_file

from harness.folders import write_atomic
from harness.records import ledger

SEED = 5


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_the_ledger_loses_tears_and_doubles_nothing(check, tmp_path: Path) -> None:
    """``check`` says what was done to it."""
    assert check(harness_ledger, tmp_path) == []


@pytest.mark.parametrize("make", [no_file_yet, torn_file])
def test_a_new_or_torn_ledger_stands_the_same(make, tmp_path: Path) -> None:
    failing = each_failing_call(harness_ledger, tmp_path, make=make, errors=[errno.ENOSPC])
    assert [text for found in failing for text in found] == []
    (tmp_path / "killed").mkdir()
    assert killed_in_each_call(harness_ledger, tmp_path / "killed", make=make) == []


@pytest.mark.parametrize(
    ("writer", "check"),
    [
        ("buffered", "kills"),
        ("buffered", "full_disk"),
        ("flushed", "torn_end"),
        ("one_write", "full_disk"),
        ("one_write", "killed_in_each_call"),
        ("no_heal", "killed_in_each_call"),
        ("no_heal", "torn_end"),
        ("no_heal", "whole_line_without_newline"),
        ("no_loop", "full_disk"),
        ("no_loop", "torn_end"),
    ],
)
def test_a_bad_writer_is_caught(writer: str, check: str, tmp_path: Path) -> None:
    assert CHECKS[check](BAD_WRITERS[writer], tmp_path) != []


def test_kills_within_megabytes_are_healed_and_what_was_torn_is_kept(tmp_path: Path) -> None:
    found = kill_loop(harness_ledger, tmp_path / "x.jsonl", n=5, seed=SEED, size=1_000_000, in_write=True)
    assert found.is_clean, f"seed {SEED}: {found}"
    assert found.healed == found.kills == 5


def test_eight_writers_at_once_lose_and_mix_nothing(tmp_path: Path) -> None:
    path, context = tmp_path / "x.jsonl", multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(path, writer)) for writer in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    found = examine(path, {writer * 100 + number for writer in range(8) for number in range(len(LENGTHS))})
    assert found.is_clean, found
    assert found.acknowledged == 8 * len(LENGTHS)
    assert _is_chained(path)


LENGTHS = (0, 100, 3_000, 0, 70_000, 500, 1_000_000, 10_000)


def _append_many(path: Path, writer: int) -> None:
    for number, length in enumerate(LENGTHS):
        ledger.append(path, [made(writer * 100 + number, size=length)])


def _is_chained(path: Path) -> bool:
    chain = ""
    for line in ledger.lines(path):
        assert line.content is not None
        chain = ledger.next_chain(chain, line.content["digest"])
        if line.content["chain"] != chain:
            return False
    return True


def test_several_records_are_appended_all_or_none(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    ledger.append(path, [made(0)])
    before = path.read_bytes()
    for name, k in points(lambda: ledger.append(tmp_path / "count.jsonl", [made(1), made(2)])):
        with fail_at(name, k, errno.ENOSPC):
            try:
                ledger.append(path, [made(1), made(2)])
            except OSError:
                assert {number_of(record) for record in ledger.read_file(path).records} in ({0}, {0, 1, 2}), (name, k)
        path.write_bytes(before)


def test_the_chain_goes_on_over_a_restart_and_a_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    ledger.append(path, [made(0), made(1)])
    with path.open("ab") as file:
        file.write(line_of(made(9))[:100])
    ledger.append(path, [made(2)])
    assert _is_chained(path)


def test_a_ledger_never_changes_what_stands_in_it(tmp_path: Path) -> None:
    path, before = tmp_path / "x.jsonl", b""
    for number in range(4):
        ledger.append(path, [made(number)])
        assert path.read_bytes().startswith(before)
        before = path.read_bytes()


def test_an_acknowledged_record_is_synced_and_so_is_the_folder_of_a_new_file(tmp_path: Path) -> None:
    calls = calls_in_order(lambda: ledger.append(tmp_path / "x.jsonl", [made(0)]))
    assert calls.count("os.fsync") == 2
    assert calls.index("os.write") < calls.index("os.fsync")
    assert "os.write" not in calls[calls.index("os.fsync") :]


def test_a_file_is_renamed_only_after_it_was_synced(tmp_path: Path) -> None:
    calls = calls_in_order(lambda: write_atomic(tmp_path / "x", "content"))
    assert calls.index("file.write") < calls.index("os.fsync") < calls.index("os.replace")
    assert "os.fsync" in calls[calls.index("os.replace") :], "the folder is not synced after the rename"


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for-good"])
@pytest.mark.parametrize("old", [None, b"old content\n"], ids=["new", "replacing"])
def test_a_file_is_old_or_new_whichever_call_of_its_writing_fails(
    code: int, for_good: bool, old: bytes | None, tmp_path: Path
) -> None:
    new = b"new content\n" * 1000
    for name, k in points(lambda: write_atomic(tmp_path / "count", new)):
        path = tmp_path / f"{name}-{k}" / "file"
        path.parent.mkdir()
        if old is not None:
            path.write_bytes(old)
        with fail_at(name, k, code, for_good=for_good):
            try:
                write_atomic(path, new)
                allowed = {new}
            except OSError:
                allowed = {old, new}
        assert (path.read_bytes() if path.exists() else None) in allowed, (name, k)
        is_hopeless = name == "os.unlink" and for_good
        assert is_hopeless or [file.name for file in path.parent.iterdir() if file != path] == [], (name, k)


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write() -> None:
        from fault_tools import limit_files

        limit_files(5000)
        write_atomic(path, b"x" * 10_000)

    assert os.waitstatus_to_exitcode(run_forked(write)) == 3
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
