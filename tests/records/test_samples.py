"""Sample files of others: whatever lies there, one reader gives rows or one sentence with file and line, within bounds."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_records import record, rows_of

from harness.errors import HarnessError
from harness.records import samples

ROW = rows_of("colours_warm")[0]


def written(path: Path, *rows: Any) -> Path:
    content = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def sentence_of(path: Path, **bounds: Any) -> str:
    with pytest.raises(HarnessError) as told:
        list(samples.rows(path, **bounds))
    return str(told.value)


def test_rows_come_with_their_places_and_the_digest_of_all(tmp_path: Path) -> None:
    for name in ("samples_a.jsonl", "samples_a.jsonl.gz"):
        path, digest = written(tmp_path / name, ROW, ROW | {"doc_id": 1}), hashlib.sha256()
        assert [row["doc_id"] for row in samples.rows(path, most_docs=2, digest=digest)] == [0, 1]
        assert digest.hexdigest() == samples.sha256(path)
        (_, first), (start, second) = samples.placed_rows(path)
        assert (first, samples.row_at(path, start)) == (ROW, second)


def test_a_row_may_lack_fields_and_have_others(tmp_path: Path) -> None:
    path = written(
        tmp_path / "samples_a.jsonl", {}, {"doc": None, "traces": [[1]]}, ROW | {"metrics": ["f1"], "f1": None}
    )
    assert len(list(samples.rows(path))) == 3


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    return content[:10] + b"\xff" * 20 + content[30:]


@pytest.mark.parametrize(
    "damage", [cut, flipped, lambda _: b"no gzip", lambda c: c[:-4] + b"\0\0\0\0", lambda c: c[:1]]
)
def test_a_damaged_compressed_file_is_one_sentence(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Case damaged_gzip: whatever is wrong with the compression, the file is named, as of one that is cut short."""
    path = tmp_path / "samples_a.jsonl.gz"
    path.write_bytes(damage(gzip.compress(json.dumps(ROW).encode() + b"\n")))
    assert sentence_of(path).startswith(f"{path}, line ")
    with pytest.raises(HarnessError, match="cannot be read"):
        samples.sha256(path)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[1]", "a list, where an object is due"),
        ("{", "Expecting"),
        ('{"doc_hash": "\\ud800"}', "half of a character"),
        ('{"doc": ' + "[" * 100_000, "nested too deeply"),
        ('{"doc": ' + "[" * 100 + "]" * 100 + "}", "nested too deeply"),
        ('{"doc_id": ' + "9" * 5_000 + "}", "Exceeds the limit"),
        ("\ufeff", "Expecting value"),
        ("", "Expecting value"),
    ],
    ids=lambda text: text[:20],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str, told: str) -> None:
    sentence = sentence_of(written(tmp_path / "samples_a.jsonl", ROW, line))
    assert "samples_a.jsonl, line 2: " in sentence
    assert told in sentence


def test_what_is_no_utf8_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "samples_a.jsonl", ROW)
    path.write_bytes(path.read_bytes() + b'{"doc_hash": "\xed\xa0\x80"}\n')
    assert "line 2: 'utf-8' codec" in sentence_of(path)


def test_more_rows_than_the_record_counts_are_not_read(tmp_path: Path) -> None:
    two_filters = [ROW | {"filter": name, "doc_id": number} for number in range(2) for name in ("a", "b")]
    path = written(tmp_path / "samples_a.jsonl", *two_filters)
    assert len(list(samples.rows(path, most_docs=2))) == 4
    assert sentence_of(path, most_docs=1).endswith("line 3: more rows than the 1 documents that its record counts")
    path = written(tmp_path / "samples_b.jsonl", *[{"filter": str(number)} for number in range(1_001)])
    assert "line 1001: more rows" in sentence_of(path, most_docs=1)


def test_a_plain_line_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "samples_a.jsonl", ROW, {"doc": "x" * samples.MOST_LINE_BYTES})
    assert sentence_of(path).endswith("line 2: a line of more than 5 MB")


def test_what_a_file_may_expand_to_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_SAMPLE_BYTES", 10_000)
    path = written(tmp_path / "samples_a.jsonl.gz", *[{"doc_id": number} for number in range(1_000)])
    assert "it expands to more than" in sentence_of(path)
    with pytest.raises(HarnessError, match="it expands to more than"):
        samples.sha256(path)
    plain = written(tmp_path / "samples_a.jsonl", *[{"doc_id": number} for number in range(1_000)])
    assert len(list(samples.rows(plain))) == 1_000  # as large as it says


def test_a_small_file_that_expands_to_one_line_of_a_hundred_megabytes_costs_no_memory(tmp_path: Path) -> None:
    """Case damaged_gzip: the bound of ``leaderboard --check`` on a line holds for every reader."""
    path = tmp_path / "samples_a.jsonl.gz"
    packer = zlib.compressobj(1, wbits=31)
    with path.open("wb") as file:
        for block in [b'{"doc": "', *[b"x" * 1_000_000] * 100, b'"}\n']:
            file.write(packer.compress(block))
        file.write(packer.flush())
    ask = (
        "import sys, resource; from pathlib import Path; from harness.records import samples\n"
        "from harness.errors import HarnessError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: list(samples.rows(Path(sys.argv[1])))\n"
        "except HarnessError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", ask, str(path)], capture_output=True, text=True, check=True)
    sentence, kilobytes = done.stdout.splitlines()
    assert sentence.endswith("line 1: a line of more than 5 MB")
    assert int(kilobytes) < 50_000


def lay_folder(path: Path) -> None:
    path.mkdir()


def lay_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path))


@pytest.mark.parametrize(
    ("lay", "told"), [(lay_folder, "a folder"), (os.mkfifo, "a named pipe"), (lay_socket, "a socket")]
)
def test_what_is_no_plain_file_is_told_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lay: Callable[[Path], None], told: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = tmp_path / "samples_a.jsonl"
    lay(path)
    part = {"path": path.name, "sha256": "0" * 64, "rows": 5}
    named = record("colours_warm", [1.0, 0.0], rows_of("colours_warm"), samples=part)
    assert samples.find(named, tmp_path / "records.jsonl") == path
    assert f"it is {told}, no plain file" in sentence_of(path)


def test_a_link_that_leads_out_or_nowhere_names_no_sample_file(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    written(tmp_path / "samples_a.jsonl", ROW)
    for name, target in (("out", "../samples_a.jsonl"), ("nowhere", "x"), ("circle", "circle"), ("self", ".")):
        (inside / name).symlink_to(target)
        part = {"path": name, "sha256": "0" * 64, "rows": 5}
        named = record("colours_warm", [1.0, 0.0], rows_of("colours_warm"), samples=part)
        assert samples.find(named, inside / "records.jsonl") is None
