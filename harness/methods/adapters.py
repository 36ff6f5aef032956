"""LoRA adapters: added to a model, saved, loaded, handed on, and probed for what they changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel
# How far the probe's loss may move by merging, relative; one bf16 rounding of a weight is 2^-9.
MERGE_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3, torch.bfloat16: 2e-2, torch.float16: 1e-2}


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
