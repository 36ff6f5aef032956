"""A tiny model of transformers behind a cache of blocks, asked as vLLM is.

It serves whole blocks of earlier prompts, and rows of what came from the cache hold numbers that look like any others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from harness.models.vllm.asking import Ask, Reply

BLOCK = 4


@dataclass
class Blocks:
    """A model behind a cache of blocks.

    ``lies``: cached positions are said to be fewer than they are. ``too_few``: rows are cut short where the cache was read.
    """

    model: Any
    lies: bool = False
    too_few: str = ""
    most_tokens: int = 400

    def __post_init__(self) -> None:
        self.blocks: set[tuple[int, ...]] = set()
        self.asked: list[Ask] = []

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        return [self._one(ask) for ask in asks]

    def _one(self, ask: Ask) -> Reply:
        self.asked.append(ask)
        ids = tuple(ask.token_ids)
        cached = 0
        while ask.reads_cache and cached + BLOCK <= len(ids) - 1 and ids[: cached + BLOCK] in self.blocks:
            cached += BLOCK
        self.blocks |= {ids[:end] for end in range(BLOCK, len(ids) + 1, BLOCK)}
        with torch.no_grad():
            scores = torch.log_softmax(self.model(torch.tensor([ids])).logits[0].float(), -1)
        rows: list[Any] = []
        if ask.wants_rows:
            rows = [None]
            for place, token in enumerate(ids[1:], start=1):
                value = scores[place - 1, token] - (5.0 if place - 1 < cached else 0.0)  # plausible, and never computed
                rank = int((scores[place - 1] > scores[place - 1, token]).sum()) + 1
                rows.append({token: SimpleNamespace(logprob=float(value), rank=rank)})
            if (self.too_few == "cached" and cached) or self.too_few == "always":
                rows = rows[cached + 1 :]
        named = {token: float(scores[-1, token]) for token in ask.named}
        return Reply(0 if self.lies else cached, named, int(scores[-1].argmax()), rows)

    device = "cpu"
    dtype = "float32"

    def __deepcopy__(self, memo: Any) -> Blocks:
        return self

    def write(
        self, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]
    ) -> list[tuple[int, list[int], bool]]:
        """Return greedy ids; stop strings are left to the caller, who has to cut what vLLM gives beyond them, too."""
        written = []
        for prompt, told in zip(prompts, settings, strict=True):
            new: list[int] = []
            is_number = True
            while len(new) < told["max_tokens"] and not set(new[-1:]) & set(told["stop_token_ids"]):
                with torch.no_grad():
                    logits = self.model(torch.tensor([[*prompt, *new]])).logits[0, -1]
                is_number &= not bool(torch.isnan(logits).any())
                new.append(int(logits.argmax()))
            written.append((0, new, is_number))
        return written
