"""Attention for a pack of units: each token sees its trunk, the stem of its unit, and its ancestors in the branches.

Parts of the softmax are computed apart, units of similar size side by side, and joined by their log-sum-exp. Nothing is
padded anywhere but here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.models.tree.attention import (
    How,
    Tensor,
    Trunk,
    attend,
    calls,
    hide,
    join,
    on_cpu_kernel,
    pick_rows,
    see_trunk,
    sink,
    wide,
)

if TYPE_CHECKING:
    from harness.models.tree.trie import Ints, Pack, Trie

Keep = Callable[[int, Tensor, Tensor], None]


class TreeAttention:
    """Attention for one pack.

    Args:
        trunks: the keys of trunks by number; those that the pack's units become are added.
        keep: is given the number of each layer, and its keys and values (heads, T, width) of all tokens.
    """

    def __init__(
        self, pack: Pack, trie: Trie, trunks: dict[int, Trunk], device: torch.device, *, keep: Keep | None = None
    ) -> None:
        self.trunks, self.keep = trunks, keep
        self.windows: set[int] = set()  # that layers asked for
        positions = pack.positions
        self.longest = int(trie.depth[positions].max()) + 1
        self.depth = torch.as_tensor(trie.depth[positions], device=device)
        starts = np.cumsum([0, *map(len, pack.units)])
        self.spans = [
            (unit, int(start), int(start) + len(unit)) for unit, start in zip(pack.units, starts, strict=False)
        ]
        self.trunk_rows = _spans_by_trunk(self.spans)
        self.pieces = [
            *_stem_pieces(self.spans, device),
            *_branch_pieces(self.spans, positions, trie.end, device),
        ]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """See ``Routed``."""
        if how.window is not None:
            self.windows.add(how.window)
            if self.longest <= how.window:
                how = replace(how, window=None)
        heads, length, _ = query.shape
        layer = calls() - 1
        out = query.new_empty((length, heads, value.shape[-1]))
        needs_sum = bool(self.trunk_rows) or how.sinks is not None
        total = torch.empty((heads, length), dtype=wide(query), device=query.device) if needs_sum else None
        for piece in self.pieces:
            piece.attend(query, key, value, how, self.depth, out, total)
        for number, start, stop in self.trunk_rows:
            assert total is not None
            keys, values = self.trunks[number].layers[layer]
            seen = see_trunk(query[:, start:stop], keys, values, how, self.depth[start:stop])
            join(out[start:stop], total[:, start:stop], *seen)
        sink(out, total, how)
        self._keep(layer, key, value)
        return out

    def _keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        if self.keep is not None:
            self.keep(layer, key, value)
        for unit, start, stop in self.spans:
            if unit.becomes >= 0:
                own = key[:, start:stop], value[:, start:stop]
                if unit.trunk >= 0:
                    above = self.trunks[unit.trunk].layers[layer]
                    own = torch.cat([above[0], own[0]], 1), torch.cat([above[1], own[1]], 1)
                else:
                    own = own[0].clone(), own[1].clone()
                self.trunks.setdefault(unit.becomes, Trunk()).layers.append(own)


@dataclass
class _Piece:
    """Some rows of tokens that attend to some rows of tokens, B units side by side.

    ``queries`` (B, Q) and ``keys`` (B, K) are row numbers, padded; ``is_real`` (B, Q) marks the queries that are not
    padding. ``allowed`` (B, Q, K) says who sees whom; None stands for causal, with queries the same as keys: then
    ``spans`` has each unit's first row and number of rows.
    """

    queries: Tensor
    keys: Tensor
    is_real: Tensor | None
    allowed: Tensor | None
    spans: Sequence[tuple[int, int]] = ()
    biases: dict[Any, Tensor] = field(default_factory=dict)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, how: How, depth: Tensor, out: Tensor, total: Tensor | None
    ) -> None:
        """Write the attention of the piece's queries to ``out`` (T, heads, width) and ``total`` (heads, T)."""
        if self.spans and on_cpu_kernel(query, value, how):
            self._attend_each(query, key, value, how, out, total)
            return
        q, k, v = pick_rows(query, self.queries), pick_rows(key, self.keys), pick_rows(value, self.keys)
        groups = q.shape[1] // k.shape[1]
        batch, heads, length, width = q.shape
        if self.allowed is None and how.window is None:
            k, v = _repeat(k, groups), _repeat(v, groups)
            result, sums = attend(q, k, v, how, is_causal=True, needs_sum=total is not None)
        else:
            # Query heads of one key head go in as more rows: no key is copied.
            q = q.reshape(batch, k.shape[1], groups * length, width)
            bias = self._bias(q.dtype, how.window, depth, groups)
            result, sums = attend(q, k, v, how, bias=bias, needs_sum=total is not None)
            result = result.reshape(batch, heads, length, -1)
            sums = None if sums is None else sums.reshape(batch, heads, length)
        rows, result = self.queries.reshape(-1), result.transpose(1, 2).reshape(batch * length, heads, -1)
        if self.is_real is not None:
            real = self.is_real
            rows, result = rows[real], result[real]
        out[rows] = result
        if total is not None and sums is not None:
            sums = sums.transpose(0, 1).reshape(heads, -1)
            total[:, rows] = sums if self.is_real is None else sums[:, self.is_real]

    def _attend_each(
        self, query: Tensor, key: Tensor, value: Tensor, how: How, out: Tensor, total: Tensor | None
    ) -> None:
        """Do the same unit after unit, where nothing has to be copied or padded: rows are slices, heads strides."""
        heads, key_heads = len(query), len(key)
        shape = key_heads, heads // key_heads
        query, key, value = query.unflatten(0, shape), key[:, None], value[:, None]
        for start, length in self.spans:
            rows = slice(start, start + length)
            k, v = (of[:, :, rows].expand(*shape, -1, -1) for of in (key, value))
            result, sums = attend(query[:, :, rows], k, v, how, is_causal=True)
            out[rows] = result.flatten(0, 1).transpose(0, 1)
            if total is not None and sums is not None:
                total[:, rows] = sums.flatten(0, 1)

    def _bias(self, dtype: torch.dtype, window: int | None, depth: Tensor, groups: int) -> Tensor:
        """Return 0 where a query sees a key and minus infinity where not: (B, 1, groups x Q, K)."""
        name = (dtype, window, groups)
        if name not in self.biases:
            if self.allowed is None:
                count = self.keys.shape[1]
                allowed = torch.ones((count, count), dtype=torch.bool, device=self.keys.device).tril()
                allowed = allowed.expand(len(self.keys), -1, -1)
            else:
                allowed = self.allowed
            if window is not None:
                allowed = allowed & (depth[self.queries][:, :, None] - depth[self.keys][:, None, :] < window)
            self.biases[name] = hide(~allowed, dtype).repeat(1, groups, 1).unsqueeze(1)
        return self.biases[name]


def _spans_by_trunk(spans: Sequence[tuple[Any, int, int]]) -> list[tuple[int, int, int]]:
    """Return (trunk, first row, row after the last) for runs of units under one trunk."""
    runs: list[tuple[int, int, int]] = []
    for unit, start, stop in spans:
        if unit.trunk < 0:
            continue
        if runs and runs[-1][0] == unit.trunk and runs[-1][2] == start:
            runs[-1] = (unit.trunk, runs[-1][1], stop)
        else:
            runs.append((unit.trunk, start, stop))
    return runs


def _stem_pieces(spans: Sequence[tuple[Any, int, int]], device: torch.device) -> list[_Piece]:
    pieces = []
    for bucket in of_similar_length([(start, unit.stem) for unit, start, _ in spans]):
        rows, is_real = padded(bucket)
        index = torch.as_tensor(rows, device=device)
        real = None if is_real.all() else torch.as_tensor(is_real.reshape(-1), device=device)
        pieces.append(_Piece(index, index, real, None, bucket))
    return pieces


def _branch_pieces(
    spans: Sequence[tuple[Any, int, int]], positions: Ints, end: Ints, device: torch.device
) -> list[_Piece]:
    pieces = []
    branched = [(start, len(unit)) for unit, start, _ in spans if len(unit) > unit.stem]
    stems = {start: unit.stem for unit, start, _ in spans}
    for bucket in of_similar_length(branched):
        keys, is_key = padded(bucket)
        queries, is_query = padded([(start + stems[start], length - stems[start]) for start, length in bucket])
        ancestor, own = positions[keys][:, None, :], positions[queries][:, :, None]
        allowed = (ancestor <= own) & (own < end[positions[keys]][:, None, :]) & is_key[:, None, :]
        allowed |= ~is_query[:, :, None]  # padding sees something, lest it be no number
        real = None if is_query.all() else torch.as_tensor(is_query.reshape(-1), device=device)
        pieces.append(
            _Piece(
                torch.as_tensor(queries, device=device),
                torch.as_tensor(keys, device=device),
                real,
                torch.as_tensor(allowed, device=device),
            )
        )
    return pieces


def of_similar_length(spans: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Group (first row, length) spans of similar length: the shortest at least 0.8 of the longest, or 8 less."""
    buckets: list[list[tuple[int, int]]] = []
    for span in sorted(spans, key=lambda span: -span[1]):
        if buckets and (span[1] >= 0.8 * buckets[-1][0][1] or span[1] >= buckets[-1][0][1] - 8):
            buckets[-1].append(span)
        else:
            buckets.append([span])
    return buckets


def padded(spans: Sequence[tuple[int, int]]) -> tuple[Ints, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return row numbers (B, longest), the first row standing for padding, and which are real."""
    longest = max(length for _, length in spans)
    steps = np.arange(longest)[None]
    starts, lengths = (
        np.array([start for start, _ in spans])[:, None],
        np.array([length for _, length in spans])[:, None],
    )
    is_real = steps < lengths
    return np.where(is_real, starts + steps, starts), is_real


def _repeat(tensor: Tensor, groups: int) -> Tensor:
    return tensor if groups == 1 else tensor.repeat_interleave(groups, dim=1)
