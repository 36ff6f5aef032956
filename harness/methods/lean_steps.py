"""Norms and rotary angles that a model is trained through, each in one pass over memory, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

import torch
from torch.autograd.function import once_differentiable

from harness.models.tree.elementwise import can_turn, is_ours, norm, norm_back, turned
from harness.models.tree.quick_layers import norm_epsilon, rotations

Tensor = torch.Tensor
Turn = Callable[..., Any]
TOLERANCE = 1e-5
TRIED = (2, 4, 3, 20)  # rows, heads, tokens, width


class _Norm(torch.autograd.Function):
    """An RMS norm with a frozen weight, of which the inputs and a number a row are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        scales = x.new_empty(x.numel() // len(weight))
        result = norm(x, weight, epsilon, scales)
        ctx.save_for_backward(x, weight, scales)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scales = ctx.saved_tensors
        return norm_back(x, weight, scales, upstreams[0].contiguous()), None, None


class _Rotary(torch.autograd.Function):
    """Queries or keys turned by their angles, of which the angles alone are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return turned(x, cosine, sine)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = upstreams
        upstream = upstream if upstream.stride(-1) == 1 else upstream.contiguous()
        return turned(upstream, *ctx.saved_tensors, back=True), None, None


def lean_norm(module: Any) -> Callable[..., Tensor] | None:
    """Return a forward for an RMS norm whose weight is frozen, None where ``module`` is none."""
    epsilon = norm_epsilon(module)
    if epsilon is None or module.weight.requires_grad:
        return None
    plain = module.forward

    def forward(x: Tensor) -> Tensor:
        weight = module.weight
        if weight.requires_grad or not is_ours(x, weight) or x.shape[-1] != len(weight):
            return cast("Tensor", plain(x))
        return cast("Tensor", _Norm.apply(x, weight, epsilon))

    return forward


def lean_rotations(model: torch.nn.Module) -> Iterator[tuple[Any, Turn, Turn]]:
    """Yield the modules of Python whose function turns queries and keys, that function, and the lean one."""
    for home, plain in rotations(model):
        lean = _lean_rotary(plain)
        if _turns_alike(plain, lean):
            yield home, plain, lean


def _lean_rotary(plain: Turn) -> Turn:
    def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
        is_lean = not (args or kwargs or cos.requires_grad or sin.requires_grad)
        if not (is_lean and can_turn(q, cos, sin) and can_turn(k, cos, sin)):
            return plain(q, k, cos, sin, *args, **kwargs)
        return _Rotary.apply(q, cos, sin), _Rotary.apply(k, cos, sin)

    return rotary


def _turns_alike(plain: Turn, lean: Turn) -> bool:
    """Return whether both give the same, outputs and gradients, of a few random numbers."""
    draw = torch.Generator().manual_seed(0)
    x, upstream = torch.randn((2, *TRIED), generator=draw)
    angles = torch.randn((TRIED[0], *TRIED[2:]), generator=draw)
    with suppress(Exception), torch.enable_grad():  # another kind of function of that name
        found = []
        for way in (plain, lean):
            q = x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_(True)  # as a layer has them
            results = way(q, q[:, :2], angles.cos(), angles.sin())
            total = (results[0] * upstream).sum() + (results[1] * upstream[:, :2]).sum()
            found.append([*results, *torch.autograd.grad(total, q)])
        return all(bool(((a - b).abs() <= TOLERANCE * (1 + a.abs())).all()) for a, b in zip(*found, strict=True))
    return False
