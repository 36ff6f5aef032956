"""Training windows: documents encoded, re-split, laid end to end and cut (Sims et al., 2025, pre-training recipe)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.methods.corpus import Corpus
from harness.models.token_bytes import token_bytes
from harness.seeds import stream_seed
from harness_stochastok.splitting import SplitTable, build_split_table, count_attempts, expand

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness_stochastok.bpe_dropout import BpeDropout

# A report without training reads no more text than this.
REPORT_TOKENS = 1_000_000


@dataclass
class Growth:
    """What re-splitting did so far: tokens in, tokens out, split attempts, documents."""

    documents: int = 0
    tokens_before: int = 0
    tokens_after: int = 0
    attempts: int = 0

    def report(self) -> dict[str, Any]:
        """Return the figures with what follows from them; every success adds exactly one token."""
        successes = self.tokens_after - self.tokens_before
        return {
            "documents": self.documents,
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
            "growth": round(successes / self.tokens_before, 4) if self.tokens_before else 0.0,
            "attempts": self.attempts,
            "successes": successes,
            "pieces_per_token": round(self.tokens_after / self.tokens_before, 4) if self.tokens_before else 1.0,
        }


@dataclass
class Resplitter:
    """Encodes documents and re-splits them by one scheme; ``growth`` counts what it did.

    Attributes:
        tokenizer: used as it is, never changed.
        scheme: ``stochastok``, ``bpe_dropout`` or ``none``.
        proportion: StochasTok's split attempts per token.
        dropout: probability with which BPE-dropout skips a merge.
        seed: every document of every epoch has a stream of its own, derived from it.
    """

    tokenizer: PreTrainedTokenizerBase
    scheme: str
    proportion: float
    dropout: float
    seed: int
    growth: Growth = field(default_factory=Growth)

    @cached_property
    def split_table(self) -> SplitTable:
        """Every valid split of every ordinary token."""
        return build_split_table(token_bytes(self.tokenizer))

    @cached_property
    def _bpe_dropout(self) -> BpeDropout:
        from harness_stochastok.bpe_dropout import BpeDropout

        return BpeDropout.from_tokenizer(self.tokenizer, dropout=self.dropout)

    def encode(self, text: str) -> list[int]:
        """Return the ordinary ids of ``text``, closed by end-of-text where the tokenizer has one."""
        end = self.tokenizer.eos_token_id
        # The tokenizer warns that a document is longer than the context; it will be cut into windows.
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids if end is None else [*ids, end]

    def resplit(self, text: str, token_ids: list[int], *, epoch: int, document: int) -> list[int]:
        """Return the ids one document is trained on in one epoch."""
        seed = stream_seed(self.seed, epoch, document)
        if self.scheme == "stochastok":
            attempts = count_attempts(len(token_ids), self.proportion)
            ids = expand(token_ids, self.split_table, proportion=self.proportion, seed=seed)
        elif self.scheme == "bpe_dropout":
            end = token_ids[-1:] if token_ids and token_ids[-1] == self.tokenizer.eos_token_id else []
            attempts, ids = 0, [*self._bpe_dropout.encode(text, seed=seed), *end]
        else:
            attempts, ids = 0, token_ids
        self.growth.documents += 1
        self.growth.attempts += attempts
        self.growth.tokens_before += len(token_ids)
        self.growth.tokens_after += len(ids)
        return ids


@dataclass
class Windows:
    """Endless windows of exactly ``length`` ids, epoch after epoch, every epoch re-split anew unless ``once``."""

    corpus: Corpus
    resplitter: Resplitter
    length: int
    tokens_needed: int
    once: bool = False

    @cached_property
    def documents(self) -> list[tuple[int, str, list[int]]]:
        """(index, text, ids) of as many documents, in random order, as training will read."""
        order = list(range(len(self.corpus.documents)))
        random.Random(stream_seed(self.resplitter.seed, "order")).shuffle(order)
        chosen, tokens = [], 0
        for index in order:
            text = str(self.corpus.documents[index])
            ids = self.resplitter.encode(text)
            chosen.append((index, text, ids))
            tokens += len(ids)
            if tokens >= self.tokens_needed + self.length:
                break
        if tokens < self.length:
            raise HarnessError(
                f"training text '{self.corpus.name}' has {tokens} tokens, fewer than one window of {self.length}; give "
                "more text or lower context_length"
            )
        return chosen

    def __iter__(self) -> Iterator[list[int]]:
        epoch, stream = 0, self._stream(0)
        while True:
            draw = random.Random(stream_seed(self.resplitter.seed, "windows", epoch))
            start = draw.randrange(min(self.length, len(stream) - self.length + 1))
            starts = list(range(start, len(stream) - self.length + 1, self.length))
            draw.shuffle(starts)
            for first in starts:
                yield stream[first : first + self.length]
            epoch += 1
            stream = stream if self.once else self._stream(epoch)

    def _stream(self, epoch: int) -> list[int]:
        return [
            token
            for index, text, ids in self.documents
            for token in self.resplitter.resplit(text, ids, epoch=epoch, document=index)
        ]


def expansion_report(corpus: Corpus, resplitter: Resplitter) -> None:
    """Re-split up to a million tokens of the corpus once, so that ``resplitter.growth`` tells what training would see."""
    for index, document in enumerate(corpus.documents):
        resplitter.resplit(str(document), resplitter.encode(str(document)), epoch=0, document=index)
        if resplitter.growth.tokens_before >= REPORT_TOKENS:
            return
