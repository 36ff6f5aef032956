"""The training loop that methods share: batches and a loss in, AdamW with warm-up and cosine, the losses out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from harness.errors import HarnessError
from harness.progress import bar

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
FLOOR = 0.1  # the cosine ends at this share of the peak learning rate


class Batch(NamedTuple):
    """One optimiser step's rows: (B, T) ids, labels (-100 where no loss is due) and attention mask.

    ``labels[:, t]`` is due at position ``t - 1``, as in transformers. A loss over pairs puts their rows one below the other.
    """

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor


Loss = Callable[[torch.nn.Module, Batch], "Tensor"]


@dataclass
class TrainingLog:
    """What a training stage did: the loss of every step (nats per label), labels and tokens seen, seconds."""

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    labels: int = 0
    seconds: float = 0.0

    def add(self, loss: float, batch: Batch) -> None:
        """Count one step."""
        self.losses.append(loss)
        self.tokens += int(batch.attention_mask.sum())
        self.labels += int((batch.labels[:, 1:] != IGNORED).sum())

    def report(self) -> dict[str, Any]:
        """Return the figures a record keeps: first and last losses as means over a tenth of the steps."""
        tail = max(1, len(self.losses) // 10)
        return {
            "steps": len(self.losses),
            "loss_first": _mean(self.losses[:tail]),
            "loss_last": _mean(self.losses[-tail:]),
            "losses": [round(loss, 4) for loss in self.losses],
            "tokens_trained": self.tokens,
            "labels_trained": self.labels,
            "seconds": round(self.seconds, 1),
        }


def next_token_loss(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy over the labels, in nats; the softmax sees only positions that have one."""
    labels = batch.labels[:, 1:]
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    is_scored = labels != IGNORED
    return torch.nn.functional.cross_entropy(output.logits[:, :-1][is_scored].float(), labels[is_scored])


def train(
    model: torch.nn.Module,
    batches: Iterable[Batch],
    *,
    steps: int,
    learning_rate: float,
    warmup_steps: int,
    label: str,
    loss: Loss = next_token_loss,
) -> TrainingLog:
    """Take ``steps`` AdamW steps on what takes gradients, one per batch, with linear warm-up and cosine decay.

    Gradients are clipped at norm 1. The model is in training mode meanwhile, and in evaluation mode afterwards; a method
    with several stages calls this once for each.

    Args:
        model: as ``add_adapter`` returned it, or any whose ``requires_grad`` says what is trained.
        batches: at least ``steps`` of them, on the CPU; fewer end the training early.
        steps: optimiser steps.
        learning_rate: peak rate.
        warmup_steps: steps until the peak is reached.
        label: what the progress bar says.
        loss: given the model and a batch on the model's device, returns the scalar to minimise. It may run the model as
            often as it likes, without adapters too (``adapters.using(model, None)``).

    Raises:
        HarnessError: the loss is no longer finite.
        ValueError: nothing takes gradients, such as after an adapter was loaded or switched to.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not weights:
        raise ValueError(
            "nothing of the model takes gradients; adapters.switch_to(..., is_trained=True) thaws an adapter"
        )
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, warmup_steps))
    log, started, device = TrainingLog(), time.monotonic(), next(iter(weights)).device
    model.train()
    with bar(steps, label, unit="step") as progress:
        for step, batch in zip(range(steps), batches, strict=False):
            found = loss(model, Batch(*(tensor.to(device) for tensor in batch)))
            value = float(found.detach())
            if not math.isfinite(value):
                raise HarnessError(f"training broke down at step {step + 1}: the loss is {value}; lower learning_rate")
            found.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            log.add(value, batch)
            progress.set_postfix_str(f"loss {value:.3f}", refresh=False)
            progress.update()
    model.eval()
    log.seconds = time.monotonic() - started
    return log


def pad(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Batch:
    """Return (ids, labels) rows as one batch, padded on the right with id 0, label -100 and mask 0."""
    longest = max(len(ids) for ids, _ in rows)
    input_ids = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, (ids, targets) in enumerate(rows):
        input_ids[number, : len(ids)] = torch.tensor(ids)
        labels[number, : len(ids)] = torch.tensor(targets)
        mask[number, : len(ids)] = 1
    return Batch(input_ids, labels, mask)


def _rate(step: int, steps: int, warmup_steps: int) -> float:
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
