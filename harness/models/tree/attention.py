"""Route a model's attention layers to our own, and the kernels these are made of.

Every other layer of the model sees one row of tokens. Who sees whom is decided by what attention is routed to:
``tree_attention`` for packs of a tree, ``generation`` for texts under way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from harness.models.refused import Refused
from harness.models.tree.fused import fused_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel


Tensor = torch.Tensor
NAME = "harness_tree"
# Arguments that say how to run, not what to compute; any other that is set is something this file does not know.
HARMLESS = frozenset({
    "dropout", "output_attentions", "output_hidden_states", "output_router_logits", "use_cache", "position_ids",
    "cache_position", "position_embeddings", "return_dict", "is_causal", "num_items_in_batch", "layer_idx",
})  # fmt: skip
# Elements of a score matrix that are held at once where no fused kernel tells the log-sum-exp.
MAX_SCORES = 1 << 27


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
    _routed.append(attention)
    _calls[0] = 0
    try:
        with attention_of(model, NAME):
            yield
    finally:
        _routed.pop()


@contextmanager
def attention_of(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Have all layers of ``model`` use the attention function that transformers knows by ``name``."""
    configs = {
        id(module.config): module.config
        for module in model.modules()
        if hasattr(getattr(module, "config", None), "_attn_implementation")
    }
    before = [(config, config._attn_implementation) for config in configs.values()]
    try:
        for config, _ in before:
            config._attn_implementation = name
        yield
    finally:
        for config, own in before:
            config._attn_implementation = own


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
    if on_cpu_kernel(query, value, how):
        # The kernel takes the last dimension to be dense, and reads other numbers where it is not.
        query, key, value = (of if of.stride(-1) == 1 else of.contiguous() for of in (query, key, value))
        result, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, is_causal, attn_mask=bias, scale=how.scale
        )
        return result, sums
    if _is_usual(query, value, how) and not needs_sum:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, is_causal=is_causal, scale=how.scale
        ), None
    if how.softcap is None and how.window is None:
        found = fused_attention(query, key, value, scale=how.scale, bias=bias, is_causal=is_causal)
        if found is not None:
            return found
    if is_causal:
        ones = torch.ones((query.shape[-2], key.shape[-2]), dtype=torch.bool, device=query.device)
        bias = hide(~ones.tril(), query.dtype)
    step = max(1, MAX_SCORES // max(1, query.shape[0] * query.shape[1] * key.shape[-2]))
    parts = [
        _attend_plainly(
            query[:, :, i : i + step], key, value, how, None if bias is None else bias[..., i : i + step, :]
        )
        for i in range(0, query.shape[-2], step)
    ]
    return torch.cat([part for part, _ in parts], 2), torch.cat([sums for _, sums in parts], 2)


def on_cpu_kernel(query: Tensor, value: Tensor, how: How) -> bool:
    """Return whether ``attend`` uses torch's fused kernel for CPUs, which tells the log-sum-exp and reads any strides."""
    return query.device.type == "cpu" and _is_usual(query, value, how)


def _is_usual(query: Tensor, value: Tensor, how: How) -> bool:
    return how.softcap is None and query.shape[-1] == value.shape[-1] and how.window is None


def _attend_plainly(query: Tensor, key: Tensor, value: Tensor, how: How, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    if query.dtype == torch.float16:  # which ends at 65,504
        query, key = query.float(), key.float()
    scores = torch.matmul(query * how.scale, key.transpose(-1, -2))
    if how.softcap is not None:
        scores = torch.tanh(scores / how.softcap) * how.softcap
    scores = scores.to(wide(scores)) if bias is None else scores.to(wide(scores)) + bias
    sums = torch.logsumexp(scores, -1)
    weights = torch.softmax(scores, -1)
    if bias is not None:
        # A row that sees nothing here (all its keys are outside the window) has weight 0 when parts are joined.
        weights = weights.masked_fill((sums == -torch.inf)[..., None], 0.0)
    return torch.matmul(weights.to(value.dtype), value), sums


def see_trunk(
    query: Tensor, keys: Tensor, values: Tensor, how: How, places: Tensor, seen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what queries see of a trunk: (N, heads, width), and the log-sum-exp of the scores (heads, N).

    Args:
        query: (heads, N, width).
        keys: (key-value heads, P, width), as ``values``; from the start of the text on.
        places: (N,) where the queries stand in the text.
        seen: (N,) how many of the keys, one or more, each query's text begins with; None: all.
    """
    heads, count, width = query.shape
    groups = heads // keys.shape[0]
    bias = None
    if how.window is not None or seen is not None:
        steps = torch.arange(keys.shape[1], device=places.device)[None]
        is_hidden = torch.zeros((count, keys.shape[1]), dtype=torch.bool, device=places.device)
        if seen is not None:
            is_hidden |= steps >= seen[:, None]
        if how.window is not None:
            is_hidden |= places[:, None] - steps >= how.window
        bias = hide(is_hidden, query.dtype).repeat(groups, 1)[None, None]
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


def pick_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return (B, heads, L, width) of (heads, T, width)."""
    picked = tensor.index_select(1, rows.reshape(-1))
    return picked.view(tensor.shape[0], *rows.shape, tensor.shape[-1]).transpose(0, 1)


def hide(is_hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to scores: minus infinity where a key is hidden, 0 elsewhere."""
    return torch.zeros(is_hidden.shape, dtype=dtype, device=is_hidden.device).masked_fill_(is_hidden, -torch.inf)


def wide(tensor: Tensor) -> torch.dtype:
    """Return the type in which sums of exponentials are kept."""
    return torch.promote_types(tensor.dtype, torch.float32)
