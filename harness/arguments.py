"""Text of a command line to typed values: ``k=v`` lists, JSON objects, and single values by the type they are to have."""

from __future__ import annotations

import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Union

from harness.errors import HarnessError
from harness.names import printable


def parse_args(text: str | Mapping[str, Any] | None, *, flag: str) -> dict[str, Any]:
    """Parse ``k=v,k=v`` or a JSON object into a dict; commas inside brackets and quotes do not split.

    Args:
        text: what the user gave; a mapping is taken as it is.
        flag: the flag's name, for the error.

    Raises:
        HarnessError: broken JSON, an item without ``=``, or an option given twice.
    """
    if text is None or isinstance(text, Mapping):
        return dict(text or {})
    if text.lstrip().startswith("{"):
        return _parse_json_object(text, flag=flag)
    parsed: dict[str, Any] = {}
    for item in _split_top_level(text, flag=flag):
        name, equals, value = item.partition("=")
        name = name.strip()
        if not equals or not name:
            raise HarnessError(f"{flag} takes k=v,k=v or a JSON object; '{printable(item)}' is neither")
        if name in parsed:
            raise HarnessError(f"{flag} gives '{printable(name)}' twice")
        parsed[name] = _unquoted(value.strip())
    return parsed


def convert(value: Any, hint: Any) -> Any:
    """Convert text or a JSON value to the type ``hint``.

    Raises:
        ValueError: it cannot be; the message continues "option 'x' is ...".
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {Union, types.UnionType}:
        return _convert_optional(value, arguments)
    if origin is Literal:
        choices = {str(choice): choice for choice in arguments}
        if str(value) not in choices:
            raise ValueError(f"{_shown(value)}, where one of {', '.join(choices)} is due")
        return choices[str(value)]
    if origin is tuple:
        return tuple(convert(item, arguments[0]) for item in _items(value))
    converter = _CONVERTERS.get(hint)
    if converter is None:
        raise ValueError(f"of a type that text cannot give ({type_text(hint)})")
    return converter(value)


def type_text(hint: Any) -> str:
    """Return a type as a user reads it: ``whole number``, ``path or none``, ``soft|hard``, ``list of text``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {Union, types.UnionType}:
        return " or ".join("none" if a is type(None) else type_text(a) for a in arguments)
    if origin is Literal:
        return "|".join(str(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {type_text(arguments[0])}"
    return {Path: "path", str: "text", float: "number", int: "whole number", bool: "true|false"}.get(
        hint, getattr(hint, "__name__", str(hint))
    )


def _convert_optional(value: Any, arguments: tuple[Any, ...]) -> Any:
    if type(None) in arguments and (
        value is None or (isinstance(value, str) and value.lower() in {"none", "null", ""})
    ):
        return None
    # Text fits everything, so it comes last: 8 is a number where number or text is due.
    kinds = sorted((a for a in arguments if a is not type(None)), key=lambda kind: kind in {str, Path})
    for kind in kinds[:-1]:
        with suppress(ValueError):
            return convert(value, kind)
    return convert(value, kinds[-1])


def _items(value: Any) -> Sequence[Any]:
    """Return the items of a list option: a JSON list, words in brackets by comma, or words by + or space."""
    if isinstance(value, list | tuple):
        return value
    text = str(value).strip()
    if not (text.startswith("[") and text.endswith("]")):
        return [part for part in re.split(r"[+\s]+", text) if part]
    with suppress(ValueError):
        return list(json.loads(text))
    return [_unquoted(part.strip()) for part in text[1:-1].split(",") if part.strip()]


def _to_bool(value: Any) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in known:
        raise ValueError(f"{_shown(value)}, where true or false is due")
    return known[str(value).lower()]


def _to_int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{_shown(value)}, where a whole number is due")
    try:
        return int(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{_shown(value)}, where a whole number is due") from None


def _to_float(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{_shown(value)}, where a finite number is due")
    return number


def _to_path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError(f"{_shown(value)}, where a path is due")
    return Path(value).expanduser()


def _to_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)}, where text is due")
    return value


_CONVERTERS: dict[Any, Any] = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str, Path: _to_path}


def _shown(value: Any) -> str:
    return f"'{printable(value)}'"


def _parse_json_object(text: str, *, flag: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _without_twins(pairs, flag=flag))
    except ValueError as error:
        raise HarnessError(f"{flag} begins like JSON but does not parse: {error}") from error
    if not isinstance(value, dict):
        raise HarnessError(f"{flag} takes a JSON object, not {type(value).__name__}")
    return value


def _split_top_level(text: str, *, flag: str) -> list[str]:
    items, depth, quote, start = [], 0, "", 0
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and text[position - 1 : position] in {"=", "[", ",", " "}:
            quote = character  # elsewhere it is an apostrophe
        elif character in "[({" and (depth or text[position - 1 : position] == "="):
            depth += 1
        elif character in "])}" and depth:
            depth -= 1
        elif character == "," and not depth:
            items.append(text[start:position])
            start = position + 1
    items.append(text[start:])
    if quote or depth:
        raise HarnessError(
            f"{flag} has {'a quote' if quote else 'a bracket'} that is never closed: {printable(items[-1])}"
        )
    return [item for item in items if item.strip()]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _without_twins(pairs: list[tuple[str, Any]], *, flag: str) -> dict[str, Any]:
    """Return a JSON object's dict; a key given twice is a mistake, of which JSON would keep the last."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise HarnessError(f"{flag} gives '{printable(name)}' twice")
    return dict(pairs)
