"""Texts to embed as ids: with what stands around them, cut to the room they have, and with the places that are pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import printable
from harness.progress import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.models.embedding import Asked
    from harness.models.sentence_files import Way


@dataclass(frozen=True, slots=True)
class Row:
    """One text as ids.

    Attributes:
        first, end: the places that are pooled.
        before: what stands before the text.
        is_cut: the text was longer than the room it has.
    """

    ids: list[int]
    first: int
    end: int
    before: str = ""
    is_cut: bool = False


def rows_of(
    tokenizer: PreTrainedTokenizerBase, way: Way, wanted: Sequence[Asked], *, begins: int | None = None
) -> list[Row]:
    """Return the ids of each text to embed. What a text spells like a special token stays text.

    Args:
        begins: the id that begins what is laid out; None for none.

    Raises:
        HarnessError: what stands around a text leaves no room for it, or it has no token.
    """
    if not wanted:
        return []
    rows = (_laid_out if way.is_laid_out else _as_tokenizer)(tokenizer, way, wanted, begins)
    for row, one in zip(rows, wanted, strict=True):
        if row.end <= row.first:
            raise HarnessError(
                f"the text '{printable(one.text[:60])}' has no token that could be pooled: max_length {way.max_length} is "
                "taken by what stands around it, or the tokenizer knows nothing of it"
            )
    return rows


def _as_tokenizer(
    tokenizer: PreTrainedTokenizerBase, way: Way, wanted: Sequence[Asked], _begins: int | None
) -> list[Row]:
    """Return prompt and text as one string each, with the special tokens that the tokenizer puts around it."""
    befores = [way.around(one.instruction, one.role)[0] for one in wanted]
    texts = [_spelled(way, before + one.text) for before, one in zip(befores, wanted, strict=True)]
    found = _encode(tokenizer, texts, add_special_tokens=True)
    most = way.max_length
    long = [] if most is None else [number for number, ids in enumerate(found) if len(ids) > most]
    cut = _encode(tokenizer, [texts[n] for n in long], add_special_tokens=True, truncation=True, max_length=most)
    for number, ids in zip(long, cut, strict=True):
        found[number] = ids
    skipped = {before: _leading(tokenizer, way, before) for before in set(befores)}
    is_cut = set(long)
    return [
        Row(ids, min(skipped[before], len(ids) - 1), len(ids), before, number in is_cut)
        for number, (ids, before) in enumerate(zip(found, befores, strict=True))
    ]


def _leading(tokenizer: PreTrainedTokenizerBase, way: Way, before: str) -> int:
    """Return how many tokens of a row its prompt takes, with the special ones before it; 0 where they are pooled, too."""
    if way.pools_prompt or not before:
        return 0
    [ids] = _encode(tokenizer, [_spelled(way, before)], add_special_tokens=True)
    return len(ids) - (ids[-1] in set(tokenizer.all_special_ids))


def _laid_out(tokenizer: PreTrainedTokenizerBase, way: Way, wanted: Sequence[Asked], begins: int | None) -> list[Row]:
    """Return beginning, instruction, text, what stands after it, and end, each encoded by itself; the text alone is cut."""
    around = [way.around(one.instruction, one.role) for one in wanted]
    parts = list(dict.fromkeys(part for pair in around for part in pair))
    ids = dict(zip(parts, _encode(tokenizer, parts, add_special_tokens=False), strict=True))
    texts = _encode(tokenizer, [_spelled(way, one.text) for one in wanted], add_special_tokens=False)
    end = [int(tokenizer.eos_token_id)] if "eos" in way.pooling else []
    heads = {before: ([] if begins is None else [begins]) + ids[before] for before, _ in around}
    return [
        _row(way, before, heads[before], text, ids[after] + end)
        for text, (before, after) in zip(texts, around, strict=True)
    ]


def _row(way: Way, before: str, head: list[int], text: list[int], tail: list[int]) -> Row:
    room = len(text) if way.max_length is None else max(0, way.max_length - len(head) - len(tail))
    kept = text[:room]
    whole = head + kept + tail
    first = len(head)
    end = len(whole) if {"last", "eos"} & set(way.pooling) else first + len(kept)
    return Row(whole, first, end if kept else first, before, len(kept) < len(text))


def _spelled(way: Way, text: str) -> str:
    # Letter by letter, as tokenizers do it: a sigma at the end of a word stays the sigma of its middle.
    return "".join(map(str.lower, text)) if way.lowercase else text


def _encode(tokenizer: Any, texts: Sequence[str], **settings: Any) -> list[list[int]]:
    if not texts:
        return []
    with quiet("transformers.tokenization_utils_base"):  # of texts longer than the model, which are cut by what asks
        found = tokenizer(list(texts), return_attention_mask=False, split_special_tokens=True, **settings)
    return [list(ids) for ids in found["input_ids"]]
