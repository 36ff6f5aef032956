"""Calls of functions as they are written in a text: where their bracket closes, and what stands in it."""

from __future__ import annotations

import bisect
import re
from itertools import pairwise

_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d"}
_CLOSING_QUOTE = re.compile(r"""(?<!\\)["'\u201d](?=\s*(?:[,)\]}]|\Z))""")


def closing_bracket(text: str) -> int | None:
    """Return where the bracket closes that was opened before ``text``; None where it does not before the line ends."""
    depth = 0
    for place, character in enumerate(text):
        if character == "\n":
            return None
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return place
    return None


def split_arguments(text: str) -> list[str]:
    """Return the arguments of a call as texts: split at commas outside brackets and quotes, and freed of outer quotes.

    A quote opens only where an argument or a part in brackets begins, and only if another closes it before a comma, a
    closing bracket or the end; so the one in ``O'Brien`` is a letter.
    """
    if not text.strip():
        return []
    closing = {quote: [m.start() for m in _CLOSING_QUOTE.finditer(text) if m[0] == quote] for quote in _QUOTES.values()}
    borders, depth, position, may_open = [-1], 0, 0, True
    while position < len(text):
        character = text[position]
        end = _closing_place(closing, character, position) if may_open else None
        if end is not None:
            position, character = end, "quoted"
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        elif character == "," and depth == 0:
            borders.append(position)
        may_open = character in "([{,:" or (may_open and character.isspace())
        position += 1
    borders.append(len(text))
    return [_bare(text[start + 1 : end].strip()) for start, end in pairwise(borders)]


def _closing_place(closing: dict[str, list[int]], character: str, position: int) -> int | None:
    """Return where the quote that opens at ``position`` is closed, or None where it is not one that opens."""
    places = closing.get(_QUOTES.get(character, ""), [])
    next_place = bisect.bisect_right(places, position)
    return places[next_place] if next_place < len(places) else None


def _bare(argument: str) -> str:
    """Take the quotes off an argument that stands in them as a whole."""
    quote = _QUOTES.get(argument[:1])
    ends = (match.end() for match in _CLOSING_QUOTE.finditer(argument, 1) if match[0] == quote)
    if next(ends, None) != len(argument):
        return argument
    return argument[1:-1].replace(f"\\{quote}", f"{quote}")
