"""From the encoder's vector to one input row of the decoder: two linear layers, as large as the decoder's own rows are."""

from __future__ import annotations

import torch

Tensor = torch.Tensor


class Projector(torch.nn.Module):
    """``second(gelu(first(x)))``, in float32.

    Args:
        encoder_width: D of the encoder's vectors.
        decoder_width: D of the decoder's input rows.
        seed: of the first weights; nothing else draws from it, and the global generator is left as it was.
    """

    def __init__(self, encoder_width: int, decoder_width: int, *, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = torch.nn.Linear(encoder_width, decoder_width)
            self.second = torch.nn.Linear(decoder_width, decoder_width)

    @property
    def widths(self) -> tuple[int, int]:
        """Widths of what goes in and what comes out."""
        return self.first.in_features, self.second.out_features

    def forward(self, vectors: Tensor) -> Tensor:
        """Return input rows (B, decoder width) of encoder vectors (B, encoder width)."""
        found: Tensor = self.second(torch.nn.functional.gelu(self.first(vectors.float())))
        return found

    @torch.no_grad()
    def scale_to(self, size: float, vectors: Tensor) -> None:
        """Make the rows of some vectors (B, encoder width) as large, by root mean square, as ``size``."""
        factor = size / root_mean_square(self(vectors))
        self.second.weight.mul_(factor)
        self.second.bias.mul_(factor)


def root_mean_square(rows: Tensor) -> float:
    """Return the root of the mean square of all numbers of ``rows``."""
    return float(rows.detach().float().square().mean().sqrt())
