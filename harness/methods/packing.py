"""Rows of a step side by side in one row without padding, each with positions of its own and seeing itself alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from harness.methods.lean_layers import is_own
from harness.methods.micro_batches import IGNORED
from harness.models.refused import Refused
from harness.models.tree.attention import How, attend, calls, hide, pick_rows, route, wide
from harness.models.tree.fitness import KNOWN_PACKAGES, check_kind, has_hooks
from harness.models.tree.tree_attention import of_similar_length, padded

if TYPE_CHECKING:
    from harness.methods.micro_batches import Batch

Tensor = torch.Tensor


def row_lengths(batch: Batch) -> list[int] | None:
    """Return the length of each row, None where padding or a label stands elsewhere than it would, or there is no padding."""
    lengths = (batch.attention_mask != 0).sum(1)
    places = torch.arange(batch.attention_mask.shape[1], device=lengths.device)
    if not bool(((places < lengths[:, None]) == (batch.attention_mask != 0)).all()):
        return None
    # The last token gives the label behind it; of padding, nothing is left side by side.
    if bool(((places > lengths[:, None]) & (batch.labels != IGNORED)).any()):
        return None
    found: list[int] = lengths.tolist()
    return found if min(found) and min(found) < max(found) else None


def check_packable(model: Any) -> None:
    """Raise ``Refused`` for models whose rows may not stand side by side, as far as their kind tells."""
    config = model.config.get_text_config()
    check_kind(model, config)
    for name in ("attention_dropout", "attn_pdrop", "attn_dropout"):
        if getattr(config, name, None):
            raise Refused("its attention leaves out some of what it sees while it is trained")
    for module in model.modules():
        # What looks at its neighbours may begin as nothing, which no try-out would see, and learn to.
        if type(module).__module__.split(".")[0] not in KNOWN_PACKAGES or not (is_own(module) or _is_moved(module)):
            raise Refused(f"its part {type(module).__name__} is not the libraries' own")


def _is_moved(module: Any) -> bool:
    """Return whether a part's forward is accelerate's, which moves tensors and does nothing else."""
    return hasattr(module, "_hf_hook") and not has_hooks(module)


def run_packed(model: Any, batch: Batch, lengths: Sequence[int], device: torch.device) -> Any:
    """Run the rows of ``batch`` as one row without padding, and return what the model returns.

    Raises:
        Refused: not every layer has attention that can be routed.
    """
    ids = torch.cat([row[:length] for row, length in zip(batch.input_ids, lengths, strict=True)])
    places = torch.cat([torch.arange(length) for length in lengths])
    with route(model, PackedAttention(lengths, device)):
        output = model(input_ids=ids[None].to(device), position_ids=places[None].to(device), use_cache=False)
        layers = model.config.get_text_config().num_hidden_layers
        if calls() != layers:
            raise Refused(f"{calls()} of its {layers} layers have attention that can be routed")
    return output


class PackedAttention:
    """Causal attention within each of some rows that stand side by side; rows of similar length share a product."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        starts = [sum(lengths[:number]) for number in range(len(lengths))]
        self.rows, self.real, order = [], [], []
        for bucket in of_similar_length(list(zip(starts, lengths, strict=True))):
            rows, is_real = (torch.as_tensor(array) for array in padded(bucket))
            self.rows.append(rows.to(device))
            self.real.append(is_real.flatten().nonzero()[:, 0].to(device))
            order.append(rows[is_real])
        self.back = torch.argsort(torch.cat(order)).to(device)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """See ``Routed``.

        Raises:
            Refused: attention has sinks: fused kernels tell the sum that these need, and no gradient goes through it.
        """
        if how.sinks is not None:
            raise Refused("its attention has sinks")
        results = []
        for rows, real in zip(self.rows, self.real, strict=True):
            result = _causal(pick_rows(query, rows), pick_rows(key, rows), pick_rows(value, rows), how)
            results.append(result.transpose(1, 2).flatten(0, 1).index_select(0, real))
        return torch.cat(results).index_select(0, self.back)


def _causal(query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
    groups, length = query.shape[1] // key.shape[1], query.shape[2]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    if how.window is not None and how.window >= length:
        how = replace(how, window=None)
    if how.window is None:
        return attend(query, key, value, how, is_causal=True, needs_sum=False)[0]
    apart = torch.arange(length, device=query.device)[:, None] - torch.arange(length, device=query.device)
    return attend(query, key, value, how, bias=hide((apart < 0) | (apart >= how.window), wide(query)), needs_sum=False)[
        0
    ]
