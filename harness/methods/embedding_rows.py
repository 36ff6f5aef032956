"""Rows of the embeddings and of the output head, packed ones too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from harness.methods.hidden_states import Frozen

if TYPE_CHECKING:
    from harness.models.causal import CausalLM
Tensor = torch.Tensor
# Rows of the unit matrix that a head without readable weights is given at once.
PROBES = 64


def head_rows(lm: CausalLM, token_ids: Sequence[int]) -> Tensor:
    """Return the output head's rows (n, D) of some tokens, float32 on the CPU, whatever the head is stored as."""
    weight = head_weight(lm)
    return weight[torch.tensor(token_ids, device=weight.device)].float().cpu()


def head_weight(lm: CausalLM) -> Tensor:
    """Return the output head's weights (V, D), in whatever dtype they are; packed ones unpacked."""
    frozen = Frozen(lm)
    weight = getattr(frozen.head.module, "weight", None)
    is_plain = isinstance(weight, Tensor) and weight.is_floating_point() and not hasattr(weight, "quant_state")
    if is_plain and weight is not None and weight.dim() == 2 and weight.shape[1] == frozen.width:
        return weight.detach()
    return _answers_to_units(lm, frozen)


@torch.no_grad()
def _answers_to_units(lm: CausalLM, frozen: Frozen) -> Tensor:
    """Return the head's rows (V, D) as what it answers to unit vectors: any head can be read this way."""
    head = frozen.head.module
    units = torch.eye(frozen.width, dtype=lm.model.dtype, device=lm.device)
    bias = head(units[:1] * 0).float()
    return torch.cat([(head(part).float() - bias).cpu() for part in units.split(PROBES)]).T.contiguous()
