"""What a row of a sample file has to be: the type of each field that anything here reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Deeper ones are written by nobody, and cost more to look at than to write.
MOST_LEVELS = 60
# No float holds a larger number.
_MOST = 10**300


def checked(row: Any) -> dict[str, Any]:
    """Return a row whose fields are of the types that lm-eval writes; it may lack some, and have others.

    Raises:
        ValueError: it is no object, or a field is of another type; the message says which.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{_kind(row)}, where an object is due")
    for name, (is_due, due) in _FIELDS.items():
        if name in row and not is_due(row[name]):
            raise ValueError(f"its field {name} is {_kind(row[name])}, where {due} is due")
    for name in row.get("metrics", ()):
        if not _is_moderate(row.get(name)):
            raise ValueError(f"its field {name} is a number too large to compute with")
    return row


def is_too_deep(value: Any) -> bool:
    """Whether lists and objects stand in each other more than ``MOST_LEVELS`` deep."""
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [
            part
            for one in level
            for part in (one.values() if isinstance(one, dict) else one)
            if isinstance(part, list | dict)
        ]
        if not level:
            return False
    return True


def _is_moderate(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_moderate, value))
    return not isinstance(value, int) or -_MOST < value < _MOST


def _is_number_of_document(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_requests(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(part, dict) for part in value.values())
    return isinstance(value, list) and all(map(_is_list, value))


def _kind(value: Any) -> str:
    """Return what JSON calls a value, with its article."""
    if value is None:
        return "null"
    kinds = ((bool, "a truth value"), (int | float, "a number"), (str, "a text"), (list, "a list"), (dict, "an object"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "something else")


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "doc_id": (_is_number_of_document, "the number of a document"),
    "target": (_is_text, "a text"),
    "arguments": (_are_requests, "an object or list of requests"),
    "resps": (_is_list, "a list"),
    "filtered_resps": (_is_list, "a list"),
    "filter": (_is_text, "a text"),
    "metrics": (_is_list_of_names, "a list of names"),
    "doc_hash": (_is_text, "a text"),
    "prompt_hash": (_is_text, "a text"),
    "target_hash": (_is_text, "a text"),
}
