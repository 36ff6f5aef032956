"""Text of users beside special tokens that are meant: what spells a special token in it stays text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from harness import HarnessError
from harness.models.chat import ChatTemplate
from harness.names import printable

Offsets = list[tuple[int, int]]
Spans = Sequence[tuple[int, int]]


def special_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """Return what finds special tokens in a text, the longest first as tokenizers do; None where there are none."""
    names = sorted((str(token) for token in tokenizer.added_tokens_decoder.values() if token.special), key=len)
    return re.compile("|".join(map(re.escape, reversed(names)))) if names else None


def words_in(text: str, prompt: str, render: Callable[[list[dict[str, str]]], str]) -> tuple[int, int]:
    """Return where the user's words stand in what a chat template made of them, whatever they spell.

    Args:
        text: the template with the prompt as its only message.
        prompt: the user's words.
        render: messages to text.

    Raises:
        HarnessError: the template does not show it.
    """
    template = ChatTemplate(render)
    start, end = len(template.before), len(text) - len(template.tail)
    if start <= end and text.startswith(template.before) and text.endswith(template.tail) and prompt.strip():
        return start, end
    raise HarnessError(
        f"the prompt '{printable(prompt[:60])}' spells a special token, and the chat template does not show where a user's words "
        "stand in it; leave the text out"
    )


def encode_beside(
    tokenizer: Any, text: str, users: Spans, encode: Callable[[str], tuple[list[int], Offsets]]
) -> tuple[list[int], Offsets]:
    """Return the ids of a text in which special tokens are meant, but not in users' parts of it, and the characters of each.

    Where users spell none, the text is encoded as it is. Else it is encoded in parts, between the special tokens that are meant,
    which is first tried on the same text without what users spell.

    Args:
        tokenizer: a fast one.
        text: the whole.
        users: the characters (start, end) of users' parts, in order.
        encode: the usual encoding of a whole text, in which all special tokens are meant.

    Raises:
        HarnessError: the tokenizer encodes a text in parts in another way than as a whole.
    """
    specials = special_tokens(tokenizer)
    if specials is None:
        return encode(text)
    spelled = [found for start, end in users for found in specials.finditer(text, start, end)]
    if not spelled:
        return encode(text)
    plain = text
    for found in spelled:
        plain = plain[: found.start()] + "x" * len(found[0]) + plain[found.end() :]
    ids, offsets = encode(plain)
    lead = next((number for number, place in enumerate(offsets) if place != (0, 0)), 0)  # what is put before every text
    meant = [found.span() for start, end in _between(users, len(text)) for found in specials.finditer(text, start, end)]
    if _in_parts(tokenizer, plain, meant) != (ids[lead:], offsets[lead:]):
        raise HarnessError(
            f"a text spells '{printable(spelled[0][0])}', which this tokenizer cannot read as text beside special tokens that "
            "are meant; leave the text out"
        )
    own_ids, own_offsets = _in_parts(tokenizer, text, meant)
    return ids[:lead] + own_ids, offsets[:lead] + own_offsets


def _between(spans: Spans, length: int) -> Spans:
    """Return what lies before, between and behind some spans."""
    edges = [0, *(edge for span in spans for edge in span), length]
    return list(zip(edges[0::2], edges[1::2], strict=True))


def _in_parts(tokenizer: Any, text: str, meant: Spans) -> tuple[list[int], Offsets]:
    """Return the ids of a text of which the spans alone are special tokens."""
    ids: list[int] = []
    offsets: Offsets = []
    for start, end in _between(meant, len(text)):
        if end > start:
            found = tokenizer(
                text[start:end],
                add_special_tokens=False,
                return_offsets_mapping=True,
                split_special_tokens=True,
                verbose=False,
            )
            ids += found["input_ids"]
            offsets += [(start + first, start + last) for first, last in found["offset_mapping"]]
        name = next((span for span in meant if span[0] == end), None)
        if name is not None:
            ids.append(int(tokenizer.convert_tokens_to_ids(text[name[0] : name[1]])))
            offsets.append(name)
    return ids, offsets
