"""Norms, gates and rotary angles of float32 numbers on a CPU, each in one pass over memory (see ``elementwise_kernel``)."""

from __future__ import annotations

from typing import Any

import torch

from harness.models.tree.elementwise_kernel import Kernels, kernels

Tensor = torch.Tensor
_PLAIN = (Tensor, torch.nn.Parameter)


def is_ours(*tensors: Any) -> bool:
    """Return whether all are float32 numbers that lie row by row on a CPU, and the compiled functions are there."""
    return all(
        type(x) in _PLAIN
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.is_contiguous()
        and x.numel() > 0
        for x in tensors
    ) and (kernels() is not None)


def norm(x: Tensor, weight: Tensor, epsilon: float, scales: Tensor | None = None) -> Tensor:
    """Return ``weight * x / sqrt(mean(x^2) + epsilon)`` of ``x`` (..., width).

    Args:
        scales: (rows,), is told what each row was multiplied by before the weight.
    """
    out, width = torch.empty_like(x), len(weight)
    told = None if scales is None else scales.data_ptr()
    _found().norm(x.numel() // width, width, _threads(), epsilon, x.data_ptr(), weight.data_ptr(), out.data_ptr(), told)
    return out


def norm_back(x: Tensor, weight: Tensor, scales: Tensor, upstream: Tensor) -> Tensor:
    """Return the gradient of ``x`` from that of ``norm``'s result."""
    out, width = torch.empty_like(x), len(weight)
    addresses = (of.data_ptr() for of in (x, weight, scales, upstream, out))
    _found().norm_back(x.numel() // width, width, _threads(), *addresses)
    return out


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """Return ``silu(gate) * up``, both of one shape."""
    out = torch.empty_like(gate)
    _found().gated(gate.numel(), _threads(), gate.data_ptr(), up.data_ptr(), out.data_ptr())
    return out


def gated_back(gate: Tensor, up: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``gate`` and ``up`` from that of ``gated``'s result."""
    of_gate, of_up = torch.empty_like(gate), torch.empty_like(gate)
    addresses = (of.data_ptr() for of in (gate, up, upstream, of_gate, of_up))
    _found().gated_back(gate.numel(), _threads(), *addresses)
    return of_gate, of_up


def can_turn(x: Any, cosine: Tensor, sine: Tensor) -> bool:
    """Return whether ``turned`` takes these: ``x`` (B, heads, T, width), the others (1 or B, T, width)."""
    return (
        type(x) in _PLAIN
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.stride(-1) == 1
        and x.numel() > 0
        and x.shape[-1] % 2 == 0
        and cosine.shape == sine.shape
        and cosine.shape in ((1, *x.shape[2:]), (x.shape[0], *x.shape[2:]))
        and is_ours(cosine, sine)
    )


def turned(x: Tensor, cosine: Tensor, sine: Tensor, *, back: bool = False) -> Tensor:
    """Return ``x`` (B, heads, T, width) turned by its angles, or the gradient of what was turned so.

    What is returned lies token by token.
    """
    count, heads, tokens, width = x.shape
    out = x.new_empty((count, tokens, heads, width))
    for number in range(count):
        row, angles = x[number], 0 if len(cosine) == 1 else number
        _found().rotated(
            tokens, heads, width, row.stride(1), row.stride(0), _threads(), -1.0 if back else 1.0, row.data_ptr(),
            cosine[angles].data_ptr(), sine[angles].data_ptr(), out[number].data_ptr(),
        )  # fmt: skip
    return out.transpose(1, 2)


def _found() -> Kernels:
    found = kernels()
    assert found is not None  # is_ours said so
    return found


def _threads() -> int:
    return torch.get_num_threads()
