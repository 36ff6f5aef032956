"""JSON lines and JSON files that people bring: one reader, which names file, line and key in its errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.names import printable


def read_json_lines(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file, each with text under ``keys``.

    Raises:
        HarnessError: the file cannot be read, is empty, or a line lacks a key; file and line are named.
    """
    rows = []
    for number, line in enumerate(_text_of(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise HarnessError(f"{printable(path)}, line {number}, is not valid JSON: {error}") from error
        for key in keys:
            if not isinstance(row, dict) or not isinstance(row.get(key), str):
                raise HarnessError(f"{printable(path)}, line {number}, has no text under '{printable(key)}'")
        rows.append(row)
    if not rows:
        raise HarnessError(f"'{printable(path)}' is empty")
    return rows


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HarnessError(f"cannot read '{printable(path)}': {error.strerror or error}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HarnessError(f"'{printable(path)}' is no UTF-8 text: byte {error.start} cannot be read") from error
    if "\0" in text:
        raise HarnessError(f"'{printable(path)}' is no text: it holds NUL bytes")
    return text


Row = dict[str, Any]
Keys = Mapping[str, type | tuple[type, ...]]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        HarnessError: it cannot be read, is no UTF-8 or no JSON.
    """
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{printable(path)} is no valid JSON ({printable(error)}); get the file again") from error


def read_lines(path: Path, keys: Keys) -> list[Row]:
    """Return the objects of a JSON lines file in order; empty lines are passed over.

    Args:
        path: UTF-8, one object per line.
        keys: the keys every object has to hold, with the types of their values; it may hold more.

    Raises:
        HarnessError: the file cannot be read, holds no object, or a line is broken or lacks a key.
    """
    # Not splitlines(): it also splits at characters such as U+2028, which JSON texts may hold.
    numbered = enumerate(_text(path).split("\n"), start=1)
    rows = [_object(line, f"line {number} of {printable(path)}", keys) for number, line in numbered if line.strip()]
    if not rows:
        raise HarnessError(f"{printable(path)} holds no row; get the file again")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise HarnessError(f"{printable(path)} cannot be read ({error.strerror}); check the file") from error
    except UnicodeDecodeError as error:
        raise HarnessError(f"{printable(path)} is not UTF-8 text; get the file again") from error


def _object(line: str, where: str, keys: Keys) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{where} is no valid JSON ({printable(error)}); correct the line") from error
    if not isinstance(row, dict):
        raise HarnessError(f"{where} holds a {type(row).__name__}, where an object is due; correct the line")
    _check_keys(row, where, keys)
    return row


def _check_keys(row: Mapping[str, Any], where: str, keys: Keys) -> None:
    missing = [key for key in keys if key not in row]
    if missing:
        there = ", ".join(printable(key) for key in row) or "nothing"
        raise HarnessError(f"{where} has no '{missing[0]}'; it has {there}")
    for key, kinds in keys.items():
        # A bool is an int to isinstance, and no number here.
        if not isinstance(row[key], kinds) or isinstance(row[key], bool):
            names = " or ".join(kind.__name__ for kind in _kinds(kinds))
            raise HarnessError(f"{where} has a {type(row[key]).__name__} as '{key}', where {names} is due")


def _kinds(kinds: type | tuple[type, ...]) -> Iterator[type]:
    yield from kinds if isinstance(kinds, tuple) else (kinds,)
