"""Reading what the output head reads: in every forward pass, as many positions as the reader lets through, and off again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lm_eval_answers import llama

from harness.models.head import Head, reading
from harness.models.refused import Refused


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return llama(tokenizer)


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_the_head_gets_what_the_reader_lets_through(model: Any, kept: int) -> None:
    seen: list[torch.Tensor] = []

    def see(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(hidden)
        return hidden[:, :kept]

    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), reading(model.get_output_embeddings(), see):
        logits = model(ids).logits
    assert logits.shape[1] == kept and seen[0].shape == (1, 4, 32)
    with torch.no_grad():
        whole = model(ids).logits  # the hook is off again
    assert whole.shape[1] == 4
    assert torch.allclose(Head(model).logits(seen[0][0]), whole[0].float(), atol=1e-5)


def test_the_hook_comes_off_when_the_pass_fails(model: Any) -> None:
    head = model.get_output_embeddings()
    with pytest.raises(RuntimeError, match="on purpose"), reading(head, lambda hidden: hidden):
        raise RuntimeError("on purpose")
    assert not head._forward_pre_hooks


def test_a_head_that_is_called_in_another_way_is_refused(model: Any) -> None:
    head = model.get_output_embeddings()
    with pytest.raises(Refused, match="in a way of its own"), reading(head, lambda hidden: hidden):
        head(torch.zeros(3, 32))
