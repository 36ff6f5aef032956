"""What the tests of texts that go on share: random ids, plain greedy search, and a generation that has to be shared."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from harness.models.causal import CausalLM
from harness.models.tree.prompts import OnDone, Prompt


def some(generator: random.Random, count: int) -> list[int]:
    """Return so many random ids."""
    return [generator.randrange(3, 300) for _ in range(count)]


def whole(limit: int) -> Callable[[list[int]], bool]:
    """Return what never ends a text before its limit."""
    return lambda generated: len(generated) >= limit


def greedily(lm: CausalLM, ids: Sequence[int], count: int) -> list[int]:
    """Return the likeliest next tokens by plain forward passes."""
    text = list(ids)
    with torch.no_grad():
        for _ in range(count):
            text.append(int(lm.model(torch.tensor([text])).logits[0, -1].argmax()))
    return text[len(ids) :]


def run(lm: CausalLM, prompts: Sequence[Prompt], on_done: OnDone, **more: Any) -> None:
    """Generate with sharing; fail when the model is not shared."""
    with torch.no_grad():
        lm._sharing.generate(prompts, on_done, **more)
    assert lm._sharing.refusal is None
