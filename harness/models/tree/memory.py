"""How many tokens go through a model at once: as many as are fast and fit, fewer after the memory ran out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from harness.progress import say

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A CPU is as fast with this many tokens as with more, and they stay near its caches.
CPU_TOKENS, CPU_ROWS = 1024, 32
# A GPU gains nothing measurable beyond these.
MOST_TOKENS, LEAST_TOKENS, MOST_ROWS = 16384, 64, 256
# Requests that go lm-eval's own way together: what is asked again when memory runs out in the middle.
PORTION = 256
# Part of the free memory that one pass may take: the estimate is rough, and others may use the device.
SHARE = 0.4
# Settings of glibc's ``mallopt`` by number: keep that much freed memory; take blocks from so much on from the system.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
# What glibc's own adjustment ends with once a process has freed blocks as large as a model's.
USUAL = {TRIM_THRESHOLD: 64 << 20, MMAP_THRESHOLD: 32 << 20}
KEPT = 1 << 30
# What errors say that are not of a kind of their own.
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "bad_alloc", "STATUS_ALLOC_FAILED")


class Budget:
    """Tokens per forward pass and rows of a generation, from free memory; halved when that was too much.

    Args:
        rows: a bound that the user gave: no more requests at a time than this. None: as many as fit.
    """

    def __init__(self, model: PreTrainedModel, *, rows: int | None = None) -> None:
        self.asked_rows = rows
        device = model.get_input_embeddings().weight.device
        self.tokens, self.rows = CPU_TOKENS, CPU_ROWS
        free = free_bytes(device)
        if free is not None:
            self.tokens = int(min(MOST_TOKENS, max(LEAST_TOKENS, SHARE * free / bytes_per_token(model))))
            self.rows = int(min(MOST_ROWS, max(1, SHARE * free / (2048 * cache_bytes_per_token(model)))))

    def tokens_for(self, longest: int) -> int:
        """Return the tokens per pass for requests of up to ``longest`` tokens."""
        return self.tokens if self.asked_rows is None else min(self.tokens, self.asked_rows * longest)

    def rows_for(self) -> int:
        """Return how many texts are generated at the same time."""
        return self.rows if self.asked_rows is None else min(self.rows, self.asked_rows)

    def plain_rows(self, longest: int) -> int:
        """Return the rows of a batch that goes lm-eval's own way, padded to ``longest`` tokens."""
        return self.asked_rows or max(1, min(self.rows, self.tokens // max(1, longest)))

    def shrink(self, error: BaseException) -> None:
        """Halve after memory ran out; raises ``error`` when there is nothing left to halve."""
        if self.tokens <= LEAST_TOKENS and self.rows <= 1:
            raise error
        self.tokens, self.rows = max(LEAST_TOKENS, self.tokens // 2), max(1, self.rows // 2)
        if self.asked_rows is not None:
            self.asked_rows = max(1, self.asked_rows // 2)
        give_back()
        say(f"memory ran out; going on with {self.tokens} tokens at a time (nothing that was answered is lost)")


def in_portions(numbers: Sequence[int], answer: Callable[[list[int]], None], budget: Budget) -> None:
    """Call ``answer`` for portions of ``numbers``, a portion again with a smaller budget after memory ran out."""
    start = 0
    while start < len(numbers):
        try:
            answer(list(numbers[start : start + PORTION]))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            budget.shrink(error)
        else:
            start += PORTION


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that a device has left for tensors of this process; None for a CPU, and where it cannot be told.

    Memory that torch holds without a tensor in it counts as free. Of a part of a GPU (MIG) it is the part's; a share that the
    process was given (``set_per_process_memory_fraction``) bounds it.
    """
    if device.type == "mps":  # which shares its memory with the CPU
        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    if device.type not in {"cuda", "xpu"}:
        return None
    of: Any = getattr(torch, device.type)
    free, total = of.mem_get_info(device)
    taken = of.memory_allocated(device)
    share = getattr(of, "get_per_process_memory_fraction", lambda _: 1.0)(
        device
    )  # younger than the oldest torch we take
    return int(max(0, min(free + of.memory_reserved(device) - taken, share * total - taken)))


def give_back() -> None:
    """Give memory that torch holds without a tensor in it back to the devices."""
    for of in (torch.cuda, torch.xpu):
        if of.is_initialized():
            of.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that a device or the CPU has no memory left.

    ``torch.cuda.OutOfMemoryError`` is ``torch.OutOfMemoryError``; drivers and libraries that want memory of their own
    (cuBLAS, cuDNN) say it in words.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def bytes_per_token(model: PreTrainedModel) -> float:
    """Return about how many bytes a token takes while it goes through a model: a few vectors of each width."""
    config = model.config.get_text_config()
    width = int(getattr(config, "hidden_size", 1024))
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    return float(model.dtype.itemsize * (12 * width + 4 * inner) + 4 * width)


def cache_bytes_per_token(model: PreTrainedModel) -> float:
    """Return how many bytes the keys and values of a token take in all layers."""
    config = model.config.get_text_config()
    heads = int(getattr(config, "num_attention_heads", 1))
    width = int(getattr(config, "head_dim", None) or int(getattr(config, "hidden_size", 1024)) // heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    return float(2 * model.dtype.itemsize * key_heads * width * int(getattr(config, "num_hidden_layers", 1)))


def trim() -> None:
    """Give memory of this process that was freed back to the system, where the C library can be told to (glibc)."""
    libc = _glibc()
    if libc is not None and not _keeping[0]:
        libc.malloc_trim(0)


_keeping: list[int] = [0]


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within it, memory that tensors are done with stays with the process, at hand for the next ones.

    glibc gives large blocks back when they are freed, and each layer's tensors then begin with fresh pages that the
    system has to clear: on a CPU a tenth of the time of a pass. At the end what is free is given back. With another
    C library nothing is changed.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    _keeping[0] += 1
    try:
        for setting in USUAL:
            libc.mallopt(setting, KEPT)
        yield
    finally:
        _keeping[0] -= 1
        if not _keeping[0]:
            for setting, usual in USUAL.items():
                libc.mallopt(setting, usual)
            trim()


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        return libc if all(hasattr(libc, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")) else None
    except (OSError, TypeError):  # no library by no name, as on Windows
        return None
