"""Cross-entropy and log-probabilities of labels without the logits of a whole batch: the output head in chunks of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch.autograd.function import once_differentiable

from harness.methods.label_states import LabelStates, chunks, label_states

if TYPE_CHECKING:
    from harness.methods.micro_batches import Batch
    from harness.models.head import Head

Tensor = torch.Tensor


def next_token_loss(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy over the labels, in nats; its log-sum-exp is in float32, or float64 if the model is.

    The output head sees only positions that have a label, some at a time, and nothing of the size of the vocabulary is kept for
    the backward pass. Models whose head cannot be used apart run it on all positions.
    """
    states = label_states(model, batch)
    return _losses(states).sum() / len(states.targets)


def label_loglikelihoods(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Return the log-probability of each label in nats, (B, T), 0 where none is due; gradients go through it.

    Memory and speed are those of ``next_token_loss``: the head sees positions with a label alone, and what rows begin alike
    with, such as the prompt of two responses one below the other, goes through the model once.

    Args:
        model: in training or evaluation mode, an adapter on or off.
        batch: whose ``labels[:, 0]`` are never due.
    """
    states = label_states(model, batch)
    found = -_losses(states)
    rows, before = states.places.to(found.device).unbind(1)
    return found.new_zeros(batch.labels.shape).index_put((rows, before + 1), found)


def _losses(states: LabelStates) -> Tensor:
    """Return -log p(target) (N,), in nats."""
    if states.head is None:
        return torch.nn.functional.cross_entropy(states.logits(slice(None)), states.targets, reduction="none")
    return label_losses(states.head, states.hidden, states.targets)


def label_losses(head: Head, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return -log p(target) of each row (N,), in nats.

    A head that takes no gradients makes the logits once: the gradient of the hidden states is found in the forward pass.
    Any other makes them again in the backward pass.

    Args:
        hidden: (N, width) before the head.
        targets: (N,) ids.
    """
    if not _is_trained(head, hidden):
        return cast("Tensor", _FrozenHead.apply(hidden, targets, head))
    from torch.utils.checkpoint import checkpoint

    parts = [
        checkpoint(_cross_entropy, head, hidden[rows], targets[rows], use_reentrant=False)
        for rows in chunks(head, len(hidden))
    ]
    return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=head.wide)


def _is_trained(head: Head, hidden: Tensor) -> bool:
    """Return whether gradients go to more than the hidden states: to the head, or to what a hook on it adds."""
    if any(parameter.requires_grad for parameter in head.module.parameters()):
        return True
    return torch.is_grad_enabled() and not head.is_linear and bool(head.module(hidden[:1].detach()).requires_grad)


class _FrozenHead(torch.autograd.Function):
    """The losses under a head without gradients of its own: how each moves with its hidden state is found at once."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
        losses = torch.empty(len(hidden), dtype=head.wide, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for rows in chunks(head, len(hidden)):
            find = _with_gradient if _is_plain(head, hidden) else _with_autograd
            losses[rows], found = find(head, hidden[rows], targets[rows], gradient is not None)
            if gradient is not None and found is not None:
                gradient[rows] = found
        ctx.gradient = gradient
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, None, None]:
        of_losses = upstream[0][:, None]
        return None if ctx.gradient is None else ctx.gradient * of_losses.to(ctx.gradient.dtype), None, None


def _is_plain(head: Head, hidden: Tensor) -> bool:
    return head.is_linear and head.finish is None and head.module.weight.dtype == hidden.dtype


def _with_gradient(head: Head, hidden: Tensor, targets: Tensor, is_wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Return the losses and, where they are wanted, their gradients: softmax less one at the target, times the head's weights."""
    weight = head.module.weight
    logits = torch.nn.functional.linear(hidden, weight, head.module.bias).to(head.wide)
    most = logits.amax(-1, keepdim=True)
    logits.sub_(most)
    target = logits.gather(-1, targets[:, None])
    total = logits.exp_().sum(-1, keepdim=True)
    loss = (total.log() - target)[:, 0]
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
        (found,) = torch.autograd.grad(loss.sum(), inner)
    return loss.detach(), found


def _cross_entropy(head: Head, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = head.module(hidden)
    if head.finish is not None:
        logits = head.finish(logits)
    return torch.nn.functional.cross_entropy(logits.to(head.wide), targets, reduction="none")
