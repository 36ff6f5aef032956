"""The contrast: what the last layer of a model adds to an early one, token by token of the vocabulary."""

import math

import torch
from torch import Tensor

# What the authors' code gives tokens that are left out: no score is infinite.
LEFT_OUT = -1000.0


def contrast(final: Tensor, early: Tensor, *, alpha: float) -> Tensor:
    """Return log p - log q of the tokens that have at least ``alpha`` of the best probability, ``LEFT_OUT`` of the others.

    Args:
        final: (..., V), logits of the last layer, of which p is the softmax and the best.
        early: (..., V), logits of an early layer, of which q is the softmax.
        alpha: in (0, 1]; 1 leaves the best token alone.

    Returns:
        (..., V), the next token's logits.
    """
    late = final.log_softmax(-1)
    is_kept = late >= late.amax(-1, keepdim=True) + math.log(alpha)
    return torch.where(is_kept, late - early.log_softmax(-1), LEFT_OUT)
