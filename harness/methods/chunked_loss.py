"""Cross-entropy of the labels without the logits of a whole batch: the output head in chunks of rows that have a label."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.autograd.function import once_differentiable

from harness.methods.chance import Chance
from harness.methods.micro_batches import IGNORED, Batch
from harness.methods.packing import check_packable, row_lengths, run_packed
from harness.models.head import DEVICE_BLOCK, Head, difference, reading
from harness.models.refused import Refused
from harness.models.tree.fitness import LOW_PRECISION_TOLERANCE, TOLERANCE, parts_of
from harness.models.tree.memory import is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tensor = torch.Tensor
# Rows whose logits are made at once on a CPU: enough to multiply with the head's weights at full speed.
CPU_ROWS = 256
PROBE_TOKENS = 32


@dataclass
class _Known:
    """What was found out about a model: its head, None where that is used the plain way, and whether rows may be packed."""

    parts: object
    head: Head | None
    packs: bool | None = None


_KNOWN: weakref.WeakKeyDictionary[torch.nn.Module, _Known] = weakref.WeakKeyDictionary()


def next_token_loss(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy over the labels, in nats; its log-sum-exp is in float32, or float64 if the model is.

    The output head sees only positions that have a label, some at a time, and nothing of the size of the vocabulary is kept for
    the backward pass. Models whose head cannot be used apart run it on all positions.
    """
    known = _known(model, batch)
    if known.head is None:
        return _plainly(model, batch)
    labels = batch.labels[:, 1:]
    places = (labels != IGNORED).nonzero()
    lengths = row_lengths(batch)
    if lengths is not None and _packs(model, known, batch):
        hidden, _ = _read(model, known.head, lambda: run_packed(model, batch, lengths, _device(model)))
        starts = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths)
    else:
        hidden, _ = _read(model, known.head, lambda: _call(model, batch))
        starts = torch.arange(len(labels)) * hidden.shape[1]
    rows = (starts.to(places.device)[places[:, 0]] + places[:, 1]).to(hidden.device)
    targets = labels[places[:, 0], places[:, 1]].to(hidden.device)
    return summed_loss(known.head, hidden.flatten(0, 1).index_select(0, rows), targets) / len(targets)


def summed_loss(head: Head, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of -log p(target), in nats.

    A head that takes no gradients makes the logits once: the gradient of the hidden states is found in the forward pass.
    Any other makes them again in the backward pass.

    Args:
        hidden: (N, width) before the head.
        targets: (N,) ids.
    """
    if not _is_trained(head, hidden):
        return cast("Tensor", _FrozenHead.apply(hidden, targets, head))
    from torch.utils.checkpoint import checkpoint

    total = torch.zeros((), dtype=head.wide, device=hidden.device)
    for rows in _chunks(head, len(hidden)):
        total = total + checkpoint(_cross_entropy, head, hidden[rows], targets[rows], use_reentrant=False)
    return total


def _is_trained(head: Head, hidden: Tensor) -> bool:
    """Return whether gradients go to more than the hidden states: to the head, or to what a hook on it adds."""
    if any(parameter.requires_grad for parameter in head.module.parameters()):
        return True
    return torch.is_grad_enabled() and not head.is_linear and bool(head.module(hidden[:1].detach()).requires_grad)


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
    @once_differentiable
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


def _read(
    model: torch.nn.Module, head: Head, call: Callable[[], Any], *, pass_on: int | None = 0
) -> tuple[Tensor, Tensor]:
    """Return what the head reads (B, T, width), and the logits of the ``pass_on`` first places of each row (None: of all)."""
    read: list[Tensor] = []

    def take(hidden: Tensor) -> Tensor:
        read.append(hidden)
        return hidden[:, :pass_on]

    with reading(head.module, take):
        logits = call().logits
    if len(read) != 1:
        raise Refused(f"its output head is called {len(read)} times")
    return read[0], logits


def _call(model: torch.nn.Module, batch: Batch) -> Any:
    device = _device(model)
    # Keys and values are never looked at again.
    options = {"use_cache": False} if hasattr(getattr(model, "config", None), "use_cache") else {}
    return model(input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device), **options)


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def _known(model: torch.nn.Module, batch: Batch) -> _Known:
    """Return what is known of the model as it is now; its head is tried out once."""
    parts = (getattr(model, "dtype", None), parts_of(model))
    known = _KNOWN.get(model)
    if known is None or known.parts != parts:
        known = _Known(parts, _tried(model, batch))
        _KNOWN[model] = known
    return known


def _packs(model: Any, known: _Known, batch: Batch) -> bool:
    """Return whether rows may stand side by side; tried out once, on the first rows of different lengths."""
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        return False  # layers that run again in the backward pass would do so outside
    if known.packs is None:
        chance = Chance(_device(model))
        try:
            known.packs = _packs_rows(model, cast("Head", known.head), batch)
        except Exception as error:  # whatever an architecture does not accept
            if is_out_of_memory(error):
                raise
            known.packs = False
        finally:
            chance.restore()
    return known.packs


@torch.no_grad()
def _packs_rows(model: Any, head: Head, batch: Batch) -> bool:
    """Return whether the longest and the shortest row give the same side by side as alone, up to rounding."""
    check_packable(model)
    lengths = batch.attention_mask.sum(1)
    chosen = [int(lengths.argmin()), int(lengths.argmax()), int(lengths.argmin())]
    probe = Batch(*(tensor[chosen, : 2 * PROBE_TOKENS] for tensor in batch))
    short = [
        min(int(lengths[row]), limit) for row, limit in zip(chosen, (PROBE_TOKENS, 2 * PROBE_TOKENS, 7), strict=True)
    ]
    packed, _ = _read(model, head, lambda: run_packed(model, probe, short, _device(model)))
    tolerance, start = TOLERANCE.get(model.dtype, LOW_PRECISION_TOLERANCE), 0
    for row, length in enumerate(short):
        one = Batch(*(tensor[row : row + 1, :length] for tensor in probe))
        alone, _ = _read(model, head, lambda one=one: _call(model, one))  # type: ignore[misc]
        if difference(alone[0].to(head.wide), packed[0, start : start + length].to(head.wide)) > tolerance:
            return False
        start += length
    return True


def _tried(model: Any, batch: Batch) -> Head | None:
    """Return the head if the rows it reads, and what is known of it, give the model's own logits."""
    row = int((batch.labels != IGNORED).sum(1).argmax())
    probe = Batch(*(tensor[row : row + 1, :PROBE_TOKENS] for tensor in batch))
    chance = Chance(_device(model))
    try:
        with torch.no_grad():
            head = Head(cast("PreTrainedModel", model))
            hidden, logits = _read(model, head, lambda: _call(model, probe), pass_on=None)
            tolerance = TOLERANCE.get(model.dtype, LOW_PRECISION_TOLERANCE)
            head.learn_finish(hidden[0], logits[0], tolerance)
            _read(model, head, lambda: _call(model, probe))
    except Exception as error:  # whatever an architecture does not accept
        if is_out_of_memory(error):
            raise
        return None
    finally:
        chance.restore()
    return head
