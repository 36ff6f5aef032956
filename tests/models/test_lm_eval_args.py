"""What lm-eval's ``hf`` model takes in ``--model_args`` is taken here, or a sentence says how it is said."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from lm_eval.models.huggingface import HFLM
from small_runs import Command
from tiny_models import build_model
from transformers import AutoTokenizer

from harness import HarnessError
from harness.models.finding import LM_ARGS, LOADING_ARGS, resolve
from harness.models.lm_eval_args import CHANGES_NOTHING, SENTENCES, changes_nothing
from harness.models.loading import load_lm

HARMLESS = "backend=causal,softmax_dtype=float32,use_fast_tokenizer=True,low_cpu_mem_usage=true,logits_cache=False"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}{% if short %}s{% endif %}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% if tone %} [{{ tone }}]{% endif %}{% endif %}"
)


def test_every_argument_of_lm_eval_is_taken_or_named() -> None:
    """Case model_args_of_lm_eval: most were refused with a list of names."""
    theirs = set(inspect.signature(HFLM.__init__).parameters) - {"self", "kwargs"}
    assert theirs <= set(LOADING_ARGS) | set(LM_ARGS) | set(CHANGES_NOTHING) | set(SENTENCES)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("device=cpu", "device is a flag here: --device cpu"),
        ("batch_size=4", "batch_size is a flag here: --batch_size 4"),
        ("max_batch_size=8", "--batch_size auto finds what fits"),
        ("max_gen_toks=64", "not of the model: --gen_kwargs max_gen_toks=64"),
        ("temperature=0.7", "--gen_kwargs temperature=0.7"),
        ("truncation=True", "too long prompts are cut at their beginning"),
        ("softmax_dtype=bfloat16", "log-probabilities are computed in float32"),
        ("use_fast_tokenizer=False", "transformers 5 has the fast tokenizers alone"),
        ("logits_cache=maybe", "where true or false is due"),
        ("parallelize=2", "where true or false is due"),
        ("max_memory_per_gpu=10GiB", "CUDA_VISIBLE_DEVICES"),
        ("max_cpu_memory=10GiB", "CUDA_VISIBLE_DEVICES"),
        ("offload_folder=here", "CUDA_VISIBLE_DEVICES"),
        ("tp_plan=auto", "device_map=auto"),
        ("delta=./d", "save the sum, and name its folder"),
        ("autogptq=True", "as its config.json says"),
        ("gptqmodel=true", "as its config.json says"),
        ("load_in_8bit=True", "use --quantization nf4 or int8"),
        ("bnb_4bit_quant_type=nf4", "use --quantization nf4 or int8"),
        ("quantization=nf4", "is a flag here: --quantization nf4"),
        ("torch_dtype=float16", "dtype=float16"),
        ("cache_dir=/x", "set HF_HOME"),
        ("token=abc", "set HF_TOKEN in the environment"),
        ("backend=both", "none of default, causal and seq2seq"),
        ("mixed_precision_dtype=auto", "dtype 'auto' is unknown"),
        ("subfolder=step1", "subfolder needs pretrained="),
        ("enable_thinking=True", "needs think_end_token="),
        ("chat_template_args=loud", "where a JSON object is due"),
        ('chat_template_args={"tokenize": true}', "tokenize is said already"),
    ],
)
def test_what_is_said_otherwise_is_named(word: str, sentence: str) -> None:
    name, _, value = word.partition("=")
    with pytest.raises(HarnessError) as told:
        resolve({name: value})
    assert sentence in str(told.value) and name.removeprefix("mixed_precision_") in str(told.value)
    assert "abc" not in str(told.value)


@pytest.mark.parametrize("value", ["True", "true", True, "False", "false", False, "none", None])
def test_truths_are_spelled_as_one_likes(value: Any) -> None:
    given = {"pretrained": "a/model", "low_cpu_mem_usage": value, "logits_cache": value, "parallelize": value}
    assert resolve(given).device_map == ("auto" if str(value).lower() == "true" else None)
    assert changes_nothing("logits_cache", value) == (str(value).lower() != "none")


def test_a_checkpoint_in_a_subfolder_is_taken_whole(
    tmp_path: Path, fresh: None, evaluate: Command, cli: Command, own_tasks: Path, records: Any
) -> None:
    build_model(tmp_path / "steps" / "step1")
    build_model(tmp_path / "steps" / "step2", rms_norm_eps=0.1)
    first, second = (resolve({"pretrained": str(tmp_path / "steps"), "subfolder": f"step{n}"}) for n in (1, 2))
    assert first.name == second.name == "steps" and first.digest != second.digest
    assert first.config.rms_norm_eps != second.config.rms_norm_eps == 0.1
    with pytest.raises(HarnessError, match="has no subfolder 'step3'"):
        resolve({"pretrained": str(tmp_path / "steps"), "subfolder": "step3"})
    flags = ["--include_path", own_tasks, "--tasks", "colours"]
    args = f"pretrained={tmp_path / 'steps'},subfolder=step1"
    assert cli("eval", "--model_args", f"{args},parallelize=True,{HARMLESS}", *flags, "--output_path", "out").code == 0
    assert evaluate("--output_path", "plain", model=tmp_path / "steps" / "step1").code == 0
    [found], [plain] = records(Path("out")), records(Path("plain"))
    assert found["value"] == plain["value"] and found["model"]["digest"] == plain["model"]["digest"]
    assert found["settings"]["model_args"] == {"subfolder": "step1", "parallelize": "True"}


def test_a_chat_template_gets_its_arguments_and_the_record_holds_them(
    tmp_path: Path, fresh: None, cli: Command, own_tasks: Path, records: Any
) -> None:
    folder = build_model(tmp_path / "chatty")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    lm = load_lm(
        resolve({"pretrained": str(folder), "chat_template_args": {"short": True, "tone": "calm"}}),
        device="cpu",
        batch_size=1,
    )
    assert lm.apply_chat_template([{"role": "user", "content": "hi"}]) == "users: hi\nassistant: [calm]"
    flags = ["--include_path", own_tasks, "--tasks", "colours", "--apply_chat_template", "--output_path", "out"]
    for more in ("", ',chat_template_args={"short":true,"tone":"calm"}'):
        assert cli("eval", "--model_args", f"pretrained={folder}{more}", *flags).code == 0
    made = {json.dumps(record["settings"]["model_args"]): record["samples"]["path"] for record in records(Path("out"))}
    assert len(made) == 2 and len(set(made.values())) == 2
    assert any("calm" in args for args in made)
