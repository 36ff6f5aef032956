"""What a checkpoint or a tokenizer has too much of: told where answers do not depend on it, refused where they may."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval_answers import asking
from safetensors.torch import load_file, save_file
from small_runs import Command
from tiny_models import build_model, build_tokenizer
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPTNeoConfig, GPTNeoForCausalLM

from harness import HarnessError
from harness.models.causal import CausalLM
from harness.models.finding import resolve
from harness.models.leftovers import is_beside
from harness.models.loading import load_lm, load_model

PLACES = 128
MASK = torch.tril(torch.ones(PLACES, PLACES, dtype=torch.bool))[None, None]
TEXTS = [("The clockmaker's shop stood", " between a bakery and a bank"), ("Which is right?", " None of them")]


def load(folder: Path) -> CausalLM:
    lm = load_lm(resolve({"pretrained": str(folder)}), device="cpu", batch_size="auto")
    assert isinstance(lm, CausalLM)
    return lm


def answers(folder: Path) -> list[tuple[float, bool]]:
    return load(folder).loglikelihood(asking("loglikelihood", *TEXTS))


def write_more(folder: Path, more: dict[str, torch.Tensor]) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | more, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def olds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A GPT-Neo and a GPT-2."""
    tokenizer, folder = build_tokenizer(), tmp_path_factory.mktemp("olds")
    ends = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0}
    kinds: list[list[Any]] = [[["global", "local"], 1]]
    neo = GPTNeoConfig(
        **ends,
        max_position_embeddings=PLACES,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=kinds,
        window_size=16,
    )
    gpt2 = GPT2Config(**ends, n_positions=PLACES, n_embd=32, n_layer=2, n_head=4)
    for name, model in (("neo", GPTNeoForCausalLM(neo)), ("gpt2", GPT2LMHeadModel(gpt2))):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in ("neo", "gpt2")}


@pytest.mark.parametrize(("name", "part"), [("neo", "attn.attention"), ("gpt2", "attn")])
def test_old_masks_and_value_heads_are_told_and_change_nothing(
    olds: dict[str, Path], name: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Case old_mask_buffers: masks that older releases saved beside the weights were refused."""
    right = answers(olds[name])
    more: dict[str, torch.Tensor] = {}
    for layer in range(2):
        more[f"transformer.h.{layer}.{part}.bias"] = MASK.clone()
        more[f"transformer.h.{layer}.{part}.masked_bias"] = torch.tensor(-1e9)
    more |= {"v_head.summary.weight": torch.ones(1, 32), "v_head.summary.bias": torch.ones(1)}
    write_more(olds[name], more)
    capsys.readouterr()
    assert answers(olds[name]) == right
    assert f"{name} has tensors that answers do not depend on, which are left out: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "shape", "is_left"),
    [
        ("transformer.h.0.attn.bias", (1, 1, 8, 8), True),
        ("h.0.attn.bias", (1, 1, 8, 8), True),
        ("transformer.h.0.attn.bias", (96,), False),
        ("transformer.h.0.attn.bias", (1, 4, 8, 8), False),
        ("transformer.h.0.attn.masked_bias", (), True),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (4,), True),
        ("model.embeddings.position_ids", (1, 128), True),
        ("model.layers.0.attn.norm_constant", (), True),
        ("model.layers.0.mlp.down_proj.weight_scale", (), False),
        ("model.layers.0.layer_scalar", (1,), False),
        ("model.layers.0.self_attn.gate", (1,), False),
        ("score.weight", (2, 32), True),
        ("summary.bias", (1,), True),
        ("classifier.out_proj.weight", (2, 32), True),
        ("v_head.summary.weight", None, True),
        ("model.layers.0.score.weight", (2, 32), False),
        ("model.layers.2.mlp.up_proj.weight", (64, 32), False),
        ("model.norm2.weight", (1,), False),
        ("rm_head.weight", (1, 32), True),
        ("output_head.weight", (400, 32), False),
        ("lm_head.bias", (400,), False),
        ("lm_head.bias", (8,), False),
        ("model.layers.0.thing", None, False),
    ],
)
def test_what_no_layer_reads_is_told_from_what_would_be_missed(
    name: str, shape: tuple[int, ...] | None, is_left: bool
) -> None:
    assert is_beside(name, lambda _: shape) == is_left


@pytest.fixture
def longer(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that gives a model whose tokenizer has more ids than it embeds."""

    def make(*names: str, **special: str) -> Path:
        folder = build_model(tmp_path / "longer")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(list(names), special_tokens=True)
        tokenizer.add_special_tokens(special)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def test_a_token_that_no_text_holds_is_no_reason_to_refuse(
    tiny_model: Path, longer: Callable[..., Path], fresh: None, evaluate: Command, records: Any
) -> None:
    """Case tokenizer_longer_than_model: one id for a picture, beyond the last embedding."""
    assert evaluate(model=longer("<picture>")).code == 0
    assert evaluate("--output_path", "right").code == 0
    [found], [right] = records(Path("out")), records(Path("right"))
    assert found["value"] == right["value"]


def test_a_text_that_holds_it_is_named(longer: Callable[..., Path]) -> None:
    lm = load(longer("<picture>"))
    words = r"request 0 of document 1 in task 'asked' \(.*\): the tokenizer gives token 400, but the model has embeddings for 400"
    for kind, fine, arguments in (
        ("loglikelihood", ("a", " b"), ("See <picture>", " here")),
        ("loglikelihood_rolling", ("a",), ("See <picture> here",)),
        ("generate_until", ("a", {"max_gen_toks": 2}), ("See <picture>", {"max_gen_toks": 2})),
        ("generate_until", ("a", {"max_gen_toks": 2}), ("See <picture>", {"max_gen_toks": 2, "do_sample": True})),
        ("token_loglikelihoods", ("a", (3,)), ("See <picture>", (3, 400))),
    ):
        with pytest.raises(HarnessError, match=words):
            getattr(lm, kind)(asking(kind, fine, arguments))


def test_texts_are_padded_with_a_token_that_the_model_embeds(longer: Callable[..., Path], tiny_model: Path) -> None:
    lm, right = load(longer(pad_token="<pad>")), load(tiny_model)
    drawn = {"max_gen_toks": 4, "num_beams": 2}
    asked = [(text, drawn) for text in ("The clockmaker", "It was never quiet, and so", "None")]
    lm.settings["batch_size"] = right.settings["batch_size"] = 3
    for one in (lm, right):
        one._budget.rows = 3
    assert lm.generate_until(asking("generate_until", *asked)) == right.generate_until(asking("generate_until", *asked))


def test_ids_that_usual_text_has_are_refused_before_weights(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    build_tokenizer(420).save_pretrained(folder)
    with pytest.raises(
        HarnessError, match="has 420 ids, but the model embeds 400; name the tokenizer it was trained with"
    ):
        resolve({"pretrained": str(folder)}).check()


def test_an_id_that_is_put_before_every_text_is_refused(longer: Callable[..., Path]) -> None:
    from tokenizers.processors import TemplateProcessing

    folder = longer("<start>")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<start> $A", special_tokens=[("<start>", 400)]
    )
    tokenizer.save_pretrained(folder)
    with pytest.raises(HarnessError, match="has 401 ids, but the model embeds 400"):
        resolve({"pretrained": str(folder)}).check()


def test_more_places_than_were_learned_are_refused(tmp_path: Path) -> None:
    """Demand: not an IndexError while it is asked; a model whose positions are computed takes more."""
    tokenizer = build_tokenizer()
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=1, n_head=2))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(HarnessError, match=r"max_length is 65, but '.*' has learned 64 positions"):
        load_model(resolve({"pretrained": str(tmp_path), "max_length": 65}), device="cpu")
    load_model(resolve({"pretrained": str(tmp_path), "max_length": 64}), device="cpu")
