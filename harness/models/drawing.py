"""Tokens drawn at random, each from a random stream of its text and place: alone, beside others, and many at one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from harness.models.tree.prompts import Candidates, Place
from harness.seeds import stream_seed

Tensor = torch.Tensor
Stream = int | str
# The likeliest tokens, among which a draw nearly always ends: only beyond them the whole vocabulary is put in order.
LIKELIEST = 256


@dataclass(frozen=True)
class Sampled:
    """Draws tokens; ``temperature``, ``top_k`` and ``top_p`` as ``harness.models.acting.sampled`` takes them.

    Raises:
        ValueError: a number is out of its range.
    """

    seed: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.temperature <= 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature {self.temperature} has to be above 0, top_k {self.top_k} 0 or more, top_p {self.top_p} in "
                "(0, 1]"
            )

    def __call__(self, candidates: Candidates, places: Sequence[Place]) -> list[int]:
        """Return a token for each place, -1 where the logits are no numbers.

        Raises:
            ValueError: a prompt names no stream.
        """
        words = self.words(candidates.logits())
        return [
            word.drawn(self.share(_stream_of(place), len(place.prompt.token_ids) + len(place.generated)))
            for word, place in zip(words, places, strict=True)
        ]

    def tokens(self, logits: Tensor, streams: Sequence[Stream], position: int) -> list[int]:
        """Return the token that each of ``streams`` draws at one place of a text.

        Args:
            logits: (V,), of the words after the first ``position`` ids of the text.

        Returns:
            What a text with such a stream goes on with there; -1 everywhere where the logits are no numbers.
        """
        (words,) = self.words(logits[None])
        return [words.drawn(self.share(stream, position)) for stream in streams]

    def words(self, logits: Tensor, again: Callable[[int], Tensor] | None = None) -> list[Words]:
        """Return the words to draw from at each place of logits (N, V).

        Args:
            logits: of the words at each place.
            again: returns a row of ``logits``, which are not held then; a draw needs it hardly ever.
        """
        logits = logits / self.temperature
        held = logits if again is None else None

        def row_of(row: int) -> Tensor:
            if held is not None:
                return held[row]
            assert again is not None
            return again(row) / self.temperature

        # A row alone would be added up in as many parts as there are threads, and come to another sum than beside others.
        totals = (logits if len(logits) > 1 else logits.expand(2, -1)).logsumexp(-1)[: len(logits)]
        likeliest, tokens = (side.cpu() for side in logits.topk(min(LIKELIEST, logits.shape[-1])))
        rows = enumerate(zip(totals.tolist(), likeliest.double(), tokens, strict=True))
        return [
            Words(partial(row_of, row), total, torch.exp(best - total), some, self.top_k, self.top_p)
            if math.isfinite(total)
            else NO_WORDS
            for row, (total, best, some) in rows
        ]

    def share(self, stream: Stream, position: int) -> float:
        """Return the random number, from 0 to 1, of a stream after the first ``position`` ids of a text."""
        generator = torch.Generator().manual_seed(stream_seed(self.seed, stream, position) % (1 << 63))
        return float(torch.rand((), generator=generator, dtype=torch.float64))


@dataclass
class Words:
    """What may be drawn at one place.

    ``logits`` gives those of all words (V,), ``total`` is their log-sum-exp; ``likeliest`` (n,) are the largest probabilities, in
    falling order, ``tokens`` (n,) whose they are.
    """

    logits: Callable[[], Tensor]
    total: float
    likeliest: Tensor
    tokens: Tensor
    top_k: int
    top_p: float
    is_whole: bool = False

    def drawn(self, share: float) -> int:
        """Return the word at ``share``, 0 to 1, of the probability that is left, the likeliest words first."""
        if not len(self.tokens):
            return -1
        found = self._find(share)
        if found is None:
            # Equal probabilities in the order of the vocabulary, as ``topk`` leaves open.
            logits, self.tokens = self.logits().cpu().sort(descending=True, stable=True)
            self.likeliest, self.is_whole = torch.exp(logits.double() - self.total), True
            found = self._find(share)
        assert found is not None
        return found

    def _find(self, share: float) -> int | None:
        """Return the word, None where it is not among the likeliest that are known, or equal ones lie on both sides."""
        known = self.likeliest[: self.top_k] if self.top_k else self.likeliest
        sums = known.cumsum(-1)
        # The fewest words with so much of the probability. All may come to less than 1, rounded: one of these is due then, too.
        left = int(((sums - known < self.top_p) & (known > 0)).sum())
        has_all = self.is_whole or left < len(known) or len(known) < len(self.likeliest)
        is_bounded = self.top_p < 1 or self.top_k > 0
        if is_bounded and not has_all:
            return None
        # Without a bound all have 1 together, whether they are known or not: what was drawn before changes no draw.
        total = float(sums[left - 1]) if is_bounded else 1.0
        place = min(int((sums[:left] <= share * total).sum()), left - 1)
        is_sure = self.is_whole or bool(known[place] > self.likeliest[-1])
        return self._word(place) if is_sure else None

    def _word(self, place: int) -> int:
        """Return the word at a place of the order; of equal ones the order is the vocabulary's."""
        equal = (self.likeliest == self.likeliest[place]).nonzero()[:, 0]
        return int(self.tokens[equal].sort().values[place - int(equal[0])])


NO_WORDS = Words(lambda: torch.empty(0), math.nan, torch.empty(0), torch.empty(0, dtype=torch.long), 0, 1.0)


def _stream_of(place: Place) -> Stream:
    if place.prompt.stream is None:
        raise ValueError("a prompt whose tokens are drawn has to name its stream: Prompt(..., stream=number or text)")
    return place.prompt.stream
