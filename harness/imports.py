"""Import large libraries without the garbage collector going through them again and again."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """Collect no garbage while the block imports: what modules are made of stays, and there are millions of it.

    In a process that has no torch yet, nothing there is can be a tensor: then later collections leave it out, too.
    """
    was_on, holds_no_tensor = gc.isenabled(), "torch" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if holds_no_tensor:
            gc.freeze()
        if was_on:
            gc.enable()
