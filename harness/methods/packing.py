"""Rows of a step side by side in one row, without padding and what they begin alike with once; each sees itself alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from harness.methods.lean_layers import is_own
from harness.methods.micro_batches import IGNORED
from harness.models.refused import Refused
from harness.models.tree.attention import How, attend, calls, hide, pick_rows, route, wide
from harness.models.tree.fitness import KNOWN_PACKAGES, check_kind, has_hooks
from harness.models.tree.tree_attention import of_similar_length

if TYPE_CHECKING:
    from harness.methods.micro_batches import Batch

Tensor = torch.Tensor
# Beginnings are shared where that saves one token in so many.
LEAST_SAVED = 16


@dataclass(frozen=True)
class Layout:
    """Where the tokens of some rows stand in one row, in which what two rows begin with stands once.

    ``index[b, t]`` (B, T) is the place of token t of row b; what is padding stands for the row's first token. ``lengths`` (B,)
    counts each row's tokens, ``shared`` (B,) those at its beginning that a row before it has placed already.
    """

    index: Tensor
    lengths: list[int]
    shared: list[int]

    def __len__(self) -> int:
        """Count the tokens of the one row."""
        return sum(self.lengths) - sum(self.shared)


def lay_out(lengths: Sequence[int], shared: Sequence[int]) -> Layout:
    """Return where rows of these lengths stand, of which each shares so many first tokens with the row before it."""
    index = torch.zeros((len(lengths), max(lengths)), dtype=torch.long)
    taken = 0
    for row, (length, common) in enumerate(zip(lengths, shared, strict=True)):
        index[row, :common] = index[row - 1, :common]
        index[row, common:length] = torch.arange(taken, taken + length - common)
        index[row, length:] = index[row, 0]
        taken += length - common
    return Layout(index, list(lengths), list(shared))


def layout_of(batch: Batch) -> Layout | None:
    """Return where the rows of ``batch`` stand side by side; None where that saves nothing, or would lose a label.

    It would where padding or a label stands elsewhere than behind a row.
    """
    lengths = (batch.attention_mask != 0).sum(1)
    places = torch.arange(batch.attention_mask.shape[1], device=lengths.device)
    if not bool(((places < lengths[:, None]) == (batch.attention_mask != 0)).all()):
        return None
    # The last token gives the label behind it; of padding, nothing is left side by side.
    if bool(((places > lengths[:, None]) & (batch.labels != IGNORED)).any()):
        return None
    rows: list[int] = lengths.tolist()
    if not min(rows):
        return None
    shared = _shared(batch, rows)
    return lay_out(rows, shared) if any(shared) or min(rows) < max(rows) else None


def _shared(batch: Batch, lengths: Sequence[int]) -> list[int]:
    """Return how many first tokens each row has in common with the one before it; 0 for all where that saves little."""
    is_same = (batch.input_ids[1:] == batch.input_ids[:-1]).int().cumprod(1).sum(1).tolist()
    shared = [0, *(min(same, *lengths[row : row + 2]) for row, same in enumerate(is_same))]
    return shared if sum(shared) * LEAST_SAVED >= sum(lengths) else [0] * len(lengths)


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


def run_packed(model: Any, batch: Batch, layout: Layout, device: torch.device) -> Any:
    """Run the rows of ``batch`` as one row laid out so, and return what the model returns.

    Raises:
        Refused: not every layer has attention that can be routed.
    """
    is_own = _owned(layout)
    places = torch.arange(layout.index.shape[1]).expand_as(is_own)[is_own]
    ids = batch.input_ids[:, : layout.index.shape[1]].to("cpu")[is_own]
    with route(model, PackedAttention(layout, device)):
        output = model(input_ids=ids[None].to(device), position_ids=places[None].to(device), use_cache=False)
        layers = model.config.get_text_config().num_hidden_layers
        if calls() != layers:
            raise Refused(f"{calls()} of its {layers} layers have attention that can be routed")
    return output


def _owned(layout: Layout) -> Tensor:
    """Return which tokens (B, T) stand in the one row on their row's account, in the order in which they stand there."""
    places = torch.arange(layout.index.shape[1])
    return (places >= torch.tensor(layout.shared)[:, None]) & (places < torch.tensor(layout.lengths)[:, None])


class PackedAttention:
    """Causal attention within each of some rows that stand side by side; rows of similar length share a product.

    What rows have in common is attended to in each of them, once for its own sake and else for those behind it.
    """

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self.rows, self.real, order = [], [], []
        is_own = _owned(layout)
        for bucket in of_similar_length(list(enumerate(layout.lengths))):
            numbers, longest = [number for number, _ in bucket], bucket[0][1]
            rows, owned = layout.index[numbers, :longest], is_own[numbers, :longest]
            self.rows.append(rows.to(device))
            self.real.append(owned.flatten().nonzero()[:, 0].to(device))
            order.append(rows[owned])
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
