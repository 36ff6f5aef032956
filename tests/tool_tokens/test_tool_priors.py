"""Prior vectors: the texts they are made of, what each kind is, and their lengths."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import HarnessError
from harness.models.causal import CausalLM
from harness.models.finding import resolve
from harness.models.loading import load_lm
from harness_tool_tokens.rows.naming import prior_texts
from harness_tool_tokens.rows.prior import PRIORS, prior_rows
from harness_tool_tokens.tools.tool import Tool
from harness_tool_tokens.tools.toolbox import Toolbox

TEXTS = ["clock", "the bank", "noon took four minutes"]


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> Any:
    return load_lm(resolve({"pretrained": str(tiny_model)}), device="cpu", batch_size=1)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def any_lm(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tiny_models import build_model

    folder = build_model(tmp_path_factory.mktemp("models") / "m", tie_word_embeddings=request.param)
    return load_lm(resolve({"pretrained": str(folder)}), device="cpu", batch_size=1)


def one_token(lm: Any) -> tuple[str, int]:
    """Return a text that is one token."""
    text = next(text for text in (lm.tokenizer.decode([number]) for number in range(300, 400)) if text.isalpha())
    [number] = lm.tokenizer.encode(text, add_special_tokens=False)
    return text, number


def hidden_of(lm: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        hidden: torch.Tensor = lm.model.model(torch.tensor([ids])).last_hidden_state[0]
    return hidden


def test_hidden_mean_of_a_one_token_name_is_that_tokens_final_hidden_state(any_lm: Any) -> None:
    """Acceptance property 6."""
    text, number = one_token(any_lm)
    for prior in ("hidden_mean", "hidden_last"):
        [row] = prior_rows(any_lm, [text], prior=prior)
        assert torch.allclose(row, hidden_of(any_lm, [number])[0], atol=1e-6)


def test_hidden_priors_are_the_mean_and_the_last_of_the_hidden_states(any_lm: Any) -> None:
    ids = any_lm.tokenizer.encode(TEXTS[2], add_special_tokens=False)
    states = hidden_of(any_lm, ids)
    assert torch.allclose(prior_rows(any_lm, TEXTS, prior="hidden_mean")[2], states.mean(0), atol=1e-6)
    assert torch.allclose(prior_rows(any_lm, TEXTS, prior="hidden_last")[2], states[-1], atol=1e-6)


def test_head_rows_and_input_rows_are_means_of_the_models_own(any_lm: Any) -> None:
    """Acceptance property 6."""
    text, number = one_token(any_lm)
    head, embeddings = any_lm.model.get_output_embeddings().weight, any_lm.model.get_input_embeddings().weight
    assert torch.equal(prior_rows(any_lm, [text], prior="head_rows")[0], head[number])
    assert torch.equal(prior_rows(any_lm, [text], prior="input_rows")[0], embeddings[number])
    ids = any_lm.tokenizer.encode(TEXTS[2], add_special_tokens=False)
    assert torch.allclose(prior_rows(any_lm, TEXTS, prior="head_rows")[2], head[ids].mean(0))


@pytest.mark.parametrize("prior", PRIORS)
def test_the_order_of_tools_permutes_rows_only(lm: Any, prior: Any) -> None:
    """Acceptance property 6."""
    rows = prior_rows(lm, TEXTS, prior=prior, length=0.5, seed=3)
    assert rows.shape == (3, 32) and rows.dtype == torch.float32 and not rows.requires_grad
    assert torch.equal(prior_rows(lm, TEXTS[::-1], prior=prior, length=0.5, seed=3), rows.flip(0))


@pytest.mark.parametrize("prior", PRIORS)
def test_adding_a_tool_leaves_the_rows_of_others(lm: Any, prior: Any) -> None:
    """Acceptance property 18."""
    rows = prior_rows(lm, TEXTS, prior=prior, length="unit/sqrt(d)")
    assert torch.equal(prior_rows(lm, ["sweets", *TEXTS], prior=prior, length="unit/sqrt(d)")[1:], rows)


@pytest.mark.parametrize("prior", [prior for prior in PRIORS if prior != "zeros"])
@pytest.mark.parametrize(("length", "expected"), [("unit/sqrt(d)", 1 / math.sqrt(32)), (2.5, 2.5), ("0.5", 0.5)])
def test_rows_have_the_length_asked_for(lm: Any, prior: Any, length: Any, expected: float) -> None:
    """Acceptance property 6."""
    for centre in (False, True):
        rows = prior_rows(lm, TEXTS, prior=prior, centre=centre, length=length)
        assert torch.allclose(rows.double().norm(dim=1), torch.full((3,), expected).double(), atol=1e-6, rtol=0)


def test_word_mean_is_the_mean_length_of_the_heads_rows(any_lm: Any) -> None:
    """Acceptance property 6."""
    expected = any_lm.model.get_output_embeddings().weight.double().norm(dim=1).mean()
    lengths = prior_rows(any_lm, TEXTS, prior="hidden_mean", length="word_mean").double().norm(dim=1)
    assert torch.allclose(lengths, expected.expand(3), atol=1e-6, rtol=0)


def test_centring_takes_the_mean_over_tools_away(lm: Any) -> None:
    rows = prior_rows(lm, TEXTS, prior="hidden_mean")
    assert torch.allclose(prior_rows(lm, TEXTS, prior="hidden_mean", centre=True), rows - rows.mean(0))
    with pytest.raises(HarnessError, match="there is one tool; leave centre out"):
        prior_rows(lm, TEXTS[:1], prior="hidden_mean", centre=True)


def test_random_rows_follow_the_seed_and_differ_between_tools_of_one_name(lm: Any) -> None:
    """Acceptance property 9."""
    rows = prior_rows(lm, ["clock", "clock"], prior="random", seed=1)
    assert torch.equal(rows, prior_rows(lm, ["clock", "clock"], prior="random", seed=1))
    assert not torch.equal(rows[0], rows[1]) and not torch.equal(rows, prior_rows(lm, ["clock"] * 2, prior="random"))
    assert rows.abs().max() <= 1 / math.sqrt(32)


def test_zeros_stay_zeros_whatever_the_length(lm: Any) -> None:
    """Acceptance property 2."""
    rows = prior_rows(lm, TEXTS, prior="zeros", centre=True, length="word_mean")
    assert torch.equal(rows, torch.zeros(3, 32))
    assert torch.equal(torch.randn(5, 32) @ rows.T, torch.zeros(5, 3))


def test_brackets_underscores_and_capitals_of_names_do_not_matter() -> None:
    """Acceptance property 6."""

    def texts(name: str, *more: str) -> list[str]:
        return prior_texts(Toolbox((Tool("P1408", name, "gets the places"),)), *more)

    assert texts("<add>") == texts("[add]") == texts("add") == ["add"]
    assert texts("broadcasted_places") == ["broadcasted places"]
    assert texts("schoolDistrict") == ["school District"] and texts("HTTPServer2Go") == ["HTTP Server2 Go"]
    assert texts("[WALK]") == ["WALK"] and texts("<>") == ["P1408"]
    assert texts("a_b", "{description}") == ["gets the places"]
    assert texts("a_b", "{name+description}") == ["a b: gets the places"]
    assert texts("a_b", "Call {name} now") == ["Call a b now"]


def test_a_tool_without_a_description_is_described_by_its_name() -> None:
    assert prior_texts(Toolbox((Tool("a", "a_b"),)), "{description}") == ["a b"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prior": "hiden_mean"}, "did you mean 'hidden_mean'"),
        ({"length": "long"}, "'long' is no length"),
        ({"length": -1.0}, "is no length"),
        ({"length": float("nan")}, "is no length"),
        ({"texts": ["a", ""]}, "has no tokens"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(lm: Any, changes: dict[str, Any], says: str) -> None:
    settings: dict[str, Any] = {"texts": TEXTS, "prior": "head_rows"} | changes
    with pytest.raises(HarnessError, match=says):
        prior_rows(lm, settings.pop("texts"), **settings)


def test_templates_and_uses_that_are_unknown_are_refused() -> None:
    toolbox = Toolbox((Tool("a", "a", "b"),))
    with pytest.raises(HarnessError, match="has no slot"):
        prior_texts(toolbox, "Call it")
    with pytest.raises(HarnessError, match=r"write \{name\}, \{description\} or"):
        prior_texts(toolbox, "{descripton}")


def test_a_head_whose_weights_are_packed_is_read_through_its_answers(lm: Any, tiny_model: Path) -> None:
    """Acceptance property 21."""

    class Packed(torch.nn.Module):
        def __init__(self, inner: torch.nn.Linear) -> None:
            super().__init__()
            self.weight = inner.weight.detach().to(torch.bfloat16).view(torch.uint8)
            self.inner = [inner]

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.inner[0](hidden)
            return answer + 3.0

    other = load_lm(resolve({"pretrained": str(tiny_model)}), device="cpu", batch_size=1)
    other.model.lm_head = Packed(other.model.lm_head)
    for length in ("keep", "word_mean"):
        expected = prior_rows(lm, TEXTS, prior="head_rows", length=length)
        assert torch.allclose(prior_rows(other, TEXTS, prior="head_rows", length=length), expected, atol=1e-5)


@pytest.fixture(scope="module", params=["normalizer", "pre-tokenizer"])
def sentencepiece(request: pytest.FixtureRequest) -> Any:
    """A tokenizer of the sentencepiece kind, which puts a space before every text: in either place where files have it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "</s>", "▁", "▁clock", "▁the", "▁bank", *"abcdefghijklmnopqrstuvwxyz"]
    backend = Tokenizer(models.Unigram([(word, -1.0 * min(number, 9)) for number, word in enumerate(words)], unk_id=0))
    if request.param == "normalizer":  # as Llama 2 has it: the space comes on top of one that is there
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


@pytest.mark.parametrize("prior", ["head_rows", "input_rows", "hidden_mean"])
def test_a_space_before_a_name_is_no_token_where_the_tokenizer_puts_one_itself(
    model: Any, sentencepiece: Any, prior: Any
) -> None:
    """Demand: the prior of " clock" is the row of that word alone, and the same as that of "clock"."""
    lm = CausalLM(model, sentencepiece)
    [word] = sentencepiece.encode("clock", add_special_tokens=False)
    assert word == sentencepiece.convert_tokens_to_ids("▁clock")
    spaced, bare = prior_rows(lm, [" clock", "clock"], prior=prior)
    assert torch.equal(spaced, bare)
    if prior == "head_rows":
        assert torch.equal(spaced, model.get_output_embeddings().weight[word].detach())
        [two] = prior_rows(lm, [" the bank"], prior=prior)
        rows = model.get_output_embeddings().weight[sentencepiece.convert_tokens_to_ids(["▁the", "▁bank"])]
        assert torch.allclose(two, rows.mean(0).detach())


def test_a_space_before_a_name_stays_where_it_belongs_to_the_token(model: Any, tokenizer: Any) -> None:
    """Demand: byte-level tokenizers have the word with its space as one token; that is the one whose row counts."""
    lm = CausalLM(model, tokenizer)
    [word] = tokenizer.encode(" the", add_special_tokens=False)
    assert [word] != tokenizer.encode("the", add_special_tokens=False)
    [row] = prior_rows(lm, [" the"], prior="head_rows")
    assert torch.equal(row, model.get_output_embeddings().weight[word].detach())
