"""JSON and JSON lines that people bring: what is read, and errors that name file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.json_lines import (
    check_keys,
    json_line,
    numbered_json_lines,
    read_json,
    read_json_lines,
    read_text,
    write_json_lines,
)


def test_objects_come_in_order_with_all_their_keys_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "clocks.jsonl"
    file.write_bytes('\ufeff{"name": "cuckoo", "hour": 7}\r\n\r\n  \n{"name": "grandfather", "more": [1]}'.encode())
    assert read_json_lines(file, {"name": str}) == [
        {"name": "cuckoo", "hour": 7},
        {"name": "grandfather", "more": [1]},
    ]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0c", "\x1e"])
def test_characters_that_end_lines_elsewhere_are_part_of_a_text(tmp_path: Path, character: str) -> None:
    file = tmp_path / "clocks.jsonl"
    text = "tick" + (character if ord(character) > 31 else f"\\u{ord(character):04x}") + "tock"
    file.write_text(f'{{"text": "{text}"}}\n', encoding="utf-8")
    assert read_json_lines(file, {"text": str}) == [{"text": f"tick{character}tock"}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"name": "a", "hour": 1}\n\n{"name"', "line 3 of .*clocks.jsonl is no valid JSON"),
        (b'{"name": "a", "hour": 1}\n[]\n', "line 2 of .*clocks.jsonl holds a list, where an object is due"),
        (b'{"name": "a"}', "line 1 of .*clocks.jsonl has no 'hour'; it has name"),
        (b'{"hour": 1, "day": 2}', "clocks.jsonl, line 1, has no text under 'name'; it has hour, day"),
        (b'{"name": null, "hour": 1}', "clocks.jsonl, line 1, has no text under 'name'"),
        (b'{"name": "a", "hour": "7"}', "line 1 of .*clocks.jsonl has a str as 'hour', where int or float is due"),
        (b'{"name": "a", "hour": true}', "has a bool as 'hour', where int or float is due"),
        (b"[" * 100_000, "is no valid JSON"),
        (b'{"name": "a\xff"}', "is no UTF-8 text: byte 11 cannot be read"),
        ('{"name": "a"}'.encode("utf-16"), "is not UTF-8 text but looks like UTF-16"),
        (b'{"name": "a\x00"}', "it holds NUL bytes"),
        (b"\n \n", "clocks.jsonl' is empty: it holds no row"),
    ],
)
def test_a_broken_file_is_refused_with_file_line_and_key(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "clocks.jsonl"
    file.write_bytes(content)
    with pytest.raises(HarnessError, match=words) as error:
        read_json_lines(file, {"name": str, "hour": (int, float)})
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_text, read_json):
        with pytest.raises(HarnessError, match=r"cannot read '.*none\.json': No such file"):
            read(tmp_path / "none.json")


def test_a_json_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "clocks.json").write_text('{"a": [1, "\u2028"]}', encoding="utf-8")
    assert read_json(tmp_path / "clocks.json") == {"a": [1, "\u2028"]}
    (tmp_path / "clocks.json").write_text("{a", encoding="utf-8")
    with pytest.raises(HarnessError, match=r"clocks\.json is no valid JSON .*; get the file again"):
        read_json(tmp_path / "clocks.json")


def test_text_keeps_its_ends_of_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbftick\r\ntock\n")
    assert read_text(tmp_path / "a.txt") == "tick\r\ntock\n"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "the clock of 'a' has no 'is_right'; it has nothing"),
        ({"is_right": 1}, "the clock of 'a' has a int as 'is_right', where bool is due"),
    ],
)
def test_objects_inside_a_file_are_checked_the_same_way(row: dict[str, Any], words: str) -> None:
    check_keys({"is_right": True}, "the clock of 'a'", {"is_right": bool})
    with pytest.raises(HarnessError, match=words):
        check_keys(row, "the clock of 'a'", {"is_right": bool})


def test_what_is_written_is_read_again_whatever_the_characters(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "clocks.jsonl"
    rows = [{"text": "\u00e9\u2028\n\ud83d\U0001f642 \u65e5"}, {"text": "\ud800"}, {"text": "a", "more": [0.1, None]}]
    write_json_lines(file, iter(rows))
    assert read_json_lines(file, {"text": str}) == rows
    assert json_line({"text": "\u00e9"}) == '{"text": "\u00e9"}\n' and json_line({"text": "\ud800"}).isascii()


def test_what_json_cannot_hold_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    file = tmp_path / "clocks.jsonl"
    write_json_lines(file, [{"hour": 7}])
    for value in (float("nan"), float("inf"), {1}):
        with pytest.raises((ValueError, TypeError)):
            write_json_lines(file, [{"hour": 8}, {"hour": value}])
    assert read_json_lines(file, {"hour": int}) == [{"hour": 7}]
    assert [path.name for path in tmp_path.iterdir()] == ["clocks.jsonl"]


def test_rows_are_numbered_by_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "clocks.jsonl"
    file.write_text('\n{"hour": 7}\n\n{"hour": 8}', encoding="utf-8")
    assert numbered_json_lines(file, {"hour": int}) == {2: {"hour": 7}, 4: {"hour": 8}}
