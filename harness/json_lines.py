"""Text, JSON and JSON lines: one reader of what people bring, which names file, line and key in its errors, and one writer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.folders import write_atomic
from harness.names import printable

Row = dict[str, Any]
Keys = Mapping[str, type | tuple[type, ...]]
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file, ends of lines as they are, without a byte order mark.

    Raises:
        HarnessError: it cannot be read, is no UTF-8, or holds NUL bytes.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HarnessError(f"cannot read '{printable(path)}': {error.strerror or error}") from error
    if content.startswith(_UTF_16):
        raise HarnessError(f"'{printable(path)}' is not UTF-8 text but looks like UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HarnessError(f"'{printable(path)}' is no UTF-8 text: byte {error.start} cannot be read") from error
    if "\0" in text:
        raise HarnessError(f"'{printable(path)}' is no text: it holds NUL bytes")
    return text


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        HarnessError: it cannot be read, is no UTF-8 or no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{printable(path)} is no valid JSON ({printable(error)}); get the file again") from error


def read_json_lines(path: Path, keys: Keys) -> list[Row]:
    """Return the objects of a JSON lines file in order; empty lines are passed over.

    Args:
        path: UTF-8, one object a line.
        keys: the keys every object has to hold, with the types of their values; it may hold more. True and False are no
            ``int``.

    Raises:
        HarnessError: the file cannot be read, holds no object, or a line is broken or lacks a key; file, line and key
            are named.
    """
    return list(numbered_json_lines(path, keys).values())


def numbered_json_lines(path: Path, keys: Keys) -> dict[int, Row]:
    """Return the same as ``read_json_lines`` by the number of each line, from 1, for errors that name it.

    Raises:
        HarnessError: as ``read_json_lines``.
    """
    # Not splitlines(): it also splits at characters such as U+2028, which JSON texts may hold.
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    rows = {number: _row(line, path, number, keys) for number, line in enumerate(lines, start=1) if line.strip()}
    if not rows:
        raise HarnessError(f"'{printable(path)}' is empty: it holds no row; get the file again")
    return rows


def json_line(row: Mapping[str, Any]) -> str:
    """Return an object as the line of a JSON lines file, its end included: characters as they are, halves of some escaped.

    Raises:
        TypeError: JSON does not know a value.
        ValueError: a number is NaN or infinite.
    """
    line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # half a character: JSON has it as an escape, and no UTF-8 file has it
        line = json.dumps(row, allow_nan=False)
    return line + "\n"


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one object a line, so that a reader, or a crash, sees the old file or the whole new one.

    Raises:
        OSError: the disk refuses, or a link stands at ``path``; what was there is intact then.
        TypeError, ValueError: as ``json_line``; likewise.
    """
    write_atomic(path, map(json_line, rows))


def check_keys(row: Mapping[str, Any], where: str, keys: Keys) -> None:
    """Check an object inside a file as ``read_json_lines`` checks each line.

    Args:
        row: the object.
        where: what the error calls it, such as ``a call of 'a' in calls.json``.
        keys: the keys it has to hold, with the types of their values.

    Raises:
        HarnessError: a key is missing, or its value of another type.
    """
    missing = [key for key in keys if key not in row]
    if missing:
        raise HarnessError(f"{where} has no '{printable(missing[0])}'; it has {_names(row)}")
    for key, kinds in keys.items():
        # A bool is an int to isinstance, and no number here.
        if not isinstance(row[key], kinds) or (isinstance(row[key], bool) and kinds is not bool):
            names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            raise HarnessError(f"{where} has a {type(row[key]).__name__} as '{printable(key)}', where {names} is due")


def _row(line: str, path: Path, number: int, keys: Keys) -> Row:
    where = f"line {number} of {printable(path)}"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{where} is no valid JSON ({printable(error)}); correct the line") from error
    if not isinstance(row, dict):
        raise HarnessError(f"{where} holds a {type(row).__name__}, where an object is due; correct the line")
    for key, kinds in keys.items():
        if kinds is str and not isinstance(row.get(key), str):
            place = f"{printable(path)}, line {number},"
            raise HarnessError(f"{place} has no text under '{printable(key)}'; it has {_names(row)}")
    check_keys(row, where, keys)
    return row


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(printable(key) for key in row) or "nothing"
