"""The output head with the tools' rows."""

from __future__ import annotations

import torch

Tensor = torch.Tensor


class ToolHead:
    """Rows of tools beside a model's output head: ``logits`` is added to nothing and changes nothing of the words.

    Args:
        rows: (tools, D) float32.
        bias: a constant that every tool logit gets, words do not.
    """

    def __init__(self, rows: Tensor, bias: float) -> None:
        self.rows, self.bias = rows, bias

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the tools' logits (N, tools), float32, of hidden states (N, D) before the output head."""
        self.rows = self.rows.to(hidden.device)
        return hidden.float() @ self.rows.T + self.bias
