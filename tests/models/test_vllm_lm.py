"""``--model vllm``: the requests of a ``CausalLM``, by another engine; what it does not take is told before it is started."""

from __future__ import annotations

import copy
import json
import random
import shutil
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from block_cache import Blocks
from lm_eval_answers import asking, some_text

from harness import HarnessError
from harness.models import greedy
from harness.models.causal import CausalLM
from harness.models.finding import resolve
from harness.models.kinds import kind_of
from harness.models.vllm import loading
from harness.models.vllm.generating import settings_for
from harness.models.vllm.lm import VLLM
from harness.models.vllm.loading import shape_of
from harness.run import Run, evaluate
from harness.run.preparing import find_model

MAX_LENGTH = 64


@pytest.fixture
def vllm_lm(model: Any, tokenizer: Any) -> VLLM:
    """The LM whose engine is the same tiny model behind a cache of blocks."""
    return VLLM(copy.deepcopy(model).to("meta"), tokenizer, engine=lambda _: Blocks(model), max_length=MAX_LENGTH)


@pytest.fixture
def plain_lm(model: Any, tokenizer: Any) -> CausalLM:
    return CausalLM(model, tokenizer, max_length=MAX_LENGTH)


@pytest.fixture
def vllm_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed vLLM, as far as anybody looks before it is started."""
    there = ModuleType("vllm")
    there.__spec__ = ModuleSpec("vllm", None)
    monkeypatch.setitem(sys.modules, "vllm", there)


def some_pairs() -> list[tuple[str, str]]:
    draw = random.Random(3)
    shots = some_text(draw, 12)
    contexts = ["", *(f"{shots} {some_text(draw, size)}" for size in (1, 2, 5, 70))]
    choices = [" a", " b", f" {some_text(draw, 6)}", f" {some_text(draw, 3)}"]
    return [(context, choice) for context in contexts for choice in choices]


def test_scores_and_cuts_are_those_of_the_causal_lm(vllm_lm: VLLM, plain_lm: CausalLM) -> None:
    """Same ids, same windows, same cuts: every score within rounding, every flag equal."""
    requests = asking("loglikelihood", *some_pairs())
    ours, theirs = vllm_lm.loglikelihood(requests, True), plain_lm.loglikelihood(requests, True)
    assert [score for score, _ in ours] == pytest.approx([score for score, _ in theirs], abs=1e-3)
    assert [is_greedy for _, is_greedy in ours] == [is_greedy for _, is_greedy in theirs]
    assert vllm_lm.truncated == plain_lm.truncated and sum(vllm_lm.truncated.values())
    draw = random.Random(1)
    texts = asking("loglikelihood_rolling", *[(some_text(draw, size),) for size in (1, 20, 90)])
    assert vllm_lm.loglikelihood_rolling(texts, True) == pytest.approx(
        plain_lm.loglikelihood_rolling(texts, True), abs=2e-3
    )
    assert vllm_lm.work.check_tokens and vllm_lm.work.requested_tokens == plain_lm.work.requested_tokens
    assert vllm_lm.work.distinct_tokens == plain_lm.work.distinct_tokens


def test_scores_of_given_ids_are_those_of_the_causal_lm(vllm_lm: VLLM, plain_lm: CausalLM) -> None:
    draw = random.Random(2)
    requests = asking("token_loglikelihoods", *[("", [draw.randrange(300) for _ in range(n)]) for n in (1, 5, 200)])
    for ours, theirs in zip(
        vllm_lm.token_loglikelihoods(requests), plain_lm.token_loglikelihoods(requests), strict=True
    ):
        assert ours == pytest.approx(theirs, abs=1e-3)
    words = asking("tokenize", ("some words",))
    assert vllm_lm.tokenize(words) == plain_lm.tokenize(words)


def test_greedy_texts_are_those_of_the_causal_lm_and_each_is_told(vllm_lm: VLLM, plain_lm: CausalLM) -> None:
    """Texts end at their stop strings although an engine goes on beyond them; what is told is what is answered."""
    stop = plain_lm.generate_until(asking("generate_until", ("Once", {"max_gen_toks": 12})), True)[0][4:7]
    settings = [{"max_gen_toks": 12}, {"max_gen_toks": 12, "until": [stop]}, {"max_gen_toks": 3, "until": ["\n"]}]
    requests = asking("generate_until", *[(text, one) for text in ("Once", "the", "Once") for one in settings])
    told: list[str] = []
    vllm_lm.on_answer = lambda kind, arguments, answer: told.append(answer)
    texts = vllm_lm.generate_until(requests, True)
    assert texts == plain_lm.generate_until(requests, True)
    assert sorted(told) == sorted(texts) and vllm_lm.tells("generate_until") and vllm_lm.tells("loglikelihood")
    assert vllm_lm.generation == plain_lm.generation


def test_what_wants_the_weights_is_told_why_not_and_how(vllm_lm: VLLM, model: Any) -> None:
    for wants in (lambda: vllm_lm.forward(torch.zeros(1, 2)), vllm_lm.sharing, lambda: vllm_lm.replace(model=model)):
        with pytest.raises(HarnessError, match=r"harness apply.*--model vllm --model_args pretrained=FOLDER"):
            wants()
    again = vllm_lm.replace(tokenizer=vllm_lm.tokenizer)
    assert (again.engine, again.max_length) == (vllm_lm.engine, vllm_lm.max_length)


@pytest.mark.parametrize("plugin", ["stochastok", "tool_tokens"])
def test_a_method_that_needs_weights_is_refused_before_any_are_read(
    plugin: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Methods that need the weights in hand are refused with the reason and the way."""
    run = Run(
        tasks=("langgame_contains",), plugin=plugin, model="vllm", model_args={"pretrained": str(tiny_model)},
        limit=1, output_path=tmp_path,
    )  # fmt: skip
    with pytest.raises(HarnessError, match=rf"method '{plugin}' needs the weights in hand.*harness apply"):
        evaluate(run)


def test_without_vllm_one_sentence_says_what_to_install(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    run = Run(
        tasks=("langgame_contains",), model="vllm", model_args={"pretrained": str(tiny_model)}, limit=1,
        output_path=tmp_path,
    )  # fmt: skip
    with pytest.raises(HarnessError, match=r"vLLM, which is not installed: pip install 'token-harness\[vllm\]'"):
        evaluate(run)


@pytest.mark.usefixtures("vllm_here")
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"quantization": "nf4"}, "--quantization nf4 is bitsandbytes'.*--model hf"),
        (
            {"model_args": {"attn_implementation": "eager"}},
            "does not take attn_implementation: vLLM has kernels of its own",
        ),
        ({"model_args": {"device_map": "auto"}}, "does not take device_map: say --model_args tensor_parallel_size"),
        ({"model_args": {"mixed_precision_dtype": "float16"}}, "does not take mixed_precision_dtype"),
        ({"model_args": {"max_num_seqs": "many"}}, "max_num_seqs is"),
    ],
)
def test_what_vllm_does_not_take_is_told_with_what_to_do(given: dict[str, Any], says: str, tiny_model: Path) -> None:
    args = {"pretrained": str(tiny_model), **given.pop("model_args", {})}
    with pytest.raises(HarnessError, match=says):
        find_model(Run(tasks=("x",), model="vllm", model_args=args, **given))


def test_options_of_the_engine_are_for_it_alone(tiny_model: Path) -> None:
    args = {"pretrained": str(tiny_model), "tensor_parallel_size": 2}
    assert resolve(args).engine_args == {"tensor_parallel_size": 2}
    with pytest.raises(HarnessError, match="tensor_parallel_size is for --model vllm"):
        find_model(Run(tasks=("x",), model_args=args))


def test_the_shape_has_the_checkpoints_type_and_settings_and_no_weights(tiny_model: Path) -> None:
    plain = kind_of("hf").load(resolve({"pretrained": str(tiny_model)}), "cpu", "auto")
    shape = shape_of(resolve({"pretrained": str(tiny_model)}))
    assert {parameter.device.type for parameter in shape.parameters()} == {"meta"}
    assert shape.dtype == plain.model.dtype
    assert [p.shape for p in shape.parameters()] == [p.shape for p in plain.model.parameters()]
    assert greedy.own_settings(shape) == greedy.own_settings(plain.model)


def test_settings_of_texts_are_vllms_and_what_it_lacks_is_named(vllm_lm: VLLM) -> None:
    def told(settings: dict[str, Any]) -> dict[str, Any]:
        (request,) = asking("generate_until", ("Once", settings))
        asked = greedy.Wishes(vllm_lm, None)
        return settings_for(asked.wish(request, 3), asked.applied(request), request, seed=7)

    plain = told({"max_gen_toks": 5, "until": ["7"]})
    assert (plain["temperature"], plain["max_tokens"], plain["stop"][0]) == (0.0, 5, "7")
    drawn = told({"temperature": 0.7, "top_p": 0.9, "min_new_tokens": 2, "repetition_penalty": 1.2})
    expected = {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "min_tokens": 2, "repetition_penalty": 1.2, "seed": 7}
    assert drawn.items() >= expected.items()
    with pytest.raises(HarnessError, match="asks for num_beams=2, which vLLM does not do"):
        told({"num_beams": 2})


def test_a_run_by_another_engine_has_another_folder_and_another_row(tiny_model: Path, tmp_path: Path) -> None:
    """The engine decides the numbers: its runs are no repetition of torch's."""
    from harness.run.identity import Deciding, settings_of
    from harness.run.preparing import find_method

    run = Run(tasks=("langgame_contains",), model_args={"pretrained": str(tiny_model)}, limit=1, output_path=tmp_path)
    source = find_model(run)
    sides = [SimpleNamespace(run=one, source=source, plugin=None, method=find_method(one)[1])
             for one in (run, Run(tasks=run.tasks, model="vllm", model_args=run.model_args))]  # fmt: skip
    of_torch, of_vllm = (Deciding(side) for side in sides)  # type: ignore[arg-type]
    assert of_vllm.model == [*of_torch.model, "vllm"]
    roomy = replace(
        run, model="vllm", model_args={**run.model_args, "kv_cache_memory_bytes": 1 << 30, "max_num_seqs": 8}
    )
    assert settings_of(roomy, None) == settings_of(run, None)  # how much memory it has decides no number
    (record, *_) = evaluate(run)
    assert record.environment.engine is None
    other = record.model_copy(update={"environment": record.environment.model_copy(update={"engine": "vllm 0.32.0"})})
    assert other.board_key() != record.board_key()


def test_a_least_length_is_bounded_and_temperatures_that_vllm_would_change_are_refused(vllm_lm: VLLM) -> None:
    """What vLLM would refuse in words of its own, or do with another number, is told before anything is asked."""

    def told(settings: dict[str, Any]) -> dict[str, Any]:
        (request,) = asking("generate_until", ("Once", settings))
        asked = greedy.Wishes(vllm_lm, None)
        return settings_for(asked.wish(request, 3), asked.applied(request), request, seed=7)

    assert told({"min_new_tokens": 9, "max_gen_toks": 3})["min_tokens"] == 3
    for temperature in (2.5, 0.001):
        with pytest.raises(HarnessError, match=rf"asks for temperature={temperature}, and vLLM takes 0.01 to 2"):
            told({"temperature": temperature})


def test_a_text_of_logits_that_are_no_numbers_ends_its_task(model: Any, tokenizer: Any) -> None:
    """An arg-max of NaN is a token like any other: the request is named, as with torch."""
    shape = copy.deepcopy(model).to("meta")
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    lm = VLLM(shape, tokenizer, engine=lambda _: Blocks(model), max_length=MAX_LENGTH)
    with pytest.raises(HarnessError, match="got NaN logits while generating"):
        lm.generate_until(asking("generate_until", ("Once", {"max_gen_toks": 2})), True)


@pytest.fixture
def started(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vLLM that starts at once."""
    monkeypatch.setattr(loading, "check_installed", lambda: None)
    monkeypatch.setattr(loading, "place", lambda _: "cpu")
    monkeypatch.setattr(loading, "VllmEngine", lambda *_, **__: Blocks(model))


@pytest.mark.usefixtures("started")
def test_what_becomes_of_the_lms_tokenizer_does_not_move_the_models_identity(tiny_model: Path) -> None:
    source = resolve({"pretrained": str(tiny_model)})
    kind_of("vllm").check(source)
    kind_of("vllm").load(source, None, "auto").tokenizer.add_tokens(["<new>"])  # type: ignore[attr-defined]
    assert source.tokenizer_digests == resolve({"pretrained": str(tiny_model)}).tokenizer_digests


@pytest.mark.usefixtures("started")
def test_positions_that_depend_on_the_length_of_a_text_are_refused_beyond_it(tiny_model: Path, tmp_path: Path) -> None:
    """LongRoPE: torch changes to long factors with the text, vLLM has them for every text once it may have a long one."""
    folder = tmp_path / "long"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    half = config["hidden_size"] // config["num_attention_heads"] // 2
    config["rope_parameters"] = {
        "rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 32,
        "short_factor": [1.0] * half, "long_factor": [4.0] * half,
    }  # fmt: skip
    config["original_max_position_embeddings"] = 32
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(HarnessError, match=r"longer than 32 tokens.*max_length=31 or less"):
        kind_of("vllm").load(resolve({"pretrained": str(folder), "max_length": 32}), None, "auto")
    assert kind_of("vllm").load(resolve({"pretrained": str(folder), "max_length": 31}), None, "auto").max_length == 31  # type: ignore[attr-defined]
