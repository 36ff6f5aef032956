"""Pairs as token ids: what is too long is left out and counted, and borders inside a token are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import HarnessError
from harness.progress import say
from harness_critical_tokens.encoding import Encoded, encode
from harness_critical_tokens.pairs_file import Pair, PairsFile, counted

if TYPE_CHECKING:
    from harness.models.causal import CausalLM


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs that can be used, with (chosen, rejected) as tokens, and what was read and dropped on the way."""

    pairs: list[Pair]
    responses: list[tuple[Encoded, Encoded]]
    report: dict[str, Any]

    @property
    def numbers(self) -> list[int]:
        """The pairs' numbers in their file."""
        return [pair.number for pair in self.pairs]


def encode_pairs(lm: CausalLM, file: PairsFile, *, max_length: int | None, is_chat: bool) -> EncodedPairs:
    """Return the pairs of a file as token ids, without those of which a response is too long.

    Args:
        lm: has the tokenizer.
        file: the pairs.
        max_length: most tokens of prompt and response; None: what the model takes.
        is_chat: put prompts into the tokenizer's chat template.

    Raises:
        HarnessError: none is left, or ``max_length`` is more than the model takes.
    """
    most = lm.max_length if max_length is None else max_length
    if most > lm.max_length:
        raise HarnessError(f"max_length {most} is more than the model's {lm.max_length}")
    both = [
        (encode(lm, pair.prompt, pair.chosen, is_chat=is_chat), encode(lm, pair.prompt, pair.rejected, is_chat=is_chat))
        for pair in file.pairs
    ]
    fits = [
        max(len(one.token_ids) for one in pair) <= most and min(one.response_start for one in pair) > 0 for pair in both
    ]
    dropped = dict(file.dropped)
    if not all(fits):
        dropped[f"more than {most} tokens, or none before the response"] = fits.count(False)
    pairs = [pair for pair, is_kept in zip(file.pairs, fits, strict=True) if is_kept]
    if not pairs:
        raise HarnessError(f"no pair can be used: {counted(dropped)}; raise max_length, or bring shorter pairs")
    if dropped:
        say(f"of {file.read} pairs, {len(pairs)} are used: {counted(dropped)} dropped")
    responses = [pair for pair, is_kept in zip(both, fits, strict=True) if is_kept]
    straddling = sum(one.straddles for pair in responses for one in pair)
    report = {"read": file.read, "used": len(pairs), "dropped": dropped, "straddling_borders": straddling}
    return EncodedPairs(pairs, responses, report)


def labelled_rows(pairs: Sequence[tuple[Encoded, Encoded]]) -> list[tuple[list[int], list[int]]]:
    """Return ids and labels of both responses of each pair, chosen above rejected."""
    return [(one.token_ids, one.labels) for pair in pairs for one in pair]
