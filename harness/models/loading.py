"""Models by folder, hub name, GGUF file or the embedded default: checked first, loaded after, quantised if asked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.imports import without_collecting
from harness.models.leftovers import Shapes, is_beside
from harness.models.merging import with_adapter
from harness.models.source import ModelSource, first_line
from harness.names import printable
from harness.progress import process_count, quiet, say

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedModel

# What architectures call the embedding of places: it has a row for each, and no text may be longer.
LEARNED_POSITIONS = frozenset({"wpe", "embed_positions", "position_embeddings", "position_embedding"})


def load_lm(source: ModelSource, *, device: str | None, batch_size: int | str) -> LM:
    """Read the weights, quantise them if asked, and return the ``CausalLM``.

    Raises:
        HarnessError: the weights cannot be read, the device does not exist, or quantisation did not take place.
    """
    with without_collecting():
        from harness.models.causal import CausalLM

    tokenizer = source.take_tokenizer()
    model = load_model(source, device=pick_device(device))
    return CausalLM(model, tokenizer, batch_size=batch_size, **source.lm_args)


def load_model(source: ModelSource, *, device: str, headless: bool = False) -> PreTrainedModel:
    """Return the model on ``device``, in evaluation mode, quantised and with an adapter if the source says so.

    Args:
        headless: without what stands on the last hidden states, whatever the checkpoint has there.
    """
    _make_current(device)
    if not source.peft:
        return _read(source, device, headless=headless)
    model: PreTrainedModel
    model, reason = with_adapter(lambda: _read(source, device, headless=headless), source.peft, name=source.name)
    if reason is not None:
        say(f"the adapter of {printable(source.name)} is left active: {reason}")
    return model


def _read(source: ModelSource, device: str, *, headless: bool = False) -> PreTrainedModel:
    """Return the model on ``device`` as its checkpoint has it."""
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForTextEncoding,
        logging,
    )

    logging.disable_progress_bar()
    settings: dict[str, Any] = {"dtype": source.dtype, "trust_remote_code": source.trust_remote_code}
    settings |= source._place() | source._gguf()
    if source.attn_implementation:
        settings["attn_implementation"] = source.attn_implementation
    if source.device_map:
        settings["device_map"] = source.device_map
    if source.quantization != "none":
        settings["quantization_config"] = _quantization_config(source.quantization, device)
        settings.setdefault("device_map", {"": device})
    if headless:
        kind = AutoModelForTextEncoding if source.is_encoder_decoder else AutoModel
    else:
        kind = AutoModelForSeq2SeqLM if source.is_encoder_decoder else AutoModelForCausalLM
    try:
        with quiet("transformers") if headless else nullcontext():  # it reports what ``_check_keys`` judges
            model, keys = kind.from_pretrained(source.location, **settings, output_loading_info=True)
    except Exception as error:  # a corrupt file raises whatever its reader raises
        raise HarnessError(f"could not load model '{printable(source.name)}': {first_line(error)}") from error
    _check_keys(_without_heads(model, keys) if headless else keys, source)
    if headless and getattr(model, "pooler", None) is not None:
        model.pooler = None  # a layer behind the states; where the checkpoint lacks it, it is random
    check_places(model, source)
    if source.gguf_file:
        model = without_quantization_config(model)
    if source.quantization == "none" and not source.device_map:
        model = model.to(device)
    _check_quantized(model, source)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes would repack the weights in the first forward pass on some CPUs, and multiply in bfloat16: other
            # scores on another machine, and an error for layers narrower than a block.
            module.support_avx512bf16_for_cpu = False
    read: PreTrainedModel = model.eval()
    return read


def pick_device(device: str | None) -> str:
    """Return the device asked for, or the best there is.

    Raises:
        HarnessError: torch does not know it or cannot use it.
    """
    import torch

    if device == "meta":
        raise HarnessError("device 'meta' cannot be used: nothing is computed there")
    chosen = device
    if device is None:
        chosen = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if chosen == "cuda" and process_count() > 1:
        chosen = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # each of several processes has the one the launcher gave it
    assert chosen is not None
    try:
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        instead = "; choose another with --device" if device is None else ""
        raise HarnessError(f"device '{printable(chosen)}' cannot be used: {first_line(error)}{instead}") from error
    return chosen


def _make_current(device: str) -> None:
    """Have a GPU other than the first take what libraries put on the current one: kernels, and a context of the driver."""
    import torch

    place = torch.device(device)
    if place.type == "cuda" and place.index is not None:
        torch.cuda.set_device(place)


def without_quantization_config(model: PreTrainedModel) -> PreTrainedModel:
    """Return a plain model with the weights of ``model``, which came from GGUF and would refuse to be saved."""
    config = model.config.to_dict()
    for name in ("quantization_config", "_name_or_path"):
        config.pop(name, None)
    plain = type(model)(type(model.config).from_dict(config)).to(dtype=model.dtype)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    return plain


def _quantization_config(quantization: str, device: str) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.float32 if device == "cpu" else torch.bfloat16
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def _check_keys(keys: Mapping[str, Any], source: ModelSource) -> None:
    """Raise when weights are missing or left over: transformers would fill the first with noise, and go on.

    What is left over and decides no answer (old masks, another head) is told.
    """
    unexpected = sorted(keys.get("unexpected_keys") or ())
    shape = Shapes(source.folder) if unexpected else None
    told = [name for name in unexpected if is_beside(name, shape)]
    if told:
        say(f"{printable(source.name)} has tensors that answers do not depend on, which are left out: {_some(told)}")
    for names, sentence in (
        (sorted(keys.get("missing_keys") or ()), "lacks weights"),
        ([name for name in unexpected if name not in told], "has weights its architecture does not"),
    ):
        if names:
            raise HarnessError(f"model '{printable(source.name)}' {sentence}: {_some(names)}")
    mismatched = sorted(
        str(entry[0] if isinstance(entry, tuple) else entry) for entry in keys.get("mismatched_keys") or ()
    )
    if mismatched:
        raise HarnessError(
            f"model '{printable(source.name)}' has weights of another shape than its config: {mismatched[0]}"
        )


def _without_heads(model: PreTrainedModel, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is missing and left over of a model that is read without a head; a pooler beside its states is one."""
    own = {name for name, _ in model.named_children()}
    unexpected = [name for name in keys.get("unexpected_keys") or () if name.split(".")[0] in own]
    missing = [name for name in keys.get("missing_keys") or () if not name.startswith("pooler.")]
    return {**keys, "unexpected_keys": unexpected, "missing_keys": missing}


def check_places(model: PreTrainedModel, source: ModelSource) -> None:
    """Raise when ``max_length`` asks for places that a model with learned positions has none of."""
    import torch

    wanted = source.lm_args.get("max_length", 0)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.rpartition(".")[2] in LEARNED_POSITIONS:
            places = module.num_embeddings - getattr(module, "offset", 0)
            if wanted > places:
                raise HarnessError(
                    f"--model_args max_length is {wanted}, but '{printable(source.name)}' has learned {places} positions"
                )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{printable(', '.join(names[:3]))}{more}"


def _check_quantized(model: PreTrainedModel, source: ModelSource) -> None:
    """Raise unless the layers are of the kind that was asked for: a silent fp16 must not be called 4-bit."""
    kinds = {"int8": "Linear8bitLt", "nf4": "Linear4bit"}
    wanted = kinds.get(source.quantization)
    if wanted and not any(type(module).__name__ == wanted for module in model.modules()):
        raise HarnessError(
            f"'{printable(source.name)}' was not quantised to {source.quantization}: none of its layers is {wanted}; "
            "its architecture is not supported by bitsandbytes here"
        )
