"""Virtual tokens: what prompt tuning and its like put before every text, at places of the context, with logits of their own."""

from __future__ import annotations

from typing import Any

import torch
from lm_eval.models.huggingface import HFLM


class VirtualTokens(HFLM):
    """``HFLM`` whose logits are those of the text alone, and whose context is what is left for it."""

    @property
    def max_length(self) -> int:
        """As ``HFLM``, less the places that an adapter's virtual tokens take; a length that was given may leave them room."""
        most, taken = int(super().max_length), virtual_tokens(self.model)
        if not taken or not self._max_length:
            return most - taken
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 0
        return min(most, positions - taken) if most <= positions else most

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        logits: torch.Tensor = super()._model_call(inps, *args, **kwargs)
        return logits[:, -inps.shape[1] :] if virtual_tokens(self.model) else logits


def virtual_tokens(model: Any) -> int:
    """Return how many places of the context an active adapter takes for tokens of its own."""
    config = getattr(model, "active_peft_config", None) if hasattr(model, "peft_config") else None
    return int(config.num_virtual_tokens) if config is not None and config.is_prompt_learning else 0
