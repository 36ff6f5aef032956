"""One vector out of the states of a sequence, in one of several ways."""

from __future__ import annotations

from typing import Final

import torch

from harness import HarnessError
from harness.names import suggestion
from harness_contextual_embeddings.layout import Layout

Tensor = torch.Tensor
# The contextual half comes first; a saved embedder says so in its file.
HALVES: Final = ("context", "eos")
MODES: Final = (
    "context_eos", "context_eos_halves_normalised", "context", "eos", "sum", "mean", "weighted_mean", "last",
)  # fmt: skip
"""What ``pool`` can do: both halves side by side as they are or each at length 1, one of them, their sum, means over text."""


def pool(hidden_states: Tensor, layout: Layout, mode: str) -> Tensor:
    """Make one vector of the states of one sequence, neither normalised nor projected.

    Args:
        hidden_states: (T, D), after the final norm, any float dtype; padding may stand on either side.
        layout: where everything stands in it; with padding on the left, ``layout.moved``.
        mode: one of ``MODES``. ``mean`` and ``weighted_mean`` (weights 1 to n) are over the n tokens of the text, without
            BOS, instruction, contextual token and EOS; ``last`` is the sequence's last token before EOS.

    Returns:
        (D,), or (2 D,) of both halves; float32 or wider.

    Raises:
        HarnessError: there is no such mode, or the sequence lacks what it takes.
    """
    if mode not in MODES:
        raise HarnessError(f"no pooling '{mode}'; {suggestion(mode, MODES)}")
    states = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
    if mode.startswith("context_eos") or mode == "sum":
        halves = [_at(states, layout, half) for half in HALVES]
        if mode == "sum":
            return halves[0] + halves[1]
        if mode == "context_eos_halves_normalised":
            halves = [torch.nn.functional.normalize(half, dim=-1) for half in halves]
        return torch.cat(halves)
    if mode in HALVES:
        return _at(states, layout, mode)
    if layout.text_end <= layout.text_start:
        raise HarnessError(f"pooling '{mode}' takes the tokens of the text, and there are none")
    if mode == "last":
        return states[layout.last_index if layout.eos_index is None else layout.eos_index - 1]
    text = states[layout.text_start : layout.text_end]
    if mode == "mean":
        return text.mean(0)
    weights = torch.arange(1, len(text) + 1, dtype=text.dtype, device=text.device)
    return (weights[:, None] * text).sum(0) / weights.sum()


def _at(states: Tensor, layout: Layout, half: str) -> Tensor:
    place = layout.context_index if half == "context" else layout.eos_index
    if place is None:
        raise HarnessError(f"the sequence has no {'contextual token' if half == 'context' else 'EOS'} to pool")
    return states[place]
