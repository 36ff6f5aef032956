"""Products of few rows with a model's weights: by a kernel of our own where the machine can have one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from harness.models.tree.few_rows_kernel import kernel

Tensor = torch.Tensor
# With more rows than these the library's products are as fast. With wide vectors they are so earlier.
MOST_ROWS = {"AVX2": 64, "AVX512": 16}

_linear = torch.nn.functional.linear
_plain = (Tensor, torch.nn.Parameter)


@cache
def most_rows() -> int:
    """Return how many rows a product of the kernel may have on this machine; 0 where there is no kernel for it."""
    return MOST_ROWS.get(torch.backends.cpu.get_cpu_capability(), 0)


@contextmanager
def few_rows(rows: int, device: torch.device) -> Iterator[None]:
    """Within it ``torch.nn.functional.linear`` is ours, where the pass is one of few rows on a CPU."""
    is_others = torch.nn.functional.linear is not _linear  # who put another in its place wants that one
    if device.type != "cpu" or rows > most_rows() or is_others or kernel() is None:
        yield
        return
    torch.nn.functional.linear = linear
    try:
        yield
    finally:
        torch.nn.functional.linear = _linear


def linear(input: Any, weight: Any, bias: Any = None) -> Tensor:  # the names are torch's
    """As ``torch.nn.functional.linear``: what is float32 and lies row by row goes to the kernel, the rest to torch."""
    found = kernel() if _is_ours(input, weight, bias) else None  # it is not made where nothing would go to it
    if found is None:
        return _linear(input, weight, bias)
    x = input.contiguous()
    columns, width = weight.shape
    out = x.new_empty((*x.shape[:-1], columns))
    address = None if bias is None else bias.data_ptr()
    rows, threads = x.numel() // width, torch.get_num_threads()
    found(rows, columns, width, threads, x.data_ptr(), weight.data_ptr(), address, out.data_ptr())
    return out


def _is_ours(input: Any, weight: Any, bias: Any) -> bool:
    if type(input) is not Tensor or type(weight) not in _plain or weight.dim() != 2 or not input.numel():
        return False
    return (
        input.dtype == weight.dtype == torch.float32
        and input.device.type == weight.device.type == "cpu"
        and input.shape[-1] == weight.shape[1]
        and input.numel() <= most_rows() * weight.shape[1]
        and weight.is_contiguous()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and (
            bias is None
            or (
                type(bias) in _plain
                and bias.dtype == torch.float32
                and bias.is_contiguous()
                and bias.shape == weight.shape[:1]
            )
        )
    )
