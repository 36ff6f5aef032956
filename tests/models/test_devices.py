"""What only a GPU does, as far as a machine without one can tell: how a kernel is called, what an error says, what is free."""

from __future__ import annotations

import pytest
import torch

from harness.models.loading import pick_device
from harness.models.tree import attention, fused
from harness.models.tree.memory import free_bytes, give_back, is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
        MemoryError("Unable to allocate 3.00 GiB for an array"),
    ],
)
def test_every_way_of_saying_that_memory_ran_out_is_understood(error: BaseException) -> None:
    """Demand: torch's own kinds, those of the driver and its libraries, and Python's."""
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("out of resource: shared memory, Required: 99328, Hardware limit: 65536"),
        RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"),
        ValueError("out of memory"),
    ],
)
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    """Demand: what a smaller pass does not mend ends the run."""
    assert not is_out_of_memory(error)


def test_a_cpu_has_no_free_memory_to_plan_with() -> None:
    """Demand: None, so that the budget of a CPU holds; giving memory back needs no device."""
    assert free_bytes(torch.device("cpu")) is None
    give_back()


def test_the_best_device_is_one_that_computes() -> None:
    """Demand: the device that is chosen by itself is tried as one that is asked for."""
    assert torch.ones(2, device=pick_device(None)).sum() == 2


@pytest.mark.parametrize(("keys", "has_bias"), [(37, True), (48, True), (37, False)])
def test_the_fused_kernel_is_called_as_torch_declares_it(keys: int, has_bias: bool) -> None:
    """Demand: on torch's meta device the call gives a result and a log-sum-exp of the right shapes.

    The bias is one for all heads; each of its rows starts at a multiple of 16 numbers.
    """
    query = torch.empty(2, 4, 21, 64, device="meta", dtype=torch.bfloat16)
    key, value = (torch.empty(2, 4, keys, width, device="meta", dtype=torch.bfloat16) for width in (64, 32))
    bias = torch.empty(2, 1, 21, keys, device="meta", dtype=torch.bfloat16) if has_bias else None
    result, sums = fused._run(query, key, value, 0.125, bias, False)
    assert (result.shape, sums.shape, sums.dtype) == ((2, 4, 21, 32), (2, 4, 21), torch.float32)
    if bias is not None:
        aligned = fused._aligned(bias, query, key)
        assert aligned.shape == (2, 4, 21, keys)
        assert aligned.stride(2) % 16 == 0


@torch.no_grad()
def test_a_kernel_that_is_not_there_is_found_out_and_left_alone() -> None:
    """Demand: the try-out of a device without the kernel says no; attention is then computed plainly, and right."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 9, width) for width in (16, 16, 8))
    assert fused.fused_attention(query, key, value, scale=0.25, bias=None, is_causal=True) is None
    assert not fused._is_right(query, 8, has_bias=False, is_causal=True)
    result, sums = attention.attend(query, key, value, attention.How(scale=0.25), is_causal=True)
    scores = (query @ key.transpose(-1, -2) * 0.25).masked_fill(~torch.ones(9, 9, dtype=torch.bool).tril(), -torch.inf)
    assert torch.allclose(result, scores.softmax(-1) @ value, atol=1e-6)
    assert sums is not None and torch.allclose(sums, scores.logsumexp(-1), atol=1e-6)
