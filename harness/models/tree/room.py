"""Room for keys that takes memory only where something was written, and gives it back row by row."""

from __future__ import annotations

import math
import mmap
import sys
from contextlib import suppress

import torch

Tensor = torch.Tensor
# Places made beyond those that are asked for: where they cost memory at once, and where they cost none until they are used.
AHEAD, FREE_AHEAD = 63, 255


def is_lazy(device: torch.device) -> bool:
    """Return whether room on a device takes memory page by page, as it is written."""
    return device.type == "cpu" and sys.platform == "linux"


def ahead(device: torch.device) -> int:
    """Return how many places to make beyond those that are asked for."""
    return FREE_AHEAD if is_lazy(device) else AHEAD


class Room:
    """Numbers by rows, ``tensor``: zeros until they are written.

    Args:
        shape: the rows first.
        like: of its type and on its device.
    """

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        self._pages = _pages(math.prod(shape) * like.element_size()) if is_lazy(like.device) else None
        if self._pages is None:
            self.tensor = like.new_zeros(shape)
        else:
            self.tensor = torch.frombuffer(self._pages, dtype=like.dtype).view(shape)

    def let_go(self, row: int) -> None:
        """Give the memory of a row back, all pages that are its alone; what is read there next are zeros or what was there."""
        if self._pages is None:
            return
        size = self.tensor.stride(0) * self.tensor.element_size()
        start = -(-row * size // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (row + 1) * size // mmap.PAGESIZE * mmap.PAGESIZE
        if start < stop:
            self._pages.madvise(mmap.MADV_DONTNEED, start, stop - start)


def _pages(count: int) -> mmap.mmap | None:
    """Return so many bytes of zeros, none of which takes memory yet; None where the system gives none."""
    try:
        pages = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError):  # no address space left, or nothing to make room for
        return None
    with suppress(OSError):  # a system without huge pages, each of which would take the memory of several rows
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return pages
