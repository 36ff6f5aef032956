"""The loop that methods share: LoRA on full or quantised weights, with progress and a probe that merging kept the result."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from harness.errors import HarnessError
from harness.names import printable
from harness.progress import bar

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

FLOOR = 0.1  # the cosine ends at this share of the peak learning rate
# How far the probe's loss may move by merging, relative; one bf16 rounding of a weight is 2^-9.
MERGE_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3, torch.bfloat16: 2e-2, torch.float16: 1e-2}


class Batch(NamedTuple):
    """One optimiser step's rows: (B, T) ids, labels (-100 where no loss is due) and attention mask."""

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor


@dataclass
class TrainingLog:
    """What a training stage did: the loss of every step (nats per label), labels and tokens seen, seconds."""

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    labels: int = 0
    seconds: float = 0.0

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


@dataclass(frozen=True)
class Probe:
    """Loss of one fixed text, in nats per token: untouched, with the adapter active, and as handed on."""

    before: float
    adapted: float
    after: float
    is_merged: bool

    def report(self) -> dict[str, Any]:
        """Return the fields as a dict."""
        return asdict(self)


def is_quantized(model: PreTrainedModel) -> bool:
    """Return whether some weights are stored in bitsandbytes' 4 or 8 bits."""
    return bool(getattr(model, "is_quantized", False) or getattr(model, "is_loaded_in_4bit", False))


def add_adapter(
    model: PreTrainedModel, *, rank: int, alpha: float, target_modules: Sequence[str], seed: int
) -> PeftModel:
    """Return ``model`` with a fresh LoRA adapter (Hu et al., 2021), everything else frozen.

    Args:
        model: full-precision or quantised; changed in place.
        rank: inner dimension of the two factors.
        alpha: the update is scaled by ``alpha / rank``.
        target_modules: names or suffixes of linear layers; ``all-linear`` means all but the output head.
        seed: seeds the first factor.

    Raises:
        HarnessError: no layer has such a name.
    """
    from peft import LoraConfig, get_peft_model

    if hasattr(model, "peft_config"):
        raise HarnessError("the quantised model has an adapter already (peft=...), on which no second one is trained")
    targets: Any = "all-linear" if list(target_modules) == ["all-linear"] else list(target_modules)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM")
    torch.manual_seed(seed)
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise HarnessError(
            f"target_modules {printable(list(target_modules))} fit no layer of the model: {printable(error)}"
        ) from error


def train(
    model: PeftModel, batches: Iterable[Batch], *, steps: int, learning_rate: float, warmup_steps: int, label: str
) -> TrainingLog:
    """Take ``steps`` AdamW steps on the adapter, one per batch, with linear warm-up and cosine decay.

    Args:
        model: as ``add_adapter`` returned it.
        batches: at least ``steps`` of them.
        steps: optimiser steps.
        learning_rate: peak rate.
        warmup_steps: steps until the peak is reached.
        label: what the progress bar says.

    Raises:
        HarnessError: the loss is no longer finite.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, warmup_steps))
    log, started, device = TrainingLog(), time.monotonic(), next(iter(weights)).device
    model.train()
    with bar(steps, label, unit="step") as progress:
        for step, batch in zip(range(steps), batches, strict=False):
            loss = _loss(model, batch, device)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise HarnessError(f"training broke down at step {step + 1}: the loss is {value}; lower learning_rate")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            log.losses.append(value)
            log.tokens += int(batch.attention_mask.sum())
            log.labels += int((batch.labels[:, 1:] != -100).sum())
            progress.set_postfix_str(f"loss {value:.3f}", refresh=False)
            progress.update()
    model.eval()
    log.seconds = time.monotonic() - started
    return log


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter as PEFT's own folder, without the path of the base model on this machine."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = None
    model.save_pretrained(str(folder), save_embedding_layers=False)


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Return ``model`` with the adapter that ``save_adapter`` wrote."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder))


def hand_on(model: PeftModel, *, probe_ids: Sequence[int], before: float) -> tuple[PreTrainedModel, Probe]:
    """Merge the adapter into floating-point weights, keep it active on quantised ones, and check the outcome.

    Merging into 4 or 8 bits rounds the update away or worse (a probe's loss went from 1.8 to 7.1 nats).

    Args:
        model: the trained model.
        probe_ids: the probe text.
        before: its loss on the untouched model.

    Returns:
        The model to evaluate, and what the probe said.

    Raises:
        HarnessError: merging moved the probe's loss beyond rounding, for example because a tied embedding was adapted.
    """
    adapted = probe_loss(model, probe_ids)
    base: PreTrainedModel = model.get_base_model()
    if is_quantized(base):
        return model.eval(), Probe(before, adapted, adapted, is_merged=False)
    merged: PreTrainedModel = model.merge_and_unload().eval()
    merged.requires_grad_(False)
    after = probe_loss(merged, probe_ids)
    tolerance = MERGE_TOLERANCE.get(merged.dtype, 1e-3)
    if abs(after - adapted) > tolerance * max(1.0, abs(adapted)):
        raise HarnessError(
            f"merging the adapter moved a probe text's loss from {adapted:.4f} to {after:.4f} nats per token; an "
            "adapted matrix is probably tied to another, so leave embeddings and head out of target_modules"
        )
    return merged, Probe(before, adapted, after, is_merged=True)


@torch.no_grad()
def probe_loss(model: torch.nn.Module, token_ids: Sequence[int]) -> float:
    """Return the mean loss of ``token_ids``, in nats per token, from float32 log-probabilities."""
    ids = torch.tensor([list(token_ids)], device=next(model.parameters()).device)
    logits = model(input_ids=ids).logits[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))


def pad(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Batch:
    """Return (ids, labels) rows as one batch, padded on the right with id 0, label -100 and mask 0."""
    longest = max(len(ids) for ids, _ in rows)
    input_ids = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full((len(rows), longest), -100)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, (ids, targets) in enumerate(rows):
        input_ids[number, : len(ids)] = torch.tensor(ids)
        labels[number, : len(ids)] = torch.tensor(targets)
        mask[number, : len(ids)] = 1
    return Batch(input_ids, labels, mask)


def _loss(model: PeftModel, batch: Batch, device: torch.device) -> Tensor:
    """Mean cross-entropy over the labels; the head and the softmax see only positions that have one."""
    labels = batch.labels[:, 1:].to(device)
    output = model(input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device))
    is_scored = labels != -100
    return torch.nn.functional.cross_entropy(output.logits[:, :-1][is_scored].float(), labels[is_scored])


def _rate(step: int, steps: int, warmup_steps: int) -> float:
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
