"""The training loop that methods share: batches and a loss in, AdamW with warm-up and cosine, the losses out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from harness.errors import HarnessError
from harness.methods.chunked_loss import next_token_loss
from harness.methods.gradients import Gradients, Loss
from harness.methods.lean_layers import lean
from harness.methods.micro_batches import IGNORED, Batch, label_count, pad
from harness.progress import bar
from harness.threads import watched

__all__ = ["IGNORED", "Batch", "Loss", "TrainingLog", "next_token_loss", "pad", "train"]
FLOOR = 0.1  # the cosine ends at this share of the peak learning rate


@dataclass
class TrainingLog:
    """What a training stage did: the loss of every step (nats per label), labels and tokens seen, seconds.

    ``micro_batches`` counts the parts that steps were taken in.
    """

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    labels: int = 0
    micro_batches: int = 0
    seconds: float = 0.0

    def add(self, loss: float, batch: Batch) -> None:
        """Count one step."""
        self.losses.append(loss)
        self.tokens += int(batch.attention_mask.sum())
        self.labels += label_count(batch)

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


def train(
    model: torch.nn.Module,
    batches: Iterable[Batch],
    *,
    steps: int,
    learning_rate: float,
    warmup_steps: int,
    label: str,
    loss: Loss = next_token_loss,
    mean_of: Literal["labels", "rows", "pairs"] | None = None,
    rate_of: Callable[[str], float] | None = None,
) -> TrainingLog:
    """Take ``steps`` AdamW steps on what takes gradients, one per batch, with linear warm-up and cosine decay.

    Gradients are clipped at norm 1. The model is in training mode meanwhile, and in evaluation mode afterwards; a method
    with several stages calls this once for each. A step is taken in parts that fit the memory, and again in smaller ones when
    memory runs out; nothing of it is applied before all of it is done.

    Args:
        model: as ``add_adapter`` returned it, or any whose ``requires_grad`` says what is trained.
        batches: at least ``steps`` of them, on the CPU; fewer end the training early.
        steps: optimiser steps.
        learning_rate: peak rate.
        warmup_steps: steps until the peak is reached.
        label: what the progress bar says.
        loss: given the model and a batch on the model's device, returns the scalar to minimise. It may run the model as
            often as it likes, without adapters too (``adapters.using(model, None)``).
        mean_of: what ``loss`` is the mean of: labels, rows, or pairs of rows (0 and 1, 2 and 3). It is then asked for some of
            a step's at a time, and gets them in another order. None: it is given whole batches, unless it is
            ``next_token_loss``.
        rate_of: the peak rate of a parameter, by its name in the model; None: ``learning_rate`` for all. Warm-up and decay are
            the same for each.

    Raises:
        HarnessError: the loss is no longer finite, a step has no label, or memory ran out with nothing left to halve.
        ValueError: nothing takes gradients, such as after an adapter was loaded or switched to.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not weights:
        raise ValueError(
            "nothing of the model takes gradients; adapters.switch_to(..., is_trained=True) thaws an adapter"
        )
    groups = _by_rate(model, rate_of or (lambda _: learning_rate))
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, warmup_steps))
    gradients = Gradients(model, weights, loss, "labels" if loss is next_token_loss else mean_of)
    log, started = TrainingLog(), time.monotonic()
    model.train()
    optimizer.zero_grad(set_to_none=True)  # of what the method did before
    try:
        with lean(model), bar(steps, label, unit="step") as progress:
            for step, batch in zip(range(steps), batches, strict=False):
                with watched("training", batch.input_ids.numel()):
                    value = _take_step(gradients, batch, optimizer, number=step + 1)
                schedule.step()
                log.add(value, batch)
                progress.set_postfix_str(f"loss {value:.3f}", refresh=False)
                progress.update()
    finally:
        gradients.room.restore()
        optimizer.zero_grad(set_to_none=True)
        model.eval()
    log.micro_batches, log.seconds = gradients.micro_batches, time.monotonic() - started
    return log


def _by_rate(model: torch.nn.Module, rate_of: Callable[[str], float]) -> list[dict[str, Any]]:
    """Return what takes gradients in groups of one peak rate each."""
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(rate_of(name), []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


def _take_step(gradients: Gradients, batch: Batch, optimizer: torch.optim.Optimizer, *, number: int) -> float:
    """Take one step and return its loss; where that is not finite, nothing is changed.

    Raises:
        HarnessError: it is not finite, or the batch has no label.
    """
    losses = gradients.find(batch, number)
    norm = torch.nn.utils.clip_grad_norm_(gradients.weights, 1.0)
    *values, size = torch.stack([*losses, norm.to(losses[0])]).tolist()  # the one time that a device is waited for
    broken = next((place for place, value in enumerate(values) if not math.isfinite(value)), None)
    if broken is not None:
        where = f", in part {broken + 1} of {len(values)}" if len(values) > 1 else ""
        raise HarnessError(
            f"training broke down at step {number}{where}: the loss is {values[broken]}; lower learning_rate"
        )
    if not math.isfinite(size):
        raise HarnessError(
            f"training broke down at step {number}: the gradient's norm is {size}, though the loss is {sum(values):.4g}; lower "
            "learning_rate"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(sum(values))


def _rate(step: int, steps: int, warmup_steps: int) -> float:
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
