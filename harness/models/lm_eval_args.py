"""What lm-eval's ``hf`` model takes in ``--model_args`` beside ours: what changes nothing here, and what is said otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.arguments import convert
from harness.errors import HarnessError
from harness.names import printable

# Taken, with these values, and nothing comes of it: it is so already, or decides no answer.
CHANGES_NOTHING: dict[str, tuple[Any, ...]] = {
    "backend": ("default", "causal", "seq2seq"),  # it is seen in the configuration
    "softmax_dtype": ("float32",),
    "use_fast_tokenizer": (True,),
    "low_cpu_mem_usage": (True, False),
    "logits_cache": (True, False),
    "truncation": (False,),
    "parallelize": (False,),
    "autogptq": (False,),
    "gptqmodel": (False,),
    "load_in_4bit": (False,),
    "load_in_8bit": (False,),
}
_FLAGS = "apply_chat_template fewshot_as_multiturn limit num_fewshot quantization seed system_instruction tasks"
_TEXTS = "do_sample max_gen_toks max_new_tokens num_beams repetition_penalty temperature top_k top_p until"
_QUANTIZED = "--model_args {name} does not work with transformers 5; use --quantization nf4 or int8"
_GPTQ = "--model_args {name} is not taken: a quantised checkpoint is read as its config.json says; leave it out"
_SPREAD = (
    "--model_args {name} is not taken: device_map=auto spreads a model over what is free; choose devices with "
    "CUDA_VISIBLE_DEVICES"
)
_SECRET = "--model_args {name} is not taken, since it would stand in every record; set HF_TOKEN in the environment"
# What is said of other names and values.
SENTENCES: dict[str, str] = {
    "device": "--model_args device is a flag here: --device {value}",
    "batch_size": "--model_args batch_size is a flag here: --batch_size {value}",
    "max_batch_size": "--model_args max_batch_size is not taken: --batch_size auto finds what fits, --batch_size N is a bound",
    "backend": "--model_args backend={value} is none of default, causal and seq2seq",
    "softmax_dtype": "--model_args softmax_dtype={value} is not taken: log-probabilities are computed in float32 here",
    "use_fast_tokenizer": "--model_args use_fast_tokenizer={value} is not taken: transformers 5 has the fast tokenizers alone",
    "truncation": "--model_args truncation={value} is not taken, since it cuts the end of a prompt, where the question "
    "stands; too long prompts are cut at their beginning, and counted",
    "logits_cache": "--model_args logits_cache is '{value}', where true or false is due",
    "low_cpu_mem_usage": "--model_args low_cpu_mem_usage is '{value}', where true or false is due",
    "parallelize": "--model_args parallelize is '{value}', where true or false is due",
    "max_memory_per_gpu": _SPREAD,
    "max_cpu_memory": _SPREAD,
    "offload_folder": _SPREAD,
    "tp_plan": "--model_args tp_plan is not taken: no layer is cut across processes here; device_map=auto spreads layers",
    "delta": "--model_args delta is not taken: add the delta to the weights once, save the sum, and name its folder",
    "torch_dtype": "--model_args torch_dtype is called dtype: dtype={value}",
    "cache_dir": "--model_args cache_dir is not taken: set HF_HOME in the environment",
    "token": _SECRET,
    "use_auth_token": _SECRET,
    "hf_token": _SECRET,
    "load_in_4bit": _QUANTIZED,
    "load_in_8bit": _QUANTIZED,
    "quantization_config": _QUANTIZED,
    "autogptq": _GPTQ,
    "gptqmodel": _GPTQ,
    **{name: f"--model_args {name} is a flag here: --{name} {{value}}" for name in _FLAGS.split()},
    **{
        name: f"--model_args {name} is said of texts, not of the model: --gen_kwargs {name}={{value}}"
        for name in _TEXTS.split()
    },
}


def translated(model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``--model_args`` without what changes nothing here, and with our names.

    Raises:
        HarnessError: one is spelled otherwise here or cannot be had; the sentence says which and how.
    """
    ours: dict[str, Any] = {}
    for name, value in model_args.items():
        if _is_none(value) and name in SENTENCES:
            continue
        if name == "parallelize" and _alike(value, True):
            ours.setdefault("device_map", "auto")
        elif changes_nothing(name, value) and name != "backend":
            continue
        elif (name in SENTENCES and not changes_nothing(name, value)) or name.startswith("bnb_4bit_"):
            sentence = SENTENCES.get(name, _QUANTIZED)
            raise HarnessError(sentence.format(name=name, value=printable(value)))
        else:
            ours[name] = value
    return ours


def changes_nothing(name: str, value: Any) -> bool:
    """Return whether a word of ``--model_args`` is one of lm-eval's that decides no answer here."""
    return any(_alike(value, harmless) for harmless in CHANGES_NOTHING.get(name, ()))


def _is_none(value: Any) -> bool:
    return value is None or str(value).lower() == "none"


def _alike(value: Any, harmless: Any) -> bool:
    """Return whether a value, as text or typed, is this one."""
    if not isinstance(harmless, bool):
        return str(value).removeprefix("torch.") == harmless
    try:
        return convert(value, bool) is harmless
    except ValueError:
        return False
