"""LoRA adapters, several on one base: added, switched, saved, loaded, handed on, and probed for what they changed.

All adapters of a model share its weights, so a method that needs two models (a policy and its reference, a model of right
and one of wrong answers) holds the base once. With all of them switched off it is the base, to the bit.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import HarnessError
from harness.folders import scratch_folder, write_atomic
from harness.models.merging import is_quantized, merged
from harness.names import printable, suggestion
from harness.removal import put

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel
DEFAULT = "default"
# Models whose adapters came from here: on one that a user gave with the model, no second one is put.
_ADAPTED: weakref.WeakSet[Any] = weakref.WeakSet()
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


def add_adapter(
    model: PreTrainedModel | PeftModel,
    *,
    rank: int,
    alpha: float,
    target_modules: Sequence[str],
    seed: int,
    name: str = DEFAULT,
) -> PeftModel:
    """Return ``model`` with a fresh LoRA adapter (Hu et al., 2021) switched on, everything else frozen.

    Args:
        model: full-precision or quantised, or what this function returned for another name; changed in place.
        rank: inner dimension of the two factors.
        alpha: the update is scaled by ``alpha / rank``.
        target_modules: names or suffixes of linear layers; ``all-linear`` means all but the output head.
        seed: seeds the first factor.
        name: tells the adapters of one base apart.

    Raises:
        HarnessError: no layer has such a name, no adapter can have this name, the model has an adapter of this name, or one
            that came with it.
    """
    from peft import LoraConfig, get_peft_model

    _check_possible(name)
    if hasattr(model, "peft_config") and model not in _ADAPTED:
        raise HarnessError(
            "the model has an adapter already (peft=...) that cannot be merged, and no second one is trained on it"
        )
    targets: Any = "all-linear" if list(target_modules) == ["all-linear"] else list(target_modules)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM")
    torch.manual_seed(seed)
    try:
        if model not in _ADAPTED:
            is_training = model.training
            # Wrapper and dropout would be in training mode whatever the base is.
            return _adapted(get_peft_model(model, config, adapter_name=name).train(is_training))
        _check_free(model, name)
        model.add_adapter(name, config)
    except ValueError as error:
        raise HarnessError(
            f"target_modules {printable(list(target_modules))} fit no layer of the model: {printable(error)}"
        ) from error
    switch_to(model, name, is_trained=True)
    model.train(model.training)
    return model


def adapter_names(model: torch.nn.Module) -> list[str]:
    """Return the names of a model's adapters, the oldest first; none where it has none."""
    return list(getattr(model, "peft_config", {}))


def are_off(model: torch.nn.Module) -> bool:
    """Return whether a model's adapters are switched off, all of them; False where it has none."""
    return any(getattr(module, "disable_adapters", False) is True for module in model.modules())


def switch_to(model: PeftModel, name: str, *, is_trained: bool = False) -> None:
    """Use one adapter and no other from here on, also where all were off.

    Args:
        model: with adapters.
        name: the adapter's.
        is_trained: whether its weights, and none but its, take gradients; False freezes all of them.

    Raises:
        HarnessError: there is no adapter of this name.
    """
    _check_known(model, name)
    if are_off(model):
        model.base_model.enable_adapter_layers()
    model.set_adapter(name)
    if not is_trained:
        model.requires_grad_(False)


@contextmanager
def using(model: PeftModel, name: str | None) -> Iterator[None]:
    """Within it the model has another adapter on, or none (None: it is the base, such as a policy's reference).

    What was on before, if anything was, and which weights take gradients, comes back afterwards, whatever happens inside;
    so one may stand inside another.

    Raises:
        HarnessError: there is no adapter of this name.
    """
    if name is not None:
        _check_known(model, name)
    before, was_off = str(model.active_adapter), are_off(model)
    # PEFT makes all weights of an adapter that comes back trainable.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        if name is None:
            model.base_model.disable_adapter_layers()
        else:
            switch_to(model, name)
        yield
    finally:
        switch_to(model, before)
        if was_off:
            model.base_model.disable_adapter_layers()
        for parameter in trained:
            parameter.requires_grad_(True)


def without_adapters(model: PeftModel) -> PreTrainedModel:
    """Return the base, with its own layers again and its weights as they were to the bit; the adapters are lost."""
    is_training = model.training
    base: PreTrainedModel = model.unload()
    vars(base).pop("peft_config", None)  # which PEFT leaves, and by which an adapter that came with a model is told
    return base.train(is_training)


def save_adapter(model: PeftModel, folder: Path, *, name: str | None = None) -> None:
    """Write one adapter as PEFT's own folder, without the path of the base model on this machine.

    Args:
        model: with adapters.
        folder: gets ``adapter_config.json`` and the weights, whatever the adapter is called.
        name: the adapter's; None is the one switched on.

    Raises:
        HarnessError: there is no adapter of this name.
    """
    name = str(model.active_adapter) if name is None else name
    _check_known(model, name)
    with scratch_folder(folder / "adapter") as scratch:
        model.save_pretrained(str(scratch), selected_adapters=[name], save_embedding_layers=False)
        written = scratch if name == DEFAULT else scratch / name  # PEFT puts others one folder deeper
        forget_base(written)
        for file in written.iterdir():
            put(file, folder / file.name)


def forget_base(folder: Path) -> None:
    """Take the place of the base model out of an adapter's folder: PEFT writes it, and it means nothing elsewhere."""
    config, card = folder / "adapter_config.json", folder / "README.md"
    content = json.loads(config.read_text(encoding="utf-8"))
    base = content.get("base_model_name_or_path")
    if not base:
        return
    write_atomic(config, json.dumps(content | {"base_model_name_or_path": None}, indent=2, sort_keys=True))
    if card.is_file():
        lines = card.read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomic(card, "".join(line for line in lines if base not in line))


def load_adapter(model: PreTrainedModel | PeftModel, folder: Path, *, name: str = DEFAULT) -> PeftModel:
    """Return ``model`` with the adapter that ``save_adapter`` wrote, switched on and frozen.

    Args:
        model: a base, or a base with other adapters of this module; changed in place.
        folder: as ``save_adapter`` left it.
        name: what the adapter is called from here on.

    Raises:
        HarnessError: no adapter can have this name, the model has one of this name, or the adapter does not fit the model.
    """
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict, load_peft_weights

    _check_possible(name)
    if model in _ADAPTED:
        _check_free(model, name)
    try:
        if model in _ADAPTED:
            model.load_adapter(str(folder), adapter_name=name)
        else:
            model = _adapted(PeftModel.from_pretrained(model, str(folder), adapter_name=name))
        # PEFT says nothing of weights for layers that the model does not have.
        apart = set(load_peft_weights(str(folder), device="cpu")) ^ set(
            get_peft_model_state_dict(model, adapter_name=name)
        )
    except Exception as error:  # whatever the folder or a wrong base make PEFT raise
        text = (str(error).splitlines() or [""])[0][:300] or type(error).__name__
        raise HarnessError(f"adapter '{printable(folder)}' cannot be put on the model: {printable(text)}") from error
    if apart:
        raise HarnessError(
            f"adapter '{printable(folder)}' was made for another model: {min(apart)} is on one side alone; take that model"
        )
    switch_to(model, name)
    model.train(model.training)
    return model


def hand_on(model: PeftModel, *, probe_ids: Sequence[int], before: float) -> tuple[PreTrainedModel, Probe]:
    """Merge the adapter that is on into floating-point weights, keep it on quantised ones, and check the outcome.

    Merging into 4 or 8 bits rounds the update away or worse (a probe's loss went from 1.8 to 7.1 nats). Head and embeddings
    that were one matrix are two afterwards where only one of them has the adapter. Other adapters of the model are lost by
    merging; a method that needs several at the end hands the ``PeftModel`` on as it is.

    Args:
        model: the trained model.
        probe_ids: the probe text.
        before: its loss on the untouched model.

    Returns:
        The model to evaluate, and what the probe said.

    Raises:
        HarnessError: merging moved the probe's loss beyond rounding.
    """
    model.eval()
    adapted = probe_loss(model, probe_ids)
    base: PreTrainedModel = model.get_base_model()
    if is_quantized(base):
        return model.eval(), Probe(before, adapted, adapted, is_merged=False)
    alone = merged(model)
    alone.requires_grad_(False)
    after = probe_loss(alone, probe_ids)
    tolerance = MERGE_TOLERANCE.get(alone.dtype, 1e-3)
    if abs(after - adapted) > tolerance * max(1.0, abs(adapted)):
        raise HarnessError(
            f"merging the adapter moved a probe text's loss from {adapted:.4f} to {after:.4f} nats per token, so the model would "
            "not be the one that was trained; hand on the PeftModel as it is"
        )
    return alone, Probe(before, adapted, after, is_merged=True)


@torch.no_grad()
def probe_loss(model: torch.nn.Module, token_ids: Sequence[int]) -> float:
    """Return the mean loss of ``token_ids``, in nats per token, from float32 log-probabilities."""
    ids = torch.tensor([list(token_ids)], device=next(model.parameters()).device)
    logits = model(input_ids=ids).logits[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))


def _adapted(model: PeftModel) -> PeftModel:
    _ADAPTED.add(model)
    return model


def _check_possible(name: str) -> None:
    """Refuse names that torch does not give a part of a model, and those that are no folder's."""
    if not name or set(name) & set("./\\\0") or hasattr(torch.nn.ModuleDict(), name):
        raise HarnessError(
            f"no adapter can be called '{printable(name)}'; a name has no dot and no slash in it, and is none of torch's own "
            "such as 'keys'"
        )


def _check_free(model: PeftModel, name: str) -> None:
    if name in adapter_names(model):
        raise HarnessError(f"the model has an adapter '{printable(name)}' already; give the other one another name")


def _check_known(model: PeftModel, name: str) -> None:
    if name not in adapter_names(model):
        raise HarnessError(f"the model has no adapter '{printable(name)}'; {suggestion(name, adapter_names(model))}")
