"""The state of Torch's random numbers, kept to have what follows happen again in the same way."""

from __future__ import annotations

import torch


class Chance:
    """Where Torch's generators of the CPU and of ``device`` stand now."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Set them back to where they stood."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)
