"""The task ``tokenization_robustness``: bits per byte of the same text as its tokens are split ever further."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from harness import HarnessError
from harness.models.token_bytes import token_bytes
from harness.seeds import stream_seed
from harness.tasks.own_docs import Doc, OwnDocsTask
from harness.tasks.texts import TEXTS
from harness_stochastok.splitting import build_split_table, expand

PROPORTIONS = (0.0, 0.1, 0.5, 1.0)
PROSE = 24  # the first texts are English prose


class TokenizationRobustness(OwnDocsTask):
    """Scores each text under several random expansions; a model that knows what its tokens spell loses little.

    ``bits_per_byte_pX``: at X split attempts per token, mean over draws. ``drop_pX``: how much more than at 0.
    """

    request_types = ("token_loglikelihoods",)
    metrics: ClassVar[dict[str, bool]] = {
        **{f"bits_per_byte_p{proportion:g}": False for proportion in PROPORTIONS},
        **{f"drop_p{proportion:g}": False for proportion in PROPORTIONS[1:]},
    }

    def make_docs(self, metadata: Mapping[str, Any]) -> list[Doc]:
        """Return one document a text, numbered, with its bytes in UTF-8."""
        self._seed, self._draws = metadata["seed"], metadata["draws"]
        if not isinstance(self._draws, int) or self._draws < 1 or not isinstance(self._seed, int):
            raise HarnessError("tokenization_robustness needs metadata draws of 1 or more and a whole-number seed")
        return [{"number": n, "text": text, "bytes": len(text.encode())} for n, text in enumerate(TEXTS[:PROSE])]

    def use_tokenizer(self, tokenizer: Any) -> None:
        """Take the tokenizer under evaluation and find the splits of its tokens."""
        self.tokenizer = tokenizer
        self._split_table = build_split_table(token_bytes(tokenizer))

    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return (text, ids) of each draw; every draw has a stream of its own, so ``--limit`` changes none."""
        token_ids = self.tokenizer.encode(doc["text"], add_special_tokens=False)
        return [
            (
                doc["text"],
                expand(
                    token_ids,
                    self._split_table,
                    proportion=proportion,
                    seed=stream_seed(self._seed, doc["number"], f"{proportion:g}", draw),
                ),
            )
            for proportion, draw in self._plan()
        ]

    def score(self, doc: Doc, answers: list[list[float]]) -> dict[str, float]:
        """Return bits per byte at each proportion, and what is lost against proportion 0."""
        bits: dict[float, list[float]] = {}
        for (proportion, _), logprobs in zip(self._plan(), answers, strict=True):
            bits.setdefault(proportion, []).append(-sum(logprobs) / math.log(2) / doc["bytes"])
        means = {proportion: sum(draws) / len(draws) for proportion, draws in bits.items()}
        return {
            **{f"bits_per_byte_p{proportion:g}": value for proportion, value in means.items()},
            **{f"drop_p{proportion:g}": means[proportion] - means[0.0] for proportion in PROPORTIONS[1:]},
        }

    def _plan(self) -> list[tuple[float, int]]:
        return [(p, draw) for p in PROPORTIONS for draw in range(self._draws if p else 1)]
