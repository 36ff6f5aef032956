"""Adapters put on a model: merged into its weights where it answers as before, else left active."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import HarnessError
from harness.models.head import difference, has_separate_head
from harness.models.leftovers import is_beside
from harness.names import printable
from harness.progress import say

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Tensor = torch.Tensor
PROBE_TOKENS = 32
# How far the logits of the probe may move by merging, relative to their size: rounding explains no more.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
LOW_PRECISION_TOLERANCE = 0.05
# And relative to what the adapter does: beyond this, merging rounds too much of it away.
MOST_LOST = 0.25
# What PEFT puts between the name of a matrix and its part.
OWN = ("", "base_layer.", "token_adapter.base_layer.")


def with_adapter(read: Callable[[], PreTrainedModel], folder: str, *, name: str) -> tuple[Any, str | None]:
    """Return a model with an adapter: merged where that changes no answer, so that a method may train one of its own.

    Args:
        read: gives the model without it; called again when merging turns out to be wrong.
        folder: the adapter's, or its name on the Hub.
        name: what errors call the model.

    Returns:
        The model in evaluation mode, and why the adapter was left active, None where it was merged.

    Raises:
        HarnessError: the adapter is not one, was made for another model, or needs more than a text to answer.
    """
    base = read()
    _fit_rows(base, folder)
    try:
        plain, adapted, active = _probed(base, folder)
    except HarnessError:
        raise
    except Exception as error:  # whatever the folder, the Hub or a wrong base make PEFT raise
        text = (str(error).splitlines() or [""])[0][:300] or type(error).__name__
        raise HarnessError(
            f"adapter '{printable(folder)}' cannot be put on '{printable(name)}': {printable(text)}"
        ) from error
    if torch.equal(plain, active):
        say(f"adapter '{printable(folder)}' changes nothing: it was never trained, or its weights are 0")
    reason = why_active(adapted)
    if reason is not None:
        return adapted, reason
    ids = _probe_ids(adapted)
    try:
        model = merged(adapted)
        found = _logits(model, ids)
    except Exception:  # PEFT's kinds of adapters refuse in many ways, some of them half done
        reason = "it cannot be merged into these weights"
    else:
        if _agree(plain, active, found, model.dtype):
            return model, None
        reason = "merging it would change the model's answers"
    del adapted, base
    again = read()
    _fit_rows(again, folder)
    return _put_on(again, folder), reason


def is_quantized(model: PreTrainedModel) -> bool:
    """Return whether some weights are stored in fewer bits, such as bitsandbytes' 4 or 8."""
    return bool(getattr(model, "is_quantized", False) or getattr(model, "is_loaded_in_4bit", False))


def why_active(adapted: PeftModel) -> str | None:
    """Return why adapters of this kind, or on such weights, are not to be merged; None where they may be."""
    if is_quantized(adapted.get_base_model()):
        # Rounds the update away or worse: a probe's loss went from 1.8 to 7.1 nats.
        return "its model's weights are quantised"
    config = adapted.active_peft_config
    if config.is_prompt_learning or not hasattr(adapted, "merge_and_unload"):
        return f"adapters of kind {config.peft_type.value} cannot be merged"
    return None


def merged(adapted: PeftModel) -> PreTrainedModel:
    """Merge the adapter that is on, and return the model without it, in evaluation mode.

    Where an adapted matrix is also another part's (a head that is the embeddings), each part is given its own before; they
    are one again afterwards where they are equal.
    """
    groups = _separated(adapted)
    config = adapted.get_base_model().config
    was_tied = config.tie_word_embeddings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, of tied matrices
        model: PreTrainedModel = adapted.merge_and_unload().eval()
    weights = dict(model.named_parameters(remove_duplicate=False))
    for names in groups:
        first, *others = [name for name in names if name in weights] or [""]
        if others and all(torch.equal(weights[first], weights[other]) for other in others):
            for other in others:
                _put(model, other, weights[first])
    if groups:
        config.tie_word_embeddings = was_tied and not has_separate_head(model)
    return model


def _probed(base: PreTrainedModel, folder: str) -> tuple[Tensor, PeftModel, Tensor]:
    """Return the probe's logits without the adapter, the model with it, and the logits then."""
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(folder)
    ids = _probe_ids(base, config)
    plain = _logits(base, ids)
    adapted = _put_on(base, folder)
    return plain, adapted, _logits(adapted, ids)


def _put_on(base: PreTrainedModel, folder: str) -> PeftModel:
    from peft import PeftModel, PeftModelForCausalLM, PeftModelForSeq2SeqLM

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        adapted = PeftModel.from_pretrained(base, folder).eval()
        left = adapted.load_adapter(folder, adapted.active_adapter).unexpected_keys
    missing = [str(one.message) for one in told if "missing adapter keys" in str(one.message)]
    if missing:
        raise ValueError(f"it lacks weights of its layers ({missing[0].partition('[')[2][:120]} ...)")
    strange = [
        key for key in left if key != "prompt_embeddings" and not is_beside(key.removeprefix("base_model.model."))
    ]
    if strange:
        raise ValueError(f"it has weights for layers that the model does not have ({strange[0]})")
    if adapted.active_peft_config.is_prompt_learning and not isinstance(
        adapted, PeftModelForCausalLM | PeftModelForSeq2SeqLM
    ):
        raise ValueError(
            "its adapter_config.json names no task_type such as CAUSAL_LM, without which PEFT leaves it out"
        )
    return adapted


def _fit_rows(model: PreTrainedModel, folder: str) -> None:
    """Give the model as many rows as the adapter was trained with, as its matrices or the tokens it trained say."""
    from peft import PeftConfig
    from peft.utils import load_peft_weights

    try:
        config = PeftConfig.from_pretrained(folder)
        shapes = {name: tuple(weight.shape) for name, weight in load_peft_weights(folder, device="cpu").items()}
    except Exception:  # what is wrong with the folder is said when the adapter is read
        return
    embeddings = model.get_input_embeddings()
    parts = [name for name, module in model.named_modules() if module in (embeddings, model.get_output_embeddings())]
    whole = {f"base_model.model.{part}.{own}weight" for part in parts for own in OWN}
    size, width = embeddings.weight.shape
    rows = [shape[0] for name, shape in shapes.items() if name in whole and shape[1:] == (width,)]
    trained = max(_trained_tokens(config), default=0) + 1
    wanted = rows[0] if rows else max(size, trained)
    if wanted != size:
        model.resize_token_embeddings(wanted, mean_resizing=False)


def _trained_tokens(config: Any) -> list[int]:
    """Return the ids whose rows alone an adapter trained."""
    found = getattr(config, "trainable_token_indices", None) or getattr(config, "token_indices", None) or []
    return [token for tokens in found.values() for token in tokens] if isinstance(found, Mapping) else list(found)


def _probe_ids(model: Any, config: Any = None) -> list[int]:
    """Return ids all over the vocabulary, those that the adapter was trained on among them."""
    config = model.active_peft_config if config is None else config
    size = len(model.get_input_embeddings().weight)
    spread = [number * size // PROBE_TOKENS for number in range(PROBE_TOKENS)]
    some = _trained_tokens(config)[:PROBE_TOKENS]
    return list(dict.fromkeys([token for token in [*some, *spread] if 0 <= token < size]))


@torch.no_grad()
def _logits(model: Any, ids: list[int]) -> Tensor:
    """Return the logits (T, V) that a model has after each of ``ids``."""
    was_training = model.training
    model.eval()
    rows = torch.tensor([ids], device=model.get_input_embeddings().weight.device)
    labels = {"labels": rows} if getattr(model.config, "is_encoder_decoder", False) else {}
    logits: Tensor = model(input_ids=rows, **labels).logits[0, -len(ids) :].float()
    model.train(was_training)
    return logits


def _agree(plain: Tensor, active: Tensor, found: Tensor, dtype: torch.dtype) -> bool:
    """Return whether merging left the logits as they were, but for rounding that is small beside what the adapter does."""
    if not torch.isfinite(active).all():
        return True  # said when a request meets it
    moved, effect = difference(active, found), difference(active, plain)
    most = TOLERANCE.get(dtype, LOW_PRECISION_TOLERANCE)
    return moved <= most and moved <= max(MOST_LOST * effect, min(TOLERANCE.values()))


def _separated(adapted: PeftModel) -> list[list[str]]:
    """Give each part of the model a matrix of its own where an adapted one is shared; return the names of those that were one.

    The names are those that the model has without the adapter.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    base = adapted.get_base_model()
    shared: dict[int, list[tuple[str, torch.nn.Module, str]]] = {}
    within: set[int] = set()
    for name, module in base.named_modules():
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            within |= {id(part) for part in module.modules()}
        for last, parameter in module._parameters.items():
            shared.setdefault(id(parameter), []).append((_bare(f"{name}.{last}"), module, last))
    groups = [places for places in shared.values() if len(places) > 1 and any(id(p) in within for _, p, _ in places)]
    groups = [places for places in groups if getattr(places[0][1], places[0][2]) is not None]
    for (_, first, last), *others in groups:
        for _, module, name in others:
            own = getattr(first, last).detach().clone()
            setattr(module, name, torch.nn.Parameter(own, requires_grad=False))
    return [[name for name, _, _ in places] for places in groups]


def _put(model: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
    place, _, last = name.rpartition(".")
    setattr(model.get_submodule(place), last, parameter)


def _bare(name: str) -> str:
    """Return the name of a parameter once its layer is without adapter."""
    return ".".join(part for part in name.split(".") if part not in ("base_layer", "original_module", "token_adapter"))
