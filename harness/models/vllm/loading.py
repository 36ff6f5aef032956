"""From a source to the LM that vLLM computes: what is taken, what is refused, all of it before weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.models.loading import check_places
from harness.models.tree.fitness import rope_limit
from harness.models.tree.memory import cache_bytes_per_token
from harness.models.vllm.engine import VllmEngine, check_installed, device_type
from harness.names import printable
from harness.progress import process_count

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.models.source import ModelSource
    from harness.models.vllm.lm import VLLM

# What --model vllm does not take, and what to do instead.
REFUSED = {
    "peft": "write the merged model with `harness apply --model_args pretrained=...,peft=... --output FOLDER`, and name FOLDER",
    "gguf_file": "name a folder with safetensors",
    "attn_implementation": "vLLM has kernels of its own; leave it out",
    "device_map": "say --model_args tensor_parallel_size=N",
    "mixed_precision_dtype": "say dtype=bfloat16",
}


def check(source: ModelSource) -> PreTrainedTokenizerBase:
    """Do every check that needs no weights, as ``--model hf`` does and more, and return the tokenizer.

    Raises:
        HarnessError: there is no vLLM, or the source is nothing that it takes as we mean it.
    """
    check_installed()
    if source.quantization != "none":
        raise HarnessError(
            f"--quantization {source.quantization} is bitsandbytes' in a model of transformers, which vLLM does not load; ask "
            "with --model hf"
        )
    for name, instead in REFUSED.items():
        if getattr(source, name, None) or source.lm_args.get(name):
            raise HarnessError(f"--model vllm does not take {name}: {instead}")
    if source.subfolder and not source.is_local:
        raise HarnessError("--model vllm does not take subfolder of a repository: download it, and name its folder")
    if process_count() > 1:
        raise HarnessError("--model vllm is one process; for several devices say --model_args tensor_parallel_size=N")
    tokenizer = source.check()
    if source.is_encoder_decoder:
        raise HarnessError(
            f"'{printable(source.name)}' is an encoder-decoder, which vLLM does not score; ask with --model hf"
        )
    if getattr(source.config.get_text_config(), "quantization_config", None) or getattr(
        source.config, "quantization_config", None
    ):
        raise HarnessError(
            f"'{printable(source.name)}' is quantised by its own config.json, and vLLM does not say of how many bits its weights "
            "are, which a record has to; ask with --model hf"
        )
    return tokenizer


def place(wanted: str | None) -> str:
    """Return where vLLM computes here. Raises ``HarnessError`` when that is not what is wanted."""
    check_installed()
    has = device_type()
    if wanted is not None and wanted != has:
        raise HarnessError(
            f"this build of vLLM computes on {has}, not on '{printable(wanted)}': leave --device out (CUDA_VISIBLE_DEVICES "
            "chooses among several)"
        )
    return has


def load(source: ModelSource, device: str | None, batch_size: int | str) -> VLLM:
    """Start vLLM with the model, and return the LM.

    Args:
        batch_size: a number bounds how many requests are computed at the same time.

    Raises:
        HarnessError: vLLM cannot load the model, or lacks what scoring needs.
    """
    from harness.models.vllm.lm import VLLM

    check(source)
    place(device)
    tokenizer, model = source.take_tokenizer(), shape_of(source)
    settings = {"batch_size": batch_size, **source.lm_args}
    rows = {"max_num_seqs": batch_size} if isinstance(batch_size, int) else {}
    arguments: dict[str, Any] = {
        "model": source.location,
        "tokenizer": source.tokenizer or source.location,
        "revision": None if source.is_local else source.revision,
        "dtype": str(model.dtype).removeprefix("torch."),
        "trust_remote_code": source.trust_remote_code,
        "enable_prefix_caching": source.lm_args.get("share_prefixes", True),
        "generation_config": "vllm",  # its checkpoint's settings are applied here, as everywhere
        "seed": 0,
        **rows,
        **source.engine_args,
    }

    def start(most_tokens: int) -> VllmEngine:
        _check_positions(source, most_tokens)
        return VllmEngine(
            arguments | {"max_model_len": most_tokens}, cache_bytes_per_token=cache_bytes_per_token(model)
        )

    return VLLM(model, tokenizer, engine=start, **settings)


def _check_positions(source: ModelSource, most_tokens: int) -> None:
    """Raise where positions depend on the length of the text: vLLM has those of ``most_tokens`` for every text."""
    limit = rope_limit(source.config.get_text_config())
    if limit is not None and most_tokens > limit:
        raise HarnessError(
            f"what '{printable(source.name)}' makes of a position changes where a text is longer than {limit} tokens, and vLLM "
            f"takes one of both for all texts: say --model_args max_length={limit - 1} or less, or ask with --model hf"
        )


def shape_of(source: ModelSource) -> PreTrainedModel:
    """Return the model without weights, on torch's meta device, with its checkpoint's generation settings.

    Its dtype is that of the checkpoint, as ``--model hf`` has it, where none is asked for.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = source.dtype if source.dtype != "auto" else (source.config.get_text_config().dtype or "float32")
    with torch.device("meta"):
        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                source.config,
                dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype,
                trust_remote_code=source.trust_remote_code,
            )
        except Exception as error:  # a configuration of any shape makes transformers raise anything
            raise HarnessError(f"'{printable(source.name)}' is no causal language model: {printable(error)}") from error
    check_places(model, source)
    settings = _generation_settings(source)
    if settings is not None:
        model.generation_config = settings
    return model.eval()


def _generation_settings(source: ModelSource) -> Any:
    from transformers import GenerationConfig

    revision = {} if source.is_local or source.revision is None else {"revision": source.revision}
    try:
        return GenerationConfig.from_pretrained(source.location, **revision)
    except OSError:  # it has none
        return None
