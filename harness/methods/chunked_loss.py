"""Cross-entropy of the labels without the logits of a whole batch: the output head in chunks of rows that have a label."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, cast

import torch

from harness.methods.chance import Chance
from harness.methods.micro_batches import IGNORED, Batch
from harness.models.head import DEVICE_BLOCK, Head, reading
from harness.models.refused import Refused
from harness.models.tree.fitness import LOW_PRECISION_TOLERANCE, TOLERANCE, parts_of
from harness.models.tree.memory import is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tensor = torch.Tensor
# Rows whose logits are made at once on a CPU: enough to multiply with the head's weights at full speed.
CPU_ROWS = 256
PROBE_TOKENS = 32
# What is known of the heads of models that are still there: how to use one, or None where it is used the plain way.
_KNOWN: weakref.WeakKeyDictionary[torch.nn.Module, tuple[object, Head | None]] = weakref.WeakKeyDictionary()


def next_token_loss(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy over the labels, in nats; its log-sum-exp is in float32, or float64 if the model is.

    The output head sees only positions that have a label, some at a time, and nothing of the size of the vocabulary is kept for
    the backward pass. Models whose head cannot be used apart run it on all positions.
    """
    head = _head_of(model, batch)
    if head is None:
        return _plainly(model, batch)
    hidden, _ = _read(model, head, batch)
    labels = batch.labels[:, 1:]
    places = (labels != IGNORED).nonzero()
    rows = (places[:, 0] * hidden.shape[1] + places[:, 1]).to(hidden.device)
    targets = labels[places[:, 0], places[:, 1]].to(hidden.device)
    return summed_loss(head, hidden.flatten(0, 1).index_select(0, rows), targets) / len(targets)


def summed_loss(head: Head, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of -log p(target), in nats.

    A head that takes no gradients makes the logits once: the gradient of the hidden states is found in the forward pass.
    Any other makes them again in the backward pass.

    Args:
        hidden: (N, width) before the head.
        targets: (N,) ids.
    """
    if not any(parameter.requires_grad for parameter in head.module.parameters()):
        return cast("Tensor", _FrozenHead.apply(hidden, targets, head))
    from torch.utils.checkpoint import checkpoint

    total = torch.zeros((), dtype=head.wide, device=hidden.device)
    for rows in _chunks(head, len(hidden)):
        total = total + checkpoint(_cross_entropy, head, hidden[rows], targets[rows], use_reentrant=False)
    return total


class _FrozenHead(torch.autograd.Function):
    """The summed loss under a head without gradients of its own."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
        total = torch.zeros((), dtype=head.wide, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for rows in _chunks(head, len(hidden)):
            find = _with_gradient if _is_plain(head, hidden) else _with_autograd
            loss, found = find(head, hidden[rows], targets[rows], gradient is not None)
            total += loss
            if gradient is not None and found is not None:
                gradient[rows] = found
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, None, None]:
        return None if ctx.gradient is None else ctx.gradient * upstream[0].to(ctx.gradient.dtype), None, None


def _is_plain(head: Head, hidden: Tensor) -> bool:
    return head.is_linear and head.finish is None and head.module.weight.dtype == hidden.dtype


def _with_gradient(head: Head, hidden: Tensor, targets: Tensor, is_wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Return the loss and, where it is wanted, its gradient: softmax less one at the target, times the head's weights."""
    weight = head.module.weight
    logits = torch.nn.functional.linear(hidden, weight, head.module.bias).to(head.wide)
    most = logits.amax(-1, keepdim=True)
    logits.sub_(most)
    target = logits.gather(-1, targets[:, None])
    total = logits.exp_().sum(-1, keepdim=True)
    loss = (total.log() - target).sum()
    if not is_wanted:
        return loss, None
    logits.div_(total).scatter_add_(-1, targets[:, None], torch.full_like(target, -1.0))
    return loss, logits.to(weight.dtype) @ weight


def _with_autograd(head: Head, hidden: Tensor, targets: Tensor, is_wanted: bool) -> tuple[Tensor, Tensor | None]:
    if not is_wanted:
        return _cross_entropy(head, hidden, targets), None
    with torch.enable_grad():
        inner = hidden.detach().requires_grad_(True)
        loss = _cross_entropy(head, inner, targets)
        (found,) = torch.autograd.grad(loss, inner)
    return loss.detach(), found


def _cross_entropy(head: Head, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = head.module(hidden)
    if head.finish is not None:
        logits = head.finish(logits)
    return torch.nn.functional.cross_entropy(logits.to(head.wide), targets, reduction="sum")


def _chunks(head: Head, rows: int) -> list[slice]:
    weight = getattr(head.module, "weight", None)
    is_device = weight is not None and weight.device.type != "cpu"
    size = max(CPU_ROWS, DEVICE_BLOCK // max(1, len(weight))) if weight is not None and is_device else CPU_ROWS
    return [slice(start, start + size) for start in range(0, rows, size)]


def _plainly(model: torch.nn.Module, batch: Batch) -> Tensor:
    logits = _call(model, batch).logits
    labels = batch.labels[:, 1:].to(logits.device)
    is_scored = labels != IGNORED
    scored = logits[:, :-1][is_scored]
    return torch.nn.functional.cross_entropy(
        scored.to(torch.promote_types(scored.dtype, torch.float32)), labels[is_scored]
    )


def _read(model: torch.nn.Module, head: Head, batch: Batch, *, pass_on: int | None = 0) -> tuple[Tensor, Tensor]:
    """Return what the head reads (B, T, width), and the logits of the ``pass_on`` first places of each row (None: of all)."""
    read: list[Tensor] = []

    def take(hidden: Tensor) -> Tensor:
        read.append(hidden)
        return hidden[:, :pass_on]

    with reading(head.module, take):
        logits = _call(model, batch).logits
    if len(read) != 1:
        raise Refused(f"its output head is called {len(read)} times")
    return read[0], logits


def _call(model: torch.nn.Module, batch: Batch) -> Any:
    device = next(model.parameters()).device
    # Keys and values are never looked at again.
    options = {"use_cache": False} if hasattr(getattr(model, "config", None), "use_cache") else {}
    return model(input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device), **options)


def _head_of(model: torch.nn.Module, batch: Batch) -> Head | None:
    """Return the model's head, tried out once, or None where it has to be used the plain way."""
    parts = parts_of(model)
    known = _KNOWN.get(model)
    if known is None or known[0] != parts:
        known = (parts, _tried(model, batch))
        _KNOWN[model] = known
    return known[1]


def _tried(model: Any, batch: Batch) -> Head | None:
    """Return the head if the rows it reads, and what is known of it, give the model's own logits."""
    row = int((batch.labels != IGNORED).sum(1).argmax())
    probe = Batch(*(tensor[row : row + 1, :PROBE_TOKENS] for tensor in batch))
    chance = Chance(next(model.parameters()).device)
    try:
        with torch.no_grad():
            head = Head(cast("PreTrainedModel", model))
            hidden, logits = _read(model, head, probe, pass_on=None)
            tolerance = TOLERANCE.get(model.dtype, LOW_PRECISION_TOLERANCE)
            head.learn_finish(hidden[0], logits[0], tolerance)
            _read(model, head, probe)
    except Exception as error:  # whatever an architecture does not accept
        if is_out_of_memory(error):
            raise
        return None
    finally:
        chance.restore()
    return head
