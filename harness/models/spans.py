"""Texts as tokens, with a border between tokens wherever a span of characters begins or ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.errors import HarnessError

Offsets = list[tuple[int, int]]


def encode_apart(tokenizer: Any, text: str, spans: Sequence[tuple[int, int]]) -> tuple[list[int], Offsets, int]:
    """Return a text as tokens of which none lies on both sides of an end of a span.

    The text is encoded as a whole, and in parts where an end would lie inside a token. White space before a span may be in
    its first token.

    Args:
        tokenizer: a fast one.
        text: encoded without special tokens.
        spans: (start, end) in characters of the text.

    Returns:
        The ids, the characters (start, end) of each, and at how many places the text was encoded in parts.

    Raises:
        HarnessError: the tokenizer does not tell the characters of a token.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise HarnessError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for, so results cannot be found "
            "among the tokens; use a model with a fast tokenizer"
        )
    edges = sorted({edge for span in spans for edge in span} - {0, len(text)})
    starts = {start for start, _ in spans}
    cuts: list[int] = []
    while True:
        token_ids, offsets = _in_parts(tokenizer, text, cuts)
        found = [edge for edge in edges if edge not in cuts and _straddles(offsets, edge, text, edge in starts)]
        if not found:
            return token_ids, offsets, len(cuts)
        cuts = sorted([*cuts, *found])


def first_token(offsets: Offsets, place: int) -> int:
    """Return the number of the first token that goes beyond a place of the text."""
    return next((number for number, (_, end) in enumerate(offsets) if end > place), len(offsets))


def _straddles(offsets: Offsets, edge: int, text: str, is_start: bool) -> bool:
    """Return whether a token lies on both sides of an edge; white space before a result may be in its first token."""
    for start, end in offsets:
        if start < edge < end:
            return not (is_start and text[start:edge].isspace())
    return False


def _in_parts(tokenizer: Any, text: str, cuts: Sequence[int]) -> tuple[list[int], Offsets]:
    token_ids: list[int] = []
    offsets: Offsets = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        encode: Callable[..., Any] = _encode_start if start == 0 else _encode_middle
        part_ids, part_offsets = encode(tokenizer, text[start:end])
        token_ids += part_ids
        offsets += [(start + first, start + last) for first, last in part_offsets]
    return token_ids, offsets


def _encode_start(tokenizer: Any, text: str) -> tuple[list[int], Offsets]:
    # The tokenizer would warn that a text is longer than the context; it will be cut.
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return found["input_ids"], [tuple(pair) for pair in found["offset_mapping"]]


def _encode_middle(tokenizer: Any, text: str) -> tuple[list[int], Offsets]:
    """Encode a part that does not begin a text: behind a newline, for tokenizers that put a space before every text."""
    token_ids, offsets = _encode_start(tokenizer, "\n" + text)
    before = sum(end <= 1 for _, end in offsets)
    if before < len(offsets) and offsets[before][0] >= 1:
        return token_ids[before:], [(start - 1, end - 1) for start, end in offsets[before:]]
    return _encode_start(tokenizer, text)
