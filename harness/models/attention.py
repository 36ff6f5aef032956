"""Attention over a tree of tokens: what a model's own attention layers are routed to while the fast path runs.

A pack of units (see ``trie``) is one row of tokens to every other layer of the model. Here each token is given what
it may see: the trunk above its unit, the stem of its unit, and its own ancestors among the branches. Parts of the
softmax are computed apart and joined by their log-sum-exp, so no position is padded anywhere but here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.models.trie import Ints, Pack, Trie

Tensor = torch.Tensor
NAME = "harness_tree"
# Arguments that say how to run, not what to compute; any other that is set is something this file does not know.
HARMLESS = frozenset({
    "dropout", "output_attentions", "output_hidden_states", "output_router_logits", "use_cache", "position_ids",
    "cache_position", "position_embeddings", "return_dict", "is_causal", "num_items_in_batch", "layer_idx",
})  # fmt: skip
# Elements of a score matrix that are held at once where no fused kernel tells the log-sum-exp.
MAX_SCORES = 1 << 27


class Refused(Exception):
    """The model does something the fast path does not know; the message says what."""


class Routed(Protocol):
    """What stands in for the attention of every layer."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """Return (T, heads, width) from (heads, T, width), (key-value heads, T, width) and the same for values."""
        ...


@dataclass(frozen=True)
class How:
    """What an attention layer asks for.

    ``window`` counts the keys a token sees, itself included (None: all). ``sinks`` (heads,) are scores that take their
    part of every softmax and give no value.
    """

    scale: float
    softcap: float | None = None
    window: int | None = None
    sinks: Tensor | None = None


@dataclass
class Trunk:
    """The keys and values of a chain of tokens from the start of the text, one pair per layer: (heads, P, width)."""

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """How many tokens it is long."""
        return int(self.layers[0][0].shape[1])


_routed: list[Routed] = []
_calls: list[int] = [0]


@contextmanager
def route(model: PreTrainedModel, attention: Routed) -> Iterator[None]:
    """Route every attention layer of ``model`` that can be routed to ``attention``."""
    configs = {
        id(module.config): module.config
        for module in model.modules()
        if hasattr(getattr(module, "config", None), "_attn_implementation")
    }
    before = [(config, config._attn_implementation) for config in configs.values()]
    _routed.append(attention)
    _calls[0] = 0
    try:
        for config, _ in before:
            config._attn_implementation = NAME
        yield
    finally:
        _routed.pop()
        for config, name in before:
            config._attn_implementation = name


def calls() -> int:
    """Return how many layers have been routed since ``route`` was entered, or since ``restart``."""
    return _calls[0]


def restart() -> None:
    """Begin to count layers from 0: a new forward pass."""
    _calls[0] = 0


def _tree_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Stand in for an attention function of transformers: (1, heads, T, width) to (1, T, heads, width)."""
    if not _routed:
        raise RuntimeError("tree attention is called outside a forward pass that routes to it")
    scale, softcap = kwargs.pop("scaling", None), kwargs.pop("softcap", None)
    window, sinks = kwargs.pop("sliding_window", None), kwargs.pop("s_aux", None)
    if attention_mask is not None:
        raise Refused("its layers have attention masks of their own")
    if kwargs.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise Refused("its attention is not causal")
    unknown = sorted(name for name, given in kwargs.items() if given is not None and name not in HARMLESS)
    if unknown:
        raise Refused(f"its attention takes {', '.join(unknown)}")
    _calls[0] += 1
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast, rotated ones come in float32
    how = How(query.shape[-1] ** -0.5 if scale is None else float(scale), softcap, window, sinks)
    return _routed[-1].attend(query[0], key[0], value[0], how).unsqueeze(0), None


def _register() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, _tree_attention)


_register()


class TreeAttention:
    """Attention for one pack.

    Args:
        trunks: the keys of trunks by number; those that the pack's units become are added.
        keep: keep the keys and values of all tokens, in ``kept``, one (heads, T, width) pair per layer.
    """

    def __init__(
        self, pack: Pack, trie: Trie, trunks: dict[int, Trunk], device: torch.device, *, keep: bool = False
    ) -> None:
        self.trunks, self.keep = trunks, keep
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.windows: set[int] = set()  # that layers asked for
        self.device = device
        positions = pack.positions
        self.length = len(positions)
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
        layer = _calls[0] - 1
        out = query.new_empty((length, heads, value.shape[-1]))
        needs_sum = bool(self.trunk_rows) or how.sinks is not None
        total = torch.empty((heads, length), dtype=_wide(query), device=query.device) if needs_sum else None
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
        if self.keep:
            self.kept.append((key, value))
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
    padding. ``allowed`` (B, Q, K) says who sees whom; None stands for causal, with queries the same as keys.
    """

    queries: Tensor
    keys: Tensor
    is_real: Tensor | None
    allowed: Tensor | None
    biases: dict[Any, Tensor] = field(default_factory=dict)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, how: How, depth: Tensor, out: Tensor, total: Tensor | None
    ) -> None:
        """Write the attention of the piece's queries to ``out`` (T, heads, width) and ``total`` (heads, T)."""
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
            bias = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -torch.inf)
            self.biases[name] = bias.repeat(1, groups, 1).unsqueeze(1)
        return self.biases[name]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    how: How,
    *,
    bias: Tensor | None = None,
    is_causal: bool = False,
    needs_sum: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Return softmax attention (B, heads, Q, width) and the log-sum-exp of its scores (B, heads, Q), or None.

    Args:
        bias: added to the scores, minus infinity for what is not seen.
        is_causal: a query sees the keys up to its own number.
        needs_sum: without it a faster kernel may be used where the device has one.
    """
    is_fused = how.softcap is None and query.shape[-1] == value.shape[-1] and how.window is None
    if is_fused and query.device.type == "cpu":
        result, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, is_causal, attn_mask=bias, scale=how.scale
        )
        return result, sums
    if is_fused and not needs_sum:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, is_causal=is_causal, scale=how.scale
        ), None
    if is_causal:
        ones = torch.ones((query.shape[-2], key.shape[-2]), dtype=torch.bool, device=query.device)
        bias = torch.zeros(ones.shape, dtype=query.dtype, device=query.device).masked_fill_(~ones.tril(), -torch.inf)
    step = max(1, MAX_SCORES // max(1, query.shape[0] * query.shape[1] * key.shape[-2]))
    parts = [
        _attend_plainly(
            query[:, :, i : i + step], key, value, how, None if bias is None else bias[..., i : i + step, :]
        )
        for i in range(0, query.shape[-2], step)
    ]
    return torch.cat([part for part, _ in parts], 2), torch.cat([sums for _, sums in parts], 2)


def _attend_plainly(query: Tensor, key: Tensor, value: Tensor, how: How, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    scores = torch.matmul(query, key.transpose(-1, -2)) * how.scale
    if how.softcap is not None:
        scores = torch.tanh(scores / how.softcap) * how.softcap
    scores = scores.to(_wide(scores)) if bias is None else scores.to(_wide(scores)) + bias
    sums = torch.logsumexp(scores, -1)
    # A row that sees nothing here (all its keys are outside the window) has weight 0 when parts are joined.
    weights = torch.softmax(scores, -1).nan_to_num_(0.0) if bias is not None else torch.softmax(scores, -1)
    return torch.matmul(weights.to(value.dtype), value), sums


def see_trunk(query: Tensor, keys: Tensor, values: Tensor, how: How, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return what queries see of a trunk: (N, heads, width), and the log-sum-exp of the scores (heads, N).

    Args:
        query: (heads, N, width).
        keys: (key-value heads, P, width), as ``values``; from the start of the text on.
        places: (N,) where the queries stand in the text.
    """
    heads, count, width = query.shape
    groups = heads // keys.shape[0]
    bias = None
    if how.window is not None:
        is_far = places[:, None] - torch.arange(keys.shape[1], device=places.device)[None] >= how.window
        bias = torch.zeros(is_far.shape, dtype=query.dtype, device=places.device).masked_fill_(is_far, -torch.inf)
        bias = bias.repeat(groups, 1)[None, None]
    folded = query.reshape(1, keys.shape[0], groups * count, width)
    result, sums = attend(folded, keys[None], values[None], how, bias=bias)
    assert sums is not None
    return result.reshape(heads, count, -1).transpose(0, 1), sums.reshape(heads, count)


def join(out: Tensor, total: Tensor, result: Tensor, sums: Tensor) -> None:
    """Join two parts of a softmax in place: ``out`` (N, heads, width) and ``total``, its log-sum-exp (heads, N)."""
    weight = torch.sigmoid(sums - total).transpose(0, 1).unsqueeze(-1).to(out.dtype)
    out.lerp_(result, weight)
    total.copy_(torch.logaddexp(total, sums))


def sink(out: Tensor, total: Tensor | None, how: How) -> None:
    """Give the sinks their part of the softmax, in place."""
    if how.sinks is not None:
        assert total is not None
        out.mul_(torch.sigmoid(total - how.sinks.to(total.dtype)[:, None]).transpose(0, 1).unsqueeze(-1).to(out.dtype))


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
    for bucket in _buckets([(start, unit.stem) for unit, start, _ in spans]):
        rows, is_real = _padded(bucket)
        index = torch.as_tensor(rows, device=device)
        real = None if is_real.all() else torch.as_tensor(is_real.reshape(-1), device=device)
        pieces.append(_Piece(index, index, real, None))
    return pieces


def _branch_pieces(
    spans: Sequence[tuple[Any, int, int]], positions: Ints, end: Ints, device: torch.device
) -> list[_Piece]:
    pieces = []
    branched = [(start, len(unit)) for unit, start, _ in spans if len(unit) > unit.stem]
    stems = {start: unit.stem for unit, start, _ in spans}
    for bucket in _buckets(branched):
        keys, is_key = _padded(bucket)
        queries, is_query = _padded([(start + stems[start], length - stems[start]) for start, length in bucket])
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


def _buckets(spans: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Group (first row, length) spans of similar length: the shortest at least 0.8 of the longest, or 8 less."""
    buckets: list[list[tuple[int, int]]] = []
    for span in sorted(spans, key=lambda span: -span[1]):
        if buckets and (span[1] >= 0.8 * buckets[-1][0][1] or span[1] >= buckets[-1][0][1] - 8):
            buckets[-1].append(span)
        else:
            buckets.append([span])
    return buckets


def _padded(spans: Sequence[tuple[int, int]]) -> tuple[Ints, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return row numbers (B, longest), the first row standing for padding, and which are real."""
    longest = max(length for _, length in spans)
    steps = np.arange(longest)[None]
    starts, lengths = (
        np.array([start for start, _ in spans])[:, None],
        np.array([length for _, length in spans])[:, None],
    )
    is_real = steps < lengths
    return np.where(is_real, starts + steps, starts), is_real


def pick_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return (B, heads, L, width) of (heads, T, width)."""
    picked = tensor.index_select(1, rows.reshape(-1))
    return picked.view(tensor.shape[0], *rows.shape, tensor.shape[-1]).transpose(0, 1)


def _repeat(tensor: Tensor, groups: int) -> Tensor:
    return tensor if groups == 1 else tensor.repeat_interleave(groups, dim=1)


def _wide(tensor: Tensor) -> torch.dtype:
    """Return the type in which sums of exponentials are kept."""
    return torch.promote_types(tensor.dtype, torch.float32)
