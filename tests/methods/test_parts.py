"""Parts of long work: each made once, found again after an interruption by the same work alone, gone when all is done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.methods.parts import Parts, forget

SAME = {"seed": 0, "ids": (1, 2)}


def make(number: int, made: list[int]) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        made.append(number)
        return {"rows": [{"text": f"tick \ud800 \u00e9 {number}", "rate": 0.1 * number, "ids": (1, number)}]}

    return work


def done(workdir: Path, *numbers: int, identity: Any = SAME) -> list[int]:
    """Ask for parts, and return which of them were made."""
    made: list[int] = []
    parts = Parts(workdir, identity)
    for number in numbers:
        part = parts.part(number, make(number, made))
        assert part == {"rows": [{"text": f"tick \ud800 \u00e9 {number}", "rate": 0.1 * number, "ids": [1, number]}]}
    return made


def file_of(workdir: Path) -> Path:
    [file] = (workdir.parent / ".unfinished").glob("*/parts.jsonl")
    return file


def test_parts_are_made_once_and_are_gone_when_all_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdir = tmp_path / "work"
    assert done(workdir, 0, 1) == [0, 1]
    assert done(workdir, 0, 1, 2) == [2]
    assert done(workdir, 0, 1, 2) == []
    assert "an interrupted run had done 2 parts of this work" in capsys.readouterr().err
    assert done(tmp_path / "other", 0) == [0]
    Parts(workdir, SAME).forget()
    forget(tmp_path / "other")
    assert list(tmp_path.iterdir()) == []
    forget(workdir)  # nothing there is nothing to do


def test_other_work_finds_none_of_them_and_takes_their_place(tmp_path: Path) -> None:
    workdir = tmp_path / "work"
    assert done(workdir, 0, 1) == [0, 1]
    assert done(workdir, 0, identity={"seed": 1, "ids": (1, 2)}) == [0]
    assert done(workdir, 0, 1) == [0, 1]


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda lines: b"".join(lines)[:-9], 1),  # torn by a kill
        (lambda lines: b"".join(lines) + b'{"part": {}}\n', 2),
        (lambda lines: b"".join(lines) + b"{", 2),
        (lambda lines: lines[0] + lines[1].replace(b"tick", b"tock") + lines[2], 0),
        (lambda lines: lines[0] + b"\xff\n" + lines[2], 0),
        (lambda lines: lines[0][:-3], 0),
        (lambda lines: b"", 0),
    ],
)
def test_a_line_that_is_not_as_it_was_written_ends_what_is_found(
    tmp_path: Path, damage: Callable[[list[bytes]], bytes], left: int
) -> None:
    workdir = tmp_path / "work"
    done(workdir, 0, 1)
    file = file_of(workdir)
    file.write_bytes(damage(file.read_bytes().splitlines(keepends=True)))
    assert done(workdir, 0, 1, 2) == [0, 1, 2][left:]
    assert done(workdir, 0, 1, 2) == []
    assert [json.loads(line).keys() for line in file_of(workdir).read_bytes().splitlines()][1:] == [
        {"part", "digest"}
    ] * 3


def test_a_disk_that_refuses_costs_the_going_on_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".unfinished").write_text("somebody's", encoding="utf-8")
    assert done(tmp_path / "work", 0, 1) == [0, 1]
    assert capsys.readouterr().err.count("cannot be kept for a later start") == 1


def test_a_link_is_refused_and_parts_come_in_order(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="part 1 is asked for before part 0"):
        done(tmp_path / "work", 1)
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / ".unfinished")
    with pytest.raises(HarnessError, match="is a link"):
        done(tmp_path / "work", 0)
    assert list((tmp_path / "elsewhere").iterdir()) == []
