"""A part of all requests is computed again without the cache: a score that came from a wrong row is found, not published."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.models.vllm.asking import Item

# Of all requests, and at least so many of a portion.
SHARE, LEAST = 0.05, 2
# What rounding explains, in nats: of a request, and of each of its tokens. The second counts where it is more.
TOLERANCE = {"float32": (1e-3, 2e-5), "float16": (2e-2, 1e-2), "bfloat16": (1.5e-1, 8e-2)}


class Recheck:
    """Draws requests to compute again, and compares.

    Args:
        dtype: of the weights, as torch names it; another one than the three usual is allowed what bfloat16 is.
        name: makes text of the last token ids of a request, to name it by.
    """

    def __init__(self, dtype: str, name: Callable[[Sequence[int]], str] | None = None) -> None:
        self.dtype, self.name = dtype, name
        self.count = 0

    def drawn(self, items: Sequence[Item]) -> list[Item]:
        """Return random ones of ``items``, the same ones of the same items: 5 %, and 2 at least."""
        count = min(len(items), max(LEAST, math.ceil(SHARE * len(items))))
        seed = hashlib.sha256(repr([(item.token_ids, item.count) for item in items]).encode()).hexdigest()
        return random.Random(seed).sample(list(items), count)

    def compare(
        self,
        found: Mapping[Item, Sequence[tuple[float, bool]]],
        again: Mapping[Item, Sequence[tuple[float, bool]]],
    ) -> None:
        """Raise ``HarnessError`` where a score differs from the one computed again by more than rounding explains."""
        for item, tokens in found.items():
            score, other = (math.fsum(logprob for logprob, _ in part) for part in (tokens, again[item]))
            if not agree(score, other, self.dtype, item.count):
                end = item.token_ids[-20:]
                name = f"tokens {list(end)}" if self.name is None else self.name(end)
                raise HarnessError(
                    f"vLLM's prefix cache gives {score:.4f} for the request that ends with {name}, and without the cache it is "
                    f"{other:.4f}, which is more than {self.dtype} explains ({allowed(self.dtype, item.count):.3g}): no score of "
                    "this run would mean anything; go on with --model_args share_prefixes=false, or with --model hf"
                )
        self.count += len(found)


def agree(score: float, other: float, dtype: str, tokens: int) -> bool:
    """Return whether two log-probabilities of so many tokens are the same but for rounding; what is no number is named later."""
    if not (math.isfinite(score) and math.isfinite(other)):
        return math.isfinite(score) == math.isfinite(other)
    return abs(score - other) <= allowed(dtype, tokens)


def allowed(dtype: str, tokens: int) -> float:
    """Return the difference in nats that rounding explains."""
    whole, each = TOLERANCE.get(dtype, TOLERANCE["bfloat16"])
    return max(whole, each * tokens)
