"""Rows of the input embeddings and of the output head: read, packed ones too, and written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import HarnessError
from harness.methods.hidden_states import Frozen
from harness.names import printable

if TYPE_CHECKING:
    from harness.models.causal import CausalLM
Tensor = torch.Tensor
# Rows of the unit matrix that a head without readable weights is given at once.
PROBES = 64


def input_rows(lm: CausalLM, token_ids: Sequence[int]) -> Tensor:
    """Return the input embeddings' rows (n, D) of n tokens, float32 on the CPU, as the model looks them up.

    Raises:
        HarnessError: an id has no row.
    """
    embed = lm.model.get_input_embeddings()
    _check_ids(token_ids, len(embed.weight))
    with torch.no_grad():
        rows: Tensor = embed(torch.tensor(list(token_ids), dtype=torch.long, device=lm.device))
    return rows.float().cpu()


def head_rows(lm: CausalLM, token_ids: Sequence[int]) -> Tensor:
    """Return the output head's rows (n, D) of n tokens, float32 on the CPU, whatever the head is stored as.

    Raises:
        HarnessError: an id has no row, or the head cannot be found.
    """
    weight = head_weight(lm)
    _check_ids(token_ids, len(weight))
    return weight[torch.tensor(list(token_ids), dtype=torch.long, device=weight.device)].float().cpu()


def head_weight(lm: CausalLM) -> Tensor:
    """Return the output head's weights (V, D), in whatever dtype they are; packed ones unpacked.

    Plain ones are the model's own, not a copy.

    Raises:
        HarnessError: the head cannot be found.
    """
    frozen = Frozen(lm)
    if _is_plain(frozen.head.module, frozen.width):
        weight: Tensor = frozen.head.module.weight.detach()
        return weight
    return _answers_to_units(lm, frozen)


def is_tied(lm: CausalLM) -> bool:
    """Return whether the output head has the input embeddings' weights: a row written in one is then written in both."""
    head = getattr(lm.model.get_output_embeddings(), "weight", None)
    return head is not None and head is lm.model.get_input_embeddings().weight


def write_input_rows(lm: CausalLM, token_ids: Sequence[int], rows: Tensor) -> None:
    """Write rows into the input embeddings, in place; into a tied output head, too (see ``is_tied``).

    Args:
        lm: the model whose embeddings are changed.
        token_ids: n different ids.
        rows: (n, D), any float dtype, rounded to the model's.

    Raises:
        HarnessError: an id has no row or stands twice, ``rows`` has another shape or numbers that are not finite, or the
            embeddings are packed.
    """
    module = lm.model.get_input_embeddings()
    weight = module.weight
    if not weight.is_floating_point() or weight.dim() != 2:
        raise HarnessError(
            "the input embeddings are packed, where rows cannot be written; load the model without quantisation"
        )
    _write(weight, token_ids, rows)


def write_head_rows(lm: CausalLM, token_ids: Sequence[int], rows: Tensor, *, unpack: bool = False) -> None:
    """Write rows into the output head, in place; into tied input embeddings, too (see ``is_tied``).

    Args:
        lm: the model whose head is changed.
        token_ids: n different ids.
        rows: (n, D), any float dtype, rounded to the head's.
        unpack: put a plain linear layer in the model's dtype in the place of a packed head, with the numbers the packed
            one stands for. Scores of other tokens then change in their last digits, and the head takes more memory.

    Raises:
        HarnessError: an id has no row or stands twice, ``rows`` has another shape or numbers that are not finite, the
            head is packed and ``unpack`` is False, or an adapter is on it.
    """
    frozen = Frozen(lm)
    head = frozen.head.module
    if hasattr(head, "base_layer"):
        raise HarnessError("an adapter is on the output head, whose rows cannot be written apart; merge it first")
    if not _is_plain(head, frozen.width):
        if not unpack:
            raise HarnessError(
                f"the output head is a packed {printable(type(head).__name__)}, where rows cannot be written; load the model "
                "without quantisation, or unpack the head"
            )
        _check_ids(token_ids, len(lm.model.get_input_embeddings().weight))
        head = _unpacked(lm, frozen)
        lm.model.set_output_embeddings(head)
    _write(head.weight, token_ids, rows)


def _is_plain(head: Any, width: int) -> bool:
    """Return whether the rows of a head are the rows of its weights."""
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or hasattr(weight, "quant_state"):
        return False
    # An adapter keeps the weights it is on under the same name.
    return weight.dim() == 2 and weight.shape[1] == width and not hasattr(head, "base_layer")


@torch.no_grad()
def _answers_to_units(lm: CausalLM, frozen: Frozen) -> Tensor:
    """Return the head's rows (V, D) as what it answers to unit vectors: any head can be read this way."""
    head = frozen.head.module
    units = torch.eye(frozen.width, dtype=lm.model.dtype, device=lm.device)
    bias = head(units[:1] * 0).float()
    return torch.cat([(head(part).float() - bias).cpu() for part in units.split(PROBES)]).T.contiguous()


@torch.no_grad()
def _unpacked(lm: CausalLM, frozen: Frozen) -> torch.nn.Linear:
    """Return a plain head with the rows of a packed one, and its bias."""
    weight, dtype = _answers_to_units(lm, frozen), lm.model.dtype
    bias = getattr(frozen.head.module, "bias", None)
    head = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=lm.device, dtype=dtype)
    head.weight.copy_(weight)
    if bias is not None:
        head.bias.copy_(bias)
    return head.requires_grad_(False).eval()


@torch.no_grad()
def _write(weight: Tensor, token_ids: Sequence[int], rows: Tensor) -> None:
    _check_ids(token_ids, len(weight))
    if len(set(token_ids)) != len(token_ids):
        raise HarnessError("an id stands twice among the rows to write; give each row once")
    if rows.shape != (len(token_ids), weight.shape[1]):
        raise HarnessError(
            f"rows of shape {tuple(rows.shape)} do not fit; {len(token_ids)} tokens need {(len(token_ids), weight.shape[1])}"
        )
    if not bool(torch.isfinite(rows).all()):
        raise HarnessError("a row to write holds NaN or infinity")
    ids = torch.tensor(list(token_ids), dtype=torch.long, device=weight.device)
    weight[ids] = rows.detach().to(weight.device, weight.dtype)


def _check_ids(token_ids: Sequence[int], size: int) -> None:
    strange = next((token for token in token_ids if not 0 <= token < size), None)
    if strange is not None:
        raise HarnessError(f"token {strange} has no row; there are {size:,}, the first is 0")
