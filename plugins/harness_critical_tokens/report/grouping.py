"""Tokens as they can be shown: those that are parts of one character stand together."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Joins the character before it with the one behind it.
_JOINER = "\u200d"
_MODIFIERS = range(0x1F3FB, 0x1F400)


@dataclass(frozen=True)
class Group:
    """Some tokens in a row, from ``first`` up to ``end``, and their text; the texts of all groups are the response."""

    text: str
    first: int
    end: int


def groups(text: str, offsets: Sequence[tuple[int, int]]) -> list[Group]:
    """Return the tokens of a text in groups of which none begins or ends inside a character as people see it.

    Characters that belong to no token go to the one behind them; what is behind the last token makes a group without tokens.
    A token without characters stands alone at the end of the text, where it is end-of-text, and else with the one behind it.

    Args:
        text: the response.
        offsets: the characters (start, end) of each token, in order; they may overlap.
    """
    found: list[Group] = []
    place = first = 0
    for token, end in enumerate(_ends(offsets, len(text))):
        last = token + 1
        if end > place and _is_border(text, end) and not _goes_on(offsets, last, end):
            found.append(Group(text[place:end], first, last))
            place, first = end, last
    if first < len(offsets) or place < len(text):
        found.append(Group(text[place:], first, len(offsets)))
    return found


def _ends(offsets: Sequence[tuple[int, int]], length: int) -> Iterator[int]:
    """Yield where each token ends, none before the one in front of it and none behind the text."""
    furthest = 0
    for _, end in offsets:
        furthest = max(furthest, min(end, length))
        yield furthest


def _goes_on(offsets: Sequence[tuple[int, int]], token: int, end: int) -> bool:
    """Return whether a token begins before ``end``, where the one in front of it ended: both share a character."""
    return token < len(offsets) and offsets[token][0] < min(end, offsets[token][1])


def _is_border(text: str, place: int) -> bool:
    """Return whether a character as people see it ends before ``place``."""
    if place >= len(text):
        return True
    after = text[place]
    is_mark = unicodedata.category(after) in {"Mn", "Me", "Mc"} or ord(after) in _MODIFIERS
    return not (is_mark or after == _JOINER or text[place - 1] == _JOINER)
