"""Rows of embeddings and head: read and written, tied, untied and packed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness import HarnessError
from harness.methods import adapters
from harness.methods.embedding_rows import (
    head_rows,
    head_weight,
    input_rows,
    is_tied,
    write_head_rows,
    write_input_rows,
)

IDS = [300, 5, 42]
TEXT = torch.tensor([[5, 9, 42, 33]])


@torch.no_grad()
def logits(lm: Any) -> torch.Tensor:
    found: torch.Tensor = lm.model(TEXT).logits[0]
    return found


def with_packed_head(lm: Any, quantization: str) -> Any:
    """Pack the head as bitsandbytes does, which transformers leaves out where nobody asks."""
    import bitsandbytes as bnb

    plain = lm.model.lm_head
    if quantization == "nf4":
        packed = bnb.nn.Linear4bit(
            plain.in_features, plain.out_features, bias=False, compute_dtype=torch.float32, quant_type="nf4"
        )
        packed.weight = bnb.nn.Params4bit(plain.weight.detach().clone(), requires_grad=False, quant_type="nf4")
        packed.support_avx512bf16_for_cpu = False
    else:
        packed = bnb.nn.Linear8bitLt(plain.in_features, plain.out_features, bias=False, has_fp16_weights=False)
        packed.weight = bnb.nn.Int8Params(plain.weight.detach().clone(), requires_grad=False, has_fp16_weights=False)
    lm.model.lm_head = packed.to("cpu")
    return lm


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_rows_are_the_models_own(load: Any, tied: bool) -> None:
    lm = load(tied=tied)
    assert is_tied(lm) == tied
    assert torch.equal(head_rows(lm, IDS), lm.model.lm_head.weight[IDS])
    assert torch.equal(input_rows(lm, IDS), lm.model.model.embed_tokens.weight[IDS])
    assert torch.equal(head_rows(lm, IDS), input_rows(lm, IDS)) == tied
    assert head_rows(lm, []).shape == input_rows(lm, []).shape == (0, 64)
    for rows in (head_rows(lm, IDS), input_rows(lm, IDS)):
        assert rows.dtype == torch.float32 and not rows.requires_grad


@pytest.mark.parametrize("write", [write_head_rows, write_input_rows])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_rows_that_are_written_are_read_and_used(load: Any, tied: bool, write: Any) -> None:
    lm = load(tied=tied)
    before, head, embeddings = logits(lm), head_weight(lm).clone(), lm.model.model.embed_tokens.weight.clone()
    rows = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)).double()
    write(lm, IDS, rows)
    others = [token for token in range(len(head)) if token not in IDS]
    is_head, is_input = write is write_head_rows or tied, write is write_input_rows or tied
    assert torch.equal(head_rows(lm, IDS), rows.float()) == is_head
    assert torch.equal(input_rows(lm, IDS), rows.float()) == is_input
    assert torch.equal(head_weight(lm)[others], head[others])
    assert torch.equal(lm.model.model.embed_tokens.weight[others], embeddings[others])
    assert is_tied(lm) == tied and lm.model.lm_head.weight.requires_grad
    if not is_input:  # the text is read as before, so only the written tokens have other logits
        assert torch.equal(logits(lm)[:, others], before[:, others])
        assert not torch.equal(logits(lm)[:, IDS], before[:, IDS])


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_packed_head_is_read_as_the_numbers_it_stands_for(load: Any, quantization: str) -> None:
    import bitsandbytes as bnb

    lm = with_packed_head(load(tied=False), quantization)
    weight = lm.model.lm_head.weight
    if quantization == "nf4":
        expected = bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
    else:
        expected = weight.CB.float() * weight.SCB[:, None] / 127
    plain = load(tied=False).model.lm_head.weight
    assert torch.allclose(head_weight(lm), expected, atol=1e-6) and not torch.equal(head_weight(lm), plain)
    assert torch.equal(head_rows(lm, IDS), head_weight(lm)[IDS])


@pytest.mark.parametrize(("quantization", "closeness"), [("nf4", 1e-5), ("int8", 5e-3)])
def test_a_packed_head_is_written_only_when_it_may_be_unpacked(load: Any, quantization: str, closeness: float) -> None:
    lm = with_packed_head(load(tied=False, quantization=quantization), quantization)
    before, others = logits(lm), [token for token in range(400) if token not in IDS]
    rows = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(HarnessError, match=r"a packed Linear\w+, where rows cannot be written; .* or unpack the head"):
        write_head_rows(lm, IDS, rows)
    assert torch.equal(logits(lm), before)
    write_head_rows(lm, IDS, rows, unpack=True)
    assert torch.equal(head_rows(lm, IDS), rows) and type(lm.model.lm_head) is torch.nn.Linear
    others = [token for token in range(len(head_weight(lm))) if token not in IDS]
    assert torch.allclose(logits(lm)[:, others], before[:, others], atol=closeness)


def test_a_quantised_models_embeddings_stay_plain_and_are_written(load: Any) -> None:
    lm = load(tied=False, quantization="nf4")
    write_input_rows(lm, IDS, torch.zeros(3, 64))
    assert not input_rows(lm, IDS).any() and head_rows(lm, IDS).any()


def test_an_adapter_on_the_head_is_in_what_is_read_and_keeps_rows_from_being_written(load: Any) -> None:
    lm = load(tied=False)
    model = adapters.add_adapter(lm.model, rank=2, alpha=4.0, target_modules=["lm_head"], seed=0)
    with torch.no_grad():
        model.lm_head.lora_B["default"].weight.add_(0.1)
    adapted = lm.replace(model=model)
    rows = head_rows(adapted, IDS)
    merged = lm.replace(model=model.merge_and_unload())
    assert torch.allclose(rows, merged.model.lm_head.weight[IDS], atol=1e-5)


@pytest.mark.parametrize(
    ("ids", "rows", "words"),
    [
        ([400_000], torch.zeros(1, 64), "token 400000 has no row; there are"),
        ([-1], torch.zeros(1, 64), "token -1 has no row"),
        ([1, 1], torch.zeros(2, 64), "an id stands twice"),
        ([1], torch.zeros(1, 63), r"rows of shape \(1, 63\) do not fit; 1 tokens need \(1, 64\)"),
        ([1], torch.full((1, 64), torch.nan), "holds NaN or infinity"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_nothing_is_written(load: Any, ids: Any, rows: Any, words: str) -> None:
    lm = load()
    before = head_weight(lm).clone()
    for write in (write_head_rows, write_input_rows):
        with pytest.raises(HarnessError, match=words):
            write(lm, ids, rows)
    assert torch.equal(head_weight(lm), before)
    with pytest.raises(HarnessError, match="has no row"):
        head_rows(lm, [400_000])
    with pytest.raises(HarnessError, match="has no row"):
        input_rows(lm, [-1])
