"""Attention on a GPU by torch's fused kernel that tells the log-sum-exp of its scores, where it does so rightly.

The kernel has no public name in torch, and what it takes differs between devices, types and releases: each kind of call is
tried on a few numbers once, and made plainly from then on where that fails.
"""

from __future__ import annotations

import torch

Tensor = torch.Tensor
TYPES = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
# The kernel reads the bias in pieces of so many numbers, which have to start at such places.
BIAS_STEP = 16
# What was found out about a kind of call: the device, the type, the widths, whether there is a bias, whether it is causal.
_works: dict[tuple[object, ...], bool] = {}


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float, bias: Tensor | None, is_causal: bool
) -> tuple[Tensor, Tensor] | None:
    """Return softmax attention (B, heads, Q, width) and the log-sum-exp of its scores (B, heads, Q), or None.

    None: there is no such kernel here, or it is wrong. Every query has to see a key.

    Args:
        query: (B, heads, Q, width), as many heads as ``key`` and ``value`` have.
        bias: added to the scores, (B or 1, heads or 1, Q, K).
        is_causal: a query sees the keys up to its own number.
    """
    if query.device.type != "cuda" or query.dtype not in TYPES or torch.is_grad_enabled():
        return None
    kind = (query.device, query.dtype, query.shape[-1], value.shape[-1], bias is not None, is_causal)
    if kind not in _works:
        _works[kind] = _is_right(query, value.shape[-1], has_bias=bias is not None, is_causal=is_causal)
    return _run(query, key, value, scale, bias, is_causal) if _works[kind] else None


def _run(
    query: Tensor, key: Tensor, value: Tensor, scale: float, bias: Tensor | None, is_causal: bool
) -> tuple[Tensor, Tensor]:
    query, key, value = (of if of.stride(-1) == 1 else of.contiguous() for of in (query, key, value))
    result, sums, _, _ = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, None if bias is None else _aligned(bias, query, key), True, 0.0, is_causal, scale=scale
    )
    return result, sums[..., : query.shape[-2]]  # there are more, up to a multiple of 32


def _aligned(bias: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Return the bias for every head, its rows starting where the kernel can read them."""
    count = key.shape[-2]
    if count % BIAS_STEP:
        bias = torch.nn.functional.pad(bias, (0, BIAS_STEP - count % BIAS_STEP))[..., :count]
    return bias.expand(*query.shape[:3], count)


def _is_right(like: Tensor, value_width: int, *, has_bias: bool, is_causal: bool) -> bool:
    """Try a kind of call on random numbers, some of them large, against the same in float64."""
    draw = torch.Generator().manual_seed(0)
    device, dtype, width, count = like.device, like.dtype, like.shape[-1], 37

    def numbers(width: int) -> Tensor:
        return (2 * torch.randn((2, 2, count, width), generator=draw)).to(device, dtype)

    query, key, value = numbers(width), numbers(width), numbers(value_width)
    hidden = torch.rand((2, 1, count, count), generator=draw).to(device) < 0.5
    hidden[..., 0] = False  # something is seen
    bias = torch.zeros_like(hidden, dtype=dtype).masked_fill_(hidden, -torch.inf) if has_bias else None
    try:
        result, sums = _run(query, key, value, width**-0.5, bias, is_causal)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError, AttributeError, TypeError, ValueError):
        return False
    scores = query.double() @ key.double().transpose(-1, -2) * width**-0.5
    if bias is not None:
        scores = scores + bias.double()
    if is_causal:
        scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -torch.inf)
    expected, most = scores.softmax(-1) @ value.double(), TYPES[dtype]
    size = float(expected.abs().max())
    return bool(
        ((result - expected).abs().max() <= most * size) and ((sums - scores.logsumexp(-1)).abs().max() <= 10 * most)
    )
