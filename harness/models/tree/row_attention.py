"""Attention of texts under way: each row's new tokens see the keys of the row and those of the trunk it grew from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from harness.models.tree.attention import How, Trunk, attend, calls, hide, join, pick_rows, see_trunk, sink
from harness.models.tree.room import Room, ahead
from harness.models.tree.row_kernel import can_attend, row_attention
from harness.models.tree.tree_attention import padded

if TYPE_CHECKING:
    from harness.models.tree.trie import Ints

Tensor = torch.Tensor


class Row(Protocol):
    """A text under way: ``length`` counts its own keys, ``base`` those it sees of its ``trunk``, the first (-1: none)."""

    trunk: int
    base: int
    length: int


@dataclass(eq=False)
class KeptKeys:
    """Keys and values of a text that ended: of ``token_ids``, the first ``base`` of them in ``trunk``.

    ``layers`` has one (heads, places, width) pair per layer.
    """

    trunk: int
    base: int
    token_ids: list[int]
    layers: list[tuple[Tensor, Tensor]]

    def forget(self) -> None:
        """Let go of the keys; nothing can go on with them."""
        self.trunk, self.base = -1, 0
        self.token_ids, self.layers = [], []


class RowCache:
    """Keys and values of the rows under way: one (rows, heads, places, width) pair per layer, grown as needed.

    Args:
        rows: whose keys these are, the first ones first. They stay when places are added; other room is let go.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.layers: list[tuple[Tensor, Tensor]] = []
        self._rooms: list[tuple[Room, Room]] = []

    def add(self, places: Sequence[Ints], *, at: int, device: torch.device) -> Callable[[int, Tensor, Tensor], None]:
        """Return what puts keys and values at ``places`` of a pack into rows from ``at`` on, layer after layer."""
        room = self._room(at + len(places), max(map(len, places)) + 1, device)
        indices = [torch.as_tensor(rows, device=device) for rows in places]

        def put(layer: int, new_keys: Tensor, new_values: Tensor) -> None:
            self._grow(layer, room, (new_keys, new_values))
            keys, values = self.layers[layer]
            for row, index in enumerate(indices, at):
                keys[row, :, : len(index)] = new_keys.index_select(1, index)
                values[row, :, : len(index)] = new_values.index_select(1, index)

        return put

    def reserve(self, rows: int, places: int, like: list[tuple[Tensor, Tensor]]) -> None:
        """Make room for at least so many rows and places; what is there stays."""
        room = self._room(rows, places, like[0][0].device) if like else None
        for layer in range(len(like)) if room is not None else ():
            self._grow(layer, room, like[layer])

    def _room(self, rows: int, places: int, device: torch.device) -> tuple[int, int] | None:
        """Return how many rows and places to make room for; None where there is room enough."""
        have = self.layers[0][0].shape if self.layers else (0, 0, 0, 0)
        if rows <= have[0] and places <= have[2]:
            return None
        if places > have[2]:
            return max(rows, len(self.rows)), places + ahead(device)
        return max(rows, int(1.25 * have[0])), have[2]

    def _grow(self, layer: int, room: tuple[int, int] | None, like: tuple[Tensor, Tensor]) -> None:
        """Give a layer its room; what is there of the rows stays, the rest is let go."""
        if room is None:
            return
        rows, places = room
        made = Room((rows, *_heads(like[0], places)), like[0]), Room((rows, *_heads(like[1], places)), like[1])
        new = made[0].tensor, made[1].tensor
        if layer == len(self.layers):
            self.layers.append(new)
            self._rooms.append(made)
            return
        stay = min(len(self.rows), len(self.layers[layer][0]))
        longest = max((row.length for row in self.rows), default=0)
        for to, before in zip(new, self.layers[layer], strict=True):
            to[:stay, :, :longest] = before[:stay, :, :longest]
        self.layers[layer], self._rooms[layer] = new, made

    def let_go(self, row: int) -> None:
        """Give the memory of a row that ended back, as far as it can be told from that of others."""
        for rooms in self._rooms:
            for room in rooms:
                room.let_go(row)

    def take(self, row: int, trunk: int, base: int, token_ids: list[int]) -> KeptKeys:
        """Return a copy of a row's keys: those of ``token_ids`` after the first ``base``, which are its trunk's."""
        count = len(token_ids) - base
        layers = [(keys[row, :, :count].clone(), values[row, :, :count].clone()) for keys, values in self.layers]
        return KeptKeys(trunk, base, token_ids, layers)

    def put(self, row: int, kept: KeptKeys, places: int) -> None:
        """Copy the first ``places`` of kept keys into a row."""
        self.reserve(row + 1, places + 1, self.layers)
        for (keys, values), (kept_keys, kept_values) in zip(self.layers, kept.layers, strict=True):
            keys[row, :, :places] = kept_keys[:, :places]
            values[row, :, :places] = kept_values[:, :places]

    def move(self, source: int, target: int, places: int) -> None:
        """Copy the first ``places`` of a row over another row."""
        for keys, values in self.layers:
            keys[target, :, :places] = keys[source, :, :places]
            values[target, :, :places] = values[source, :, :places]


class RowAttention:
    """Attention of the new tokens of each row to the keys of its row and of its trunk.

    Args:
        widths: how many new tokens each row has, one after the other.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        widths: Sequence[int],
        cache: RowCache,
        trunks: dict[int, Trunk],
        device: torch.device,
    ) -> None:
        self.cache, self.trunks, self.count = cache, trunks, len(rows)
        steps = np.concatenate([np.arange(width) for width in widths])
        row_of = np.repeat(np.arange(len(rows)), widths)
        own = np.array([row.length for row in rows])[row_of] + steps
        self.text_places = own + np.array([row.base for row in rows])[row_of]
        self.longest, self.width = int(self.text_places.max()) + 1, int(own.max()) + 1
        cache.reserve(len(rows), self.width, cache.layers)
        self.row_of, self.own, self.places = (
            torch.as_tensor(numbers, device=device) for numbers in (row_of, own, self.text_places)
        )
        # (rows, most new tokens) token numbers, the first of the row standing for padding.
        tokens, is_real = padded(list(zip(np.cumsum([0, *widths]).tolist(), widths, strict=False)))
        self.tokens = torch.as_tensor(tokens, device=device)
        self.is_real = None if is_real.all() else torch.as_tensor(is_real.reshape(-1), device=device)
        trunk_of, base_of = (
            np.array(numbers)[row_of] for numbers in zip(*[(r.trunk, r.base) for r in rows], strict=True)
        )
        self.by_trunk: list[tuple[int, Any, Tensor | None]] = []
        for trunk in np.unique(trunk_of[trunk_of >= 0]).tolist():
            members = np.flatnonzero(trunk_of == trunk)
            everyone = slice(None) if len(members) == len(trunk_of) else torch.as_tensor(members, device=device)
            sees_all = (base_of[members] == trunks[trunk].length).all()
            seen = None if sees_all else torch.as_tensor(base_of[members], device=device)
            self.by_trunk.append((trunk, everyone, seen))
        self.biases: dict[Any, Tensor] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """See ``Routed``."""
        if how.window is not None and self.longest <= how.window:
            how = replace(how, window=None)
        layer = calls() - 1
        out, total = self._attend_rows(query, key, value, how, layer)
        for trunk, members, seen in self.by_trunk:
            part, part_total = out[members], total[:, members]
            above = self.trunks[trunk].layers[layer]
            join(part, part_total, *see_trunk(query[:, members], *above, how, self.places[members], seen))
            out[members], total[:, members] = part, part_total
        sink(out, total, how)
        return out

    def _attend_rows(self, query: Tensor, key: Tensor, value: Tensor, how: How, layer: int) -> tuple[Tensor, Tensor]:
        """Return attention (T, heads, width) to the rows' own keys, and the log-sum-exp (heads, T) of the scores."""
        cached = self.cache.layers[layer]
        if how.softcap is None and how.window is None and can_attend(query, key, value, cached):
            return row_attention(query, key, value, cached, self.row_of, self.own, how.scale)
        keys, values = cached
        keys[self.row_of, :, self.own] = key.transpose(0, 1)
        values[self.row_of, :, self.own] = value.transpose(0, 1)
        heads, _, width = query.shape
        groups = heads // key.shape[0]
        folded = pick_rows(query, self.tokens).reshape(self.count, key.shape[0], -1, width)
        seen = keys[: self.count, :, : self.width], values[: self.count, :, : self.width]
        result, sums = attend(folded, *seen, how, bias=self._bias(query.dtype, how, groups))
        assert sums is not None
        out = result.reshape(self.count, heads, -1, value.shape[-1]).transpose(1, 2).flatten(0, 1)
        total = sums.reshape(self.count, heads, -1).transpose(0, 1).flatten(1)
        if self.is_real is not None:
            out, total = out[self.is_real], total[:, self.is_real]
        return out, total

    def _bias(self, dtype: torch.dtype, how: How, groups: int) -> Tensor:
        name = (dtype, how.window, groups)
        if name not in self.biases:
            steps = torch.arange(self.width, device=self.own.device)
            own = self.own[self.tokens][..., None]
            is_hidden = steps > own
            if how.window is not None:
                is_hidden |= own - steps >= how.window
            self.biases[name] = hide(is_hidden, dtype).repeat(1, groups, 1).unsqueeze(1)
        return self.biases[name]


def _heads(like: Tensor, places: int) -> tuple[int, int, int]:
    """Return the shape of a row: heads, places, width."""
    return int(like.shape[-3]), places, int(like.shape[-1])
