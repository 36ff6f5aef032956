"""Seeds: every generator at once, and streams of random numbers that each have a name."""

from __future__ import annotations

import hashlib
import operator
import random
from collections.abc import Sequence
from typing import SupportsIndex


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and Torch's global generators."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_for_task(seeds: Sequence[int | None]) -> None:
    """Seed Python's, NumPy's and Torch's generators as lm-eval does before it makes a task's requests; None leaves one."""
    import numpy as np
    import torch

    of_python, of_numpy, of_torch = seeds[:3]
    if of_python is not None:
        random.seed(of_python)
    if of_numpy is not None:
        np.random.seed(of_numpy)
    if of_torch is not None:
        torch.manual_seed(of_torch)


def stream_seed(seed: SupportsIndex, *parts: SupportsIndex | str) -> int:
    """Return the seed of an independent random stream, the same in every process.

    ``stream_seed(seed, epoch, document_index)`` makes a document's expansion independent of which worker draws it and
    in which order.
    """
    key = [part if isinstance(part, str) else operator.index(part) for part in (seed, *parts)]
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
