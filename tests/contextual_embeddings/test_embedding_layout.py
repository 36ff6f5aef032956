"""Layout of sequences and pooling of their states: golden cases, and what is refused."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from embedding_golden import rows

from harness import HarnessError
from harness_contextual_embeddings.layout import Layout, build
from harness_contextual_embeddings.pooling import MODES, pool


@pytest.mark.parametrize("number", range(14))
def test_layouts_are_the_golden_ones(number) -> None:
    """Properties 2 and 12: everything in its place, EOS last, text cut at its end, at least one token of it left."""
    row = rows("golden_layout")[number]
    golden = row.pop("layout")
    arguments = [row.pop(name) for name in ("bos", "instruction_ids", "text_ids", "eos")]
    if "error" in golden:
        with pytest.raises(HarnessError, match=golden["error"]):
            build(*arguments, **row)
    else:
        assert asdict(build(*arguments, **row)) == golden | {"ids": tuple(golden["ids"])}


@pytest.mark.parametrize("number", range(10))
def test_pooled_vectors_are_the_golden_ones(number) -> None:
    """Property 2: the contextual half first, padding on either side never looked at."""
    row = rows("golden_pooling")[number]
    text = row["text"]
    layout = Layout((0,) * len(row["attention_mask"]), row["context"], row["eos"], text[0], text[-1] + 1)
    states = torch.tensor(row["hidden_states"], dtype=torch.float64)
    for name in ("context_eos", "context_eos_halves_normalised", "sum", "mean", "weighted_mean", "eos_only"):
        found = pool(states, layout, "eos" if name == "eos_only" else name)
        assert found.tolist() == pytest.approx(row[name], abs=1e-9)
    swapped = torch.cat([pool(states, layout, "eos"), pool(states, layout, "context")])
    assert swapped.tolist() != pytest.approx(row["context_eos"], abs=1e-3)


def test_padding_on_the_left_moves_every_place() -> None:
    layout = build(1, [5, 6], [7, 8, 9], 2, max_length=20, context_position="text")
    states = torch.randn(len(layout), 4, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([torch.full((3, 4), torch.nan), states])
    for mode in MODES:
        assert torch.equal(pool(padded, layout.moved(3), mode), pool(states, layout, mode))


def test_without_a_contextual_token_or_an_end_there_is_none_to_pool() -> None:
    layout = build(None, [], [7, 8], None, max_length=20, context_position=None, suffix_ids=[4, 3])
    states = torch.eye(4)
    assert layout.ids == (7, 8, 4, 3)
    assert torch.equal(pool(states, layout, "last"), states[3])
    assert torch.equal(pool(states, layout, "mean"), states[:2].mean(0))
    for mode, lacks in (("context", "contextual token"), ("eos", "EOS"), ("context_eos", "contextual token")):
        with pytest.raises(HarnessError, match=f"no {lacks}"):
            pool(states, layout, mode)
    with pytest.raises(HarnessError, match="no pooling 'meen'; did you mean 'mean'"):
        pool(states, layout, "meen")


def test_the_last_token_is_the_one_before_the_end() -> None:
    layout = build(1, [], [7, 8], 2, max_length=20, context_position=None)
    assert torch.equal(pool(torch.eye(4), layout, "last"), torch.eye(4)[2])


def test_states_of_sixteen_bits_are_pooled_in_thirty_two() -> None:
    layout = build(1, [], list(range(3, 300)), 2, max_length=400, context_position=None)
    states = torch.randn(len(layout), 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert pool(states, layout, "mean").dtype == torch.float32
    assert torch.allclose(pool(states, layout, "mean"), states[1:-1].float().mean(0))
