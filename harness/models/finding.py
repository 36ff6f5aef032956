"""From the words of ``--model_args`` to a source whose options, files and data type have been checked."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.arguments import convert
from harness.errors import HarnessError
from harness.models import adapter_files, sentence_files
from harness.models.default_model import DEFAULT_MODEL, default_model_folder
from harness.models.files import WEIGHT_SUFFIXES, weight_files
from harness.models.lm_eval_args import translated
from harness.models.source import QUANTIZATIONS, ModelSource
from harness.names import printable, suggestion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
# Which --model_args go where. Everything else is refused by name.
LOADING_ARGS = {"pretrained": str, "tokenizer": str, "revision": str, "dtype": str, "gguf_file": str, "peft": str,
                "trust_remote_code": bool, "attn_implementation": str, "device_map": str, "subfolder": str,
                "backend": str}  # fmt: skip
LM_ARGS = {"max_length": int, "prefix_token_id": int, "add_bos_token": bool, "think_end_token": int | str,
           "enable_thinking": bool, "share_prefixes": bool, "mixed_precision_dtype": str, "chat_template_args": dict}  # fmt: skip
USUAL_DTYPES = frozenset({"float32", "bfloat16", "float16"})
# Of a model that makes vectors of texts (``--model encoder``).
EMBED_ARGS = {"pooling": str, "normalise": bool, "template": str, "empty": str}
# Of an engine that computes the model in our place (``--model vllm``).
ENGINE_ARGS = {"tensor_parallel_size": int, "gpu_memory_utilization": float, "kv_cache_memory_bytes": int,
               "max_num_seqs": int, "max_num_batched_tokens": int, "enforce_eager": bool}  # fmt: skip
# What every call of a chat template says already.
TEMPLATE_OWN = frozenset(
    {"conversation", "tokenize", "add_generation_prompt", "continue_final_message", "chat_template"}
)


def resolve(model_args: Mapping[str, Any], *, quantization: str = "none", needs_weights: bool = True) -> ModelSource:
    """Return the source that ``--model_args`` describe; without ``pretrained``, the embedded default model.

    Args:
        model_args: names and values, as text or JSON values.
        quantization: one of ``QUANTIZATIONS``.
        needs_weights: False takes a folder that holds a tokenizer alone.

    Raises:
        HarnessError: an argument is unknown or malformed, or the path or file does not exist.
    """
    args = _checked_args(model_args)
    lm_args = {name: args.pop(name) for name in list(args) if name in LM_ARGS or name in EMBED_ARGS}
    args["engine_args"] = {name: args.pop(name) for name in list(args) if name in ENGINE_ARGS}
    pretrained = args.pop("pretrained", None)
    if quantization not in QUANTIZATIONS:
        raise HarnessError(
            f"quantization '{printable(quantization)}' is unknown; {suggestion(quantization, QUANTIZATIONS)}"
        )
    if quantization != "none" and importlib.util.find_spec("bitsandbytes") is None:
        raise HarnessError("--quantization needs the package bitsandbytes; pip install bitsandbytes")
    _check_dtype(args.get("dtype", "auto"))
    subfolder = args.pop("subfolder", None)
    if pretrained is None and subfolder:
        raise HarnessError("--model_args subfolder needs pretrained=..., the folder or repository that it lies in")
    args |= {name: os.path.expanduser(args[name]) for name in ("peft", "tokenizer") if args.get(name)}
    _check_adapter(args.get("peft"))
    if pretrained is None:
        return ModelSource(
            DEFAULT_MODEL, str(default_model_folder()), quantization=quantization, lm_args=lm_args, **args
        )
    path = Path(pretrained).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        args["gguf_file"], path = path.name, path.parent
        return ModelSource(args["gguf_file"], str(path), quantization=quantization, lm_args=lm_args, **args)
    if path.is_dir():
        name, path = path.resolve().name, path / (subfolder or "")
        if not path.is_dir():
            raise HarnessError(f"model folder '{printable(pretrained)}' has no subfolder '{printable(subfolder)}'")
        path = sentence_files.model_in(path)
        if needs_weights:
            _check_model_folder(path, args.get("gguf_file"))
        return ModelSource(name, str(path), quantization=quantization, lm_args=lm_args, **args)
    if pretrained.startswith((".", "/", "~")) or pretrained.count("/") > 1 or path.exists():
        raise HarnessError(f"no model folder at '{printable(pretrained)}'")
    return ModelSource(
        pretrained, pretrained, quantization=quantization, lm_args=lm_args, subfolder=subfolder or None, **args
    )


def load_tokenizer(pretrained: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model, or with None that of the embedded default model. No weights are read."""
    args = {} if pretrained is None else {"pretrained": pretrained}
    return resolve(args, needs_weights=False).load_tokenizer()


def _checked_args(model_args: Mapping[str, Any]) -> dict[str, Any]:
    known = LOADING_ARGS | LM_ARGS | EMBED_ARGS | ENGINE_ARGS
    checked: dict[str, Any] = {}
    for name, value in translated(model_args).items():
        if name not in known:
            raise HarnessError(f"--model_args has no '{printable(name)}'; {suggestion(name, known, most=20)}")
        try:
            checked[name] = _template_args(value) if name == "chat_template_args" else convert(value, known[name])
        except ValueError as error:
            raise HarnessError(f"--model_args {name} is {error}") from error
    if checked.get("max_length", 1) < 1:
        raise HarnessError(f"--model_args max_length is {checked['max_length']}; it has to be 1 or more")
    if checked.get("enable_thinking") and not checked.get("think_end_token"):
        raise HarnessError("--model_args enable_thinking=true needs think_end_token=..., after which the answer begins")
    if "mixed_precision_dtype" in checked:
        _check_dtype(checked["mixed_precision_dtype"], automatic=False)
    return checked


def _template_args(value: Any) -> dict[str, Any]:
    """Return what a chat template is told. Raises ``ValueError``, to be continued as of ``convert``."""
    found = json.loads(value) if isinstance(value, str) and value.startswith("{") else value
    if not isinstance(found, Mapping):
        raise ValueError(f"'{printable(value)}', where a JSON object is due")
    taken = sorted(TEMPLATE_OWN & set(found))
    if taken:
        raise ValueError(f"'{printable(value)}', but {taken[0]} is said already")
    return dict(found)


def _check_dtype(dtype: str, *, automatic: bool = True) -> None:
    if dtype in USUAL_DTYPES or (automatic and dtype == "auto"):
        return  # known without torch, which takes a second
    import torch

    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        known = [*(["auto"] if automatic else []), "float32", "bfloat16", "float16"]
        raise HarnessError(f"dtype '{printable(dtype)}' is unknown; {suggestion(dtype, known)}")


def _check_adapter(folder: str | None) -> None:
    """Raise where an adapter is looked for here and is not, before weights are read."""
    if folder is None:
        return
    path = Path(folder)
    if path.is_dir():
        adapter_files.check_folder(path)
    if not path.is_dir() and (folder.startswith((".", "/", "~")) or folder.count("/") > 1 or path.exists()):
        raise HarnessError(f"no adapter folder at '{printable(folder)}'")


def _check_model_folder(folder: Path, gguf_file: str | None) -> None:
    if gguf_file is not None:
        if not (folder / gguf_file).is_file():
            raise HarnessError(f"no file '{printable(gguf_file)}' in model folder '{printable(folder)}'")
        return
    if not (folder / "config.json").is_file():
        raise HarnessError(f"'{printable(folder)}' is no model folder: it has no config.json")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise HarnessError(f"config.json in '{printable(folder)}' is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise HarnessError(f"config.json in '{printable(folder)}' is no JSON object")
    if not weight_files(folder):
        raise HarnessError(f"model folder '{printable(folder)}' has no weights ({', '.join(WEIGHT_SUFFIXES)})")
