"""BPE-dropout (Provilkov et al., 2020), seeded: tokenize again while skipping merges at random.

Hugging Face's own dropout draws from a generator that cannot be seeded, so the merges are made here. They follow the
published rule, by which a word ends at the first step that skips every candidate. Hugging Face offers skipped merges again
whenever it meets an outdated entry of its queue, so it splits less at the same probability: English prose grows by 30%
here and by 11% there at 0.1.
"""

from __future__ import annotations

import json
import operator
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import groupby
from typing import TYPE_CHECKING, Any, SupportsIndex

from harness.errors import HarnessError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Merges = dict[tuple[int, int], tuple[int, int]]
"""Pair of neighbouring token ids to (rank, id of the merged token); the lowest rank merges first."""


@dataclass(frozen=True)
class BpeDropout:
    """Encodes text as a BPE tokenizer does, except that merges are skipped at random.

    Attributes:
        dropout: probability with which a candidate merge is skipped at a merge step; 0 gives the tokenizer's own ids.
        symbols: the tokenizer without its merges: the characters or bytes that merging starts from.
        merges: the tokenizer's merges.
    """

    dropout: float
    symbols: Tokenizer = field(repr=False)
    merges: Merges = field(repr=False)

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, dropout: float = 0.1) -> BpeDropout:
        """Build the encoder from a fast BPE tokenizer, which stays as it is.

        Raises:
            HarnessError: the tokenizer has no BPE model to take merges from, or ``dropout`` is not between 0 and 1.
        """
        if not 0 <= dropout <= 1:
            raise HarnessError(f"dropout {dropout} is not possible: it is the probability to skip a merge, 0 to 1")
        backend = getattr(tokenizer, "backend_tokenizer", None)
        description = json.loads(backend.to_str()) if backend is not None else {"model": {}}
        model = description["model"]
        if model.get("type") != "BPE":
            kind = f"a {model['type']} model" if model else "no backend"
            raise HarnessError(
                f"BPE-dropout skips merges, but {type(tokenizer).__name__} has {kind} and so no merges; "
                "use a fast BPE tokenizer"
            )
        merges = _merges(model)
        symbols = _without_merges(description, whole_words=dropout == 0 and bool(model.get("ignore_merges")))
        symbols.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
        return cls(dropout, symbols, merges)

    def encode(self, text: str, *, seed: SupportsIndex) -> list[int]:
        """Return the ids of ``text``, without special tokens around it; equal seeds give equal ids."""
        encoding = self.symbols.encode(text, add_special_tokens=False)
        # As text, because random.Random takes the absolute value of an integer: -1 would repeat the draws of 1.
        uniform = random.Random(str(operator.index(seed))).random
        token_ids: list[int] = []
        for _, word in groupby(zip(encoding.ids, encoding.word_ids, strict=True), key=operator.itemgetter(1)):
            token_ids += _merge([symbol for symbol, _ in word], self.merges, self.dropout, uniform)
        return token_ids


def _merge(symbols: list[int], merges: Merges, dropout: float, uniform: Callable[[], float]) -> list[int]:
    """Return the tokens of one word after merging.

    At every step each candidate merge is skipped with probability ``dropout``, and of those left the one of lowest rank
    is made, the leftmost of equals; a step that leaves none is the last. Drawing for one candidate after the other in
    that order, up to the first that is kept, comes to the same.
    """
    end = len(symbols)
    pieces = [*symbols]
    following = list(range(1, end + 1))
    preceding = list(range(-1, end))
    candidates: list[tuple[int, int, tuple[int, int]]] = []

    def add_candidate(left: int) -> None:
        if left >= 0 and following[left] < end:
            pair = pieces[left], pieces[following[left]]
            if pair in merges:
                heappush(candidates, (merges[pair][0], left, pair))

    for left in range(end):
        add_candidate(left)
    skipped = []
    while candidates:
        candidate = heappop(candidates)
        _, left, pair = candidate
        right = following[left]
        if right == end or (pieces[left], pieces[right]) != pair:
            continue  # one of the two was merged with another since
        if uniform() < dropout:
            skipped.append(candidate)
            continue
        pieces[left], pieces[right] = merges[pair][1], _MERGED
        following[left] = following[right]
        preceding[following[right]] = left
        while skipped:
            heappush(candidates, skipped.pop())
        add_candidate(preceding[left])
        add_candidate(left)
    return [piece for piece in pieces if piece != _MERGED]


_MERGED = -1
"""Stands where a piece became part of the one before it."""


def _merges(model: Mapping[str, Any]) -> Merges:
    """Return the merges of a BPE model by token id."""
    vocabulary = model["vocab"]
    prefix_length = len(model.get("continuing_subword_prefix") or "")
    return {
        (vocabulary[left], vocabulary[right]): (rank, vocabulary[left + right[prefix_length:]])
        for rank, (left, right) in enumerate(model["merges"])
    }


def _without_merges(description: Mapping[str, Any], *, whole_words: bool) -> Tokenizer:
    """Return the tokenizer that ``description`` describes with its merges taken out.

    It still normalises, splits off added tokens and cuts into words, and writes each word in single characters or
    bytes; with ``whole_words``, as one token where the vocabulary has it.
    """
    from tokenizers import Tokenizer

    model = {**description["model"], "merges": [], "dropout": None, "ignore_merges": whole_words}
    symbols: Tokenizer = Tokenizer.from_str(
        json.dumps({**description, "model": model, "truncation": None, "padding": None})
    )
    return symbols
