"""Texts longer than the context, in windows, and their scores put together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

Window = tuple[list[int], list[int]]


def windows_of(token_ids: list[int], *, first: int, max_length: int) -> list[Window]:
    """Return (context, scored) windows that score each id once, ``first`` standing before the first."""
    windows = get_rolling_token_windows(token_list=token_ids, prefix_token=first, max_seq_len=max_length, context_len=1)
    return [make_disjoint_window(window) for window in windows]


def in_whole(pieces: Sequence[Sequence[Any]], done: Callable[[int, list[Any]], None]) -> Callable[[int, Any], None]:
    """Return a function that takes the result of each piece by its number in the whole sequence of all pieces.

    As soon as the last piece of one item has come, ``done`` is given the item's number and its results in order.
    """
    owner = [(item, place) for item, several in enumerate(pieces) for place in range(len(several))]
    results: list[dict[int, Any]] = [{} for _ in pieces]
    for item, several in enumerate(pieces):
        if not several:
            done(item, [])

    def take(number: int, result: Any) -> None:
        item, place = owner[number]
        results[item][place] = result
        if len(results[item]) == len(pieces[item]):
            done(item, [results[item][place] for place in range(len(pieces[item]))])

    return take
