"""Planned files stay below their folder, appear whole, and are left alone when nothing changed."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from harness.errors import HarnessError
from harness.publishing.files import PlannedFile, compressed, planned, write_all


@pytest.mark.parametrize("path", ["../x", "/tmp/x", "a/../../x", "a/../x"])
def test_no_file_is_written_outside_the_folder(path: str, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="leads out of"):
        write_all([planned(path, "x")], tmp_path / "inside", dry_run=False)
    assert not [found for found in tmp_path.rglob("*") if found.is_file()]


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "folder").symlink_to(tmp_path / "outside")
    (tmp_path / "inside" / "file").symlink_to(tmp_path / "outside" / "file")
    for path in ("folder/x", "file"):
        with pytest.raises(HarnessError, match="leads out of"):
            write_all([planned(path, "x")], tmp_path / "inside", dry_run=False)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_pipe_of_that_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(HarnessError, match="a named pipe, no plain file"):
        write_all([planned("x", "x")], tmp_path, dry_run=False)


def test_equal_content_gives_equal_compressed_bytes_of_any_length() -> None:
    def blocks() -> Iterator[bytes]:
        return (os.urandom(0) + bytes([n % 251]) * 10_000 for n in range(100))

    first, again = b"".join(compressed(blocks())), b"".join(compressed(blocks()))
    assert first == again
    assert gzip.decompress(first) == b"".join(blocks())


def test_a_file_whose_content_fails_midway_is_not_there(tmp_path: Path) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise OSError(28, "No space left on device")

    with pytest.raises(HarnessError, match="No space left"):
        write_all([PlannedFile(PurePosixPath("x"), blocks)], tmp_path, dry_run=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_the_same_content_is_left_alone(tmp_path: Path) -> None:
    files = [planned("a/b.txt", "one\n")]
    assert write_all(files, tmp_path, dry_run=True)[0].state == "new"
    assert not (tmp_path / "a").exists()
    assert write_all(files, tmp_path, dry_run=False)[0].state == "new"
    before = (tmp_path / "a" / "b.txt").stat().st_mtime_ns
    assert write_all(files, tmp_path, dry_run=False)[0].state == "same"
    assert (tmp_path / "a" / "b.txt").stat().st_mtime_ns == before
    assert write_all([planned("a/b.txt", "two\n")], tmp_path, dry_run=False)[0].state == "changed"
