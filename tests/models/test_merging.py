"""Adapters that come with a model: merged where that changes no answer, active where it would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from lm_eval.api.instance import Instance
from small_runs import Command
from tiny_models import build_model, build_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from harness import HarnessError
from harness.methods.hidden_states import Frozen
from harness.models.finding import resolve
from harness.models.loading import load_lm
from harness.models.merging import with_adapter

TASK = """\
task: case_adapter
custom_dataset: !function rows.make
test_split: test
output_type: loglikelihood
doc_to_text: "{{q}}"
doc_to_target: "{{t}}"
target_delimiter: ""
process_results: !function rows.score
metric_list: [{metric: loglikelihood_sum, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""
PAIRS = [("The clockmaker's shop stood", " between a bakery and a bank"), ("Which is right?", " None of them")]
ROWS = f"""\
from datasets import Dataset


def make(**_):
    return {{"test": Dataset.from_list([{{"q": q, "t": t}} for q, t in {PAIRS!r}])}}


def score(doc, results):
    return {{"loglikelihood_sum": results[0][0]}}
"""
IDS = torch.tensor([[*range(20, 40), 5, 6, 7, 300]])
Make = Callable[..., tuple[Any, Path]]


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS).logits[0, -IDS.shape[1] :].double()
    return found


@torch.no_grad()
def scores(model: Any, tokenizer: Any) -> list[float]:
    """Return the log-likelihood of each pair, one forward pass each."""
    found = []
    for context, continuation in PAIRS:
        start = len(tokenizer.encode(context, add_special_tokens=False))
        ids = tokenizer.encode(context + continuation, add_special_tokens=False)
        rows = torch.log_softmax(model(torch.tensor([ids])).logits[0, -len(ids) :].double(), -1)
        found.append(sum(rows[place - 1, ids[place]].item() for place in range(start, len(ids))))
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose head is its embeddings."""
    return build_model(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture
def make(base: Path, tmp_path: Path) -> Make:
    """Return a function that saves an adapter with an effect, and gives the model with it, active, and its folder."""

    def adapter(config: peft.PeftConfig, *, on: Path = base, task: str | None = "CAUSAL_LM") -> tuple[Any, Path]:
        config.task_type = task
        torch.manual_seed(0)
        model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(on), config)
        torch.manual_seed(3)
        for weight in model.parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=0.2)
        model.save_pretrained(tmp_path / "adapter")
        return model.eval(), tmp_path / "adapter"

    return adapter


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A folder with the task."""
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "rows.py").write_text(ROWS, encoding="utf-8")
    (folder / "t.yaml").write_text(TASK, encoding="utf-8")
    return folder


def test_an_adapter_on_a_tied_head_scores_as_it_was_trained(
    base: Path, make: Make, case: Path, fresh: None, cli: Command, records: Any
) -> None:
    """Case lora_on_a_tied_head: merging added the delta to the one matrix that is head and embeddings."""
    active, folder = make(peft.LoraConfig(r=2, target_modules=["lm_head"]))
    right = scores(active, AutoTokenizer.from_pretrained(base))
    assert right == pytest.approx([-93.710, -35.553], abs=1e-3)
    task = ["--tasks", "case_adapter", "--include_path", case]
    assert cli("eval", "--model_args", f"pretrained={base},peft={folder}", *task, "--output_path", "a").code == 0
    assert cli("apply", "--model_args", f"pretrained={base},peft={folder}", "--output", "written").code == 0
    assert json.loads(Path("written/config.json").read_text(encoding="utf-8"))["tie_word_embeddings"] is False
    assert cli("eval", "--model_args", "pretrained=written", *task, "--output_path", "b").code == 0
    for out in ("a", "b"):
        [record] = records(Path(out))
        assert record["value"] == pytest.approx(sum(right) / 2, abs=1e-3)


@pytest.mark.parametrize(
    ("quantization", "config"),
    [
        ("none", lambda: peft.PromptTuningConfig(num_virtual_tokens=4)),
        ("none", lambda: peft.PrefixTuningConfig(num_virtual_tokens=4)),
        ("nf4", lambda: peft.LoraConfig(r=2, target_modules=["lm_head", "q_proj"])),
        ("int8", lambda: peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[5])),
    ],
)
def test_an_active_adapter_is_written_as_one_and_scores_the_same(
    base: Path, make: Make, fresh: None, cli: Command, quantization: str, config: Callable[[], peft.PeftConfig]
) -> None:
    active, folder = make(config())
    flags = ["--quantization", quantization]
    written = cli("apply", "--model_args", f"pretrained={base},peft={folder}", *flags, "--output", "written")
    assert written.code == 0 and "wrote a PEFT adapter" in written.out, written.err
    lms = [
        load_lm(
            resolve({"pretrained": str(base), "peft": str(one)}, quantization=quantization), device="cpu", batch_size=1
        )
        for one in (folder, "written")
    ]
    assert torch.allclose(logits(lms[0].model), logits(lms[1].model), atol=1e-5)
    if quantization == "none":
        assert torch.allclose(logits(lms[1].model), logits(active), atol=1e-5)


LORA = {"r": 2, "target_modules": ["q_proj"]}
# Each with whether the model's head and embeddings are one matrix afterwards.
KINDS: dict[str, tuple[Callable[[], peft.PeftConfig], bool]] = {
    "LoRA elsewhere": (lambda: peft.LoraConfig(r=2, target_modules=["down_proj"], lora_dropout=0.5), True),
    "LoRA on the embeddings": (lambda: peft.LoraConfig(r=2, target_modules=["embed_tokens"]), False),
    "LoRA on both": (lambda: peft.LoraConfig(r=2, target_modules=["embed_tokens", "lm_head"]), False),
    "LoRA on both, tied": (
        lambda: peft.LoraConfig(r=2, target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True),
        True,
    ),
    "DoRA": (lambda: peft.LoraConfig(r=2, target_modules=["lm_head"], use_dora=True), False),
    "rsLoRA": (lambda: peft.LoraConfig(r=2, target_modules=["lm_head"], use_rslora=True), False),
    "trained tokens": (lambda: peft.LoraConfig(**LORA, trainable_token_indices=[5, 6, 7]), True),
    "trained tokens of the head": (lambda: peft.LoraConfig(**LORA, trainable_token_indices={"lm_head": [5, 6]}), False),
    "trained tokens alone": (lambda: peft.TrainableTokensConfig(token_indices=[5, 6, 7]), True),
    "a saved head": (lambda: peft.LoraConfig(**LORA, modules_to_save=["lm_head"]), False),
    "saved embeddings": (lambda: peft.LoraConfig(**LORA, modules_to_save=["embed_tokens"]), False),
    "both saved": (lambda: peft.LoraConfig(**LORA, modules_to_save=["embed_tokens", "lm_head"]), False),
    "both saved, tied": (
        lambda: peft.LoraConfig(**LORA, modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=True),
        True,
    ),
    "IA3": (lambda: peft.IA3Config(target_modules=["lm_head"], feedforward_modules=[]), False),
    "LoHa": (lambda: peft.LoHaConfig(r=2, target_modules=["lm_head"]), False),
    "LoKr": (lambda: peft.LoKrConfig(r=2, target_modules=["q_proj"]), True),
    "OFT": (lambda: peft.OFTConfig(r=0, oft_block_size=4, target_modules=["q_proj"]), True),
    "VeRA": (lambda: peft.VeraConfig(r=2, target_modules=["q_proj"]), True),
    "norms": (lambda: peft.LNTuningConfig(target_modules=["norm"]), True),
    "of another task": (lambda: peft.LoraConfig(**LORA), True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_answers_as_with_the_adapter_and_so_does_what_is_saved(
    base: Path, make: Make, tmp_path: Path, kind: str
) -> None:
    config, is_tied = KINDS[kind]
    active, folder = make(config(), task="SEQ_CLS" if kind == "of another task" else "CAUSAL_LM")
    right = logits(active)
    model, reason = with_adapter(lambda: AutoModelForCausalLM.from_pretrained(base), str(folder), name="base")
    assert reason is None and not hasattr(model, "peft_config")
    assert torch.allclose(logits(model), right, atol=1e-4)
    head, embeddings = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (head.data_ptr() == embeddings.data_ptr()) == is_tied == model.config.tie_word_embeddings
    assert not any(module.training for module in model.modules())
    model.save_pretrained(tmp_path / "saved")
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "saved")), right, atol=1e-4)


ACTIVE: dict[str, Callable[[], peft.PeftConfig]] = {
    "prompt tuning": lambda: peft.PromptTuningConfig(num_virtual_tokens=4),
    "prefix tuning": lambda: peft.PrefixTuningConfig(num_virtual_tokens=4),
    "projected prefixes": lambda: peft.PrefixTuningConfig(
        num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=16
    ),
    "p-tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=16),
    "CPT": lambda: peft.CPTConfig(
        cpt_token_ids=[1, 2, 3, 4], cpt_mask=[1] * 4, cpt_tokens_type_mask=[1, 2, 3, 4], task_type="CAUSAL_LM"
    ),
    "adaption prompts": lambda: peft.AdaptionPromptConfig(adapter_len=2, adapter_layers=1),
    "a bias that no layer has": lambda: peft.LoraConfig(**LORA, lora_bias=True),
}


@pytest.mark.parametrize("kind", ACTIVE)
def test_an_adapter_that_cannot_be_merged_is_active(base: Path, make: Make, kind: str) -> None:
    """Case prompt_tuning_adapter: what cannot be merged was refused."""
    active, folder = make(ACTIVE[kind]())
    lm = load_lm(resolve({"pretrained": str(base), "peft": str(folder)}), device="cpu", batch_size=2)
    right = scores(active, lm.tokenizer)
    asked = [Instance("loglikelihood", {}, pair, 0, ("t", number, 1)) for number, pair in enumerate(PAIRS)]
    assert [score for score, _ in lm.loglikelihood(asked)] == pytest.approx(right, abs=1e-3)
    text = PAIRS[0][0] + PAIRS[0][1]
    ids = lm.tokenizer.encode(text)
    rolled = [Instance("loglikelihood_rolling", {}, (text,), 0, ("t", 0, 1))]
    tokens = [Instance("token_loglikelihoods", {}, (text, tuple(ids)), 0, ("t", 0, 1))]
    assert sum(lm.token_loglikelihoods(tokens)[0]) == pytest.approx(lm.loglikelihood_rolling(rolled)[0], abs=1e-3)
    asked = [
        Instance("generate_until", {}, (context, {"until": ["\n\n"], "max_gen_toks": 6}), 0, ("t", number, 1))
        for number, (context, _) in enumerate(PAIRS)
    ]
    assert lm.generate_until(asked) == [greedy(active, lm.tokenizer, context, 6) for context, _ in PAIRS]
    assert lm.max_length == 256 - (4 if active.active_peft_config.is_prompt_learning else 0)


@torch.no_grad()
def greedy(model: Any, tokenizer: Any, text: str, most: int) -> str:
    ids = tokenizer.encode(text)
    start = len(ids)
    while len(ids) < start + most and (not ids[start:] or ids[-1] != tokenizer.eos_token_id):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True))


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("target", ["lm_head", "q_proj"])
def test_on_quantised_weights_an_adapter_is_active(base: Path, make: Make, quantization: str, target: str) -> None:
    _, folder = make(peft.LoraConfig(r=2, target_modules=[target]))
    source = resolve({"pretrained": str(base), "peft": str(folder)}, quantization=quantization)
    lm = load_lm(source, device="cpu", batch_size="auto")
    assert hasattr(lm.model, "peft_config") and not any(module.training for module in lm.model.modules())
    asked = [Instance("loglikelihood", {}, pair, 0, ("t", number, 1)) for number, pair in enumerate(PAIRS)]
    assert [score for score, _ in lm.loglikelihood(asked)] == pytest.approx(scores(lm.model, lm.tokenizer), abs=1e-2)
    if target == "lm_head":
        assert lm.loglikelihood(asked)[0][0] == pytest.approx(-93.7, abs=0.6)
    assert (lm.work.reason is None) == (quantization == "nf4")


@pytest.mark.parametrize(
    "more",
    [{"modules_to_save": ["embed_tokens", "lm_head"]}, {"trainable_token_indices": [400, 401]}],
    ids=["saved", "tokens"],
)
def test_an_adapter_brings_the_rows_it_was_trained_with(
    base: Path, make: Make, tmp_path: Path, more: dict[str, Any]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<call>", "<end>"], special_tokens=True)
    wide = AutoModelForCausalLM.from_pretrained(base)
    wide.resize_token_embeddings(len(tokenizer))
    wide.save_pretrained(tmp_path / "wide")
    active, folder = make(peft.LoraConfig(**LORA, **more), on=tmp_path / "wide")
    tokenizer.save_pretrained(folder)
    args = {"pretrained": str(base), "peft": str(folder), "tokenizer": str(folder)}
    lm = load_lm(resolve(args), device="cpu", batch_size=1)
    assert torch.allclose(logits(lm.model), logits(active), atol=1e-4)
    ids = lm.tokenizer.encode("<call>None<end>")
    assert {400, 401} <= set(ids)
    asked = [Instance("token_loglikelihoods", {}, ("", tuple(ids)), 0, ("t", 0, 1))]
    rows = torch.log_softmax(active(torch.tensor([[0, *ids]])).logits[0].detach().double(), -1)
    assert lm.token_loglikelihoods(asked)[0] == pytest.approx([float(rows[n, i]) for n, i in enumerate(ids)], abs=1e-3)


def test_an_adapter_that_is_not_there_is_told_before_weights(base: Path) -> None:
    with pytest.raises(HarnessError, match=r"no adapter folder at './nowhere'"):
        resolve({"pretrained": str(base), "peft": "./nowhere"})
    with pytest.raises(HarnessError, match=r"is no adapter folder: it has no adapter_config.json"):
        resolve({"pretrained": str(base), "peft": str(base)})
    with pytest.raises(HarnessError, match=r"no adapter folder at './nowhere'"):
        resolve({"peft": "./nowhere"})  # on the embedded model as well


@pytest.mark.parametrize(
    ("config", "files", "said"),
    [
        ("{", (), "adapter_config.json in .* is not valid JSON"),
        ("[]", (), "names no peft_type"),
        ('{"peft_type": 3}', (), "names no peft_type"),
        ('{"peft_type": "LORA"}', (), "has no weights"),
        ('{"peft_type": "LORA"}', ("adapter_model.safetensors/",), "has no weights"),
    ],
)
def test_a_folder_that_is_half_an_adapter_is_told_before_weights(
    config: str, files: tuple[str, ...], said: str, base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(config)
    for name in files:
        (folder / name).mkdir()
    with pytest.raises(HarnessError, match=said):
        resolve({"pretrained": str(base), "peft": str(folder)})


def test_an_adapter_for_a_wider_model_is_told_before_weights(base: Path, make: Make, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(base)
    config.hidden_size, config.head_dim = 2 * config.hidden_size, 2 * config.hidden_size // config.num_attention_heads
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wide")
    _, folder = make(peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]), on=tmp_path / "wide")
    with pytest.raises(
        HarnessError, match=r"made for another model \(.*down_proj is 64 x 64 there, and 32 x 64 here\)"
    ):
        resolve({"pretrained": str(base), "peft": str(folder)}).check()


def test_hidden_states_are_not_read_where_virtual_tokens_stand_before_the_text(base: Path, make: Make) -> None:
    _, folder = make(peft.PromptTuningConfig(num_virtual_tokens=4))
    source = resolve({"pretrained": str(base), "peft": str(folder), "max_length": 256})
    lm = load_lm(source, device="cpu", batch_size=1)
    assert lm.max_length == 252  # the model has 256 places
    with pytest.raises(HarnessError, match="its adapter puts virtual tokens before the text"):
        Frozen(lm)


def test_an_adapter_of_an_encoder_decoder_is_read_as_well(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = T5Config(vocab_size=400, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    build_tokenizer().save_pretrained(tmp_path / "t5")
    plain = T5ForConditionalGeneration.from_pretrained(tmp_path / "t5")
    lora = peft.LoraConfig(r=2, target_modules=["q", "lm_head"], task_type="SEQ_2_SEQ_LM", init_lora_weights=False)
    active = peft.get_peft_model(plain, lora).eval()
    active.save_pretrained(tmp_path / "a")
    args = {"pretrained": str(tmp_path / "t5"), "peft": str(tmp_path / "a")}
    lm = load_lm(resolve(args), device="cpu", batch_size=1)
    found, right = (model(input_ids=IDS, labels=IDS).logits for model in (lm.model, active))
    assert torch.allclose(found, right, atol=1e-4) and not hasattr(lm.model, "peft_config")


@pytest.mark.parametrize(
    ("config", "layers", "words"),
    [
        (lambda: peft.LoraConfig(**LORA), 1, r"it has weights for layers that the model does not have \(base_model"),
        (lambda: peft.LoraConfig(**LORA), 3, r"it lacks weights of its layers \('base_model.model.model.layers.2"),
        (lambda: peft.PolyConfig(r=2, n_tasks=2, n_skills=2, n_splits=1, target_modules=["q_proj"]), 2, "task_ids"),
        (lambda: peft.LoraConfig(r=2, target_modules=["lm_head"]), 0, "no file or folder"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(make: Make, base: Path, config: Any, layers: int, words: str) -> None:
    _, folder = make(config())
    shape = LlamaConfig.from_pretrained(base, num_hidden_layers=layers or 2)
    if not layers:
        folder, words = folder / "nowhere", "cannot be put on 'small'"
    with pytest.raises(HarnessError, match=words):
        with_adapter(lambda: LlamaForCausalLM(shape), str(folder), name="small")
