"""What many rows of ids begin with goes through a decoder once: its keys and values stand before each of them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tensor = torch.Tensor
# Fewer shared tokens, or rows that share them, and nothing is gained.
LEAST_TOKENS, LEAST_ROWS = 4, 4


@dataclass(frozen=True, slots=True)
class Prefix:
    """What was computed of a beginning of ids.

    Attributes:
        states: (1, P, D), after the last norm.
        layers: keys and values of each layer, (1, H, P, D / H).
    """

    ids: tuple[int, ...]
    states: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]


def shared_beginning(rows: Sequence[Sequence[int]], *, most: int) -> list[int]:
    """Return the ids with which all rows begin, no more than ``most``."""
    ordered = [tuple(row) for row in rows]
    first, last = min(ordered), max(ordered)  # whatever lies between them begins like both
    count = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return list(first[: min(count, most)])


class Prefixed:
    """A causal model without a head, whose rows may begin alike."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Take ``model`` as it is."""
        self.model = model
        # Its name is another one from transformers 5.40 on.
        self._cache_name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

    @torch.no_grad()
    def prefix(self, ids: Sequence[int]) -> Prefix | None:
        """Return what the model makes of ``ids``, None where it keeps no plain keys and values."""
        from transformers import DynamicCache

        given = torch.tensor([list(ids)], device=self.model.device)
        out = self.model(input_ids=given, attention_mask=torch.ones_like(given), use_cache=True)
        cache = getattr(out, self._cache_name, None)
        if not isinstance(cache, DynamicCache):
            return None
        layers: list[Any] = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers]
        if any(part is None or part.ndim != 4 or part.shape[2] != len(ids) for layer in layers for part in layer):
            return None
        return Prefix(tuple(ids), out.last_hidden_state, tuple(layers))

    @torch.no_grad()
    def states(self, prefix: Prefix, rest: Tensor, mask: Tensor) -> Tensor:
        """Return the states (B, P + T, D) of rows that begin with ``prefix`` and go on with ``rest``.

        Args:
            rest: ids (B, T), padded on the right.
            mask: (B, T), 1 at real tokens.
        """
        from transformers import DynamicCache

        rows, before = len(rest), len(prefix.ids)
        cache = DynamicCache()
        for number, (keys, values) in enumerate(prefix.layers):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), number)
        out: Any = self.model(
            input_ids=rest,
            attention_mask=torch.cat([mask.new_ones(rows, before), mask], dim=1),
            position_ids=(before + torch.arange(rest.shape[1], device=rest.device)).expand(rows, -1),
            use_cache=True,
            **{self._cache_name: cache},
        )
        return torch.cat([prefix.states.expand(rows, -1, -1), out.last_hidden_state], dim=1)
