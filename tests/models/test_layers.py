"""The parts of a model that read hidden states: in the order of transformers, whatever the architecture calls them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from lm_eval_answers import llama
from test_architectures import SHARED, made

from harness.errors import HarnessError
from harness.models.head import reading
from harness.models.layers import readers
from harness.models.refused import Refused


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gemma2", "gpt-oss"])
def test_part_k_reads_the_hidden_states_k_of_transformers(tokenizer: Any, name: str) -> None:
    model = made(tokenizer, *SHARED[name])
    seen: dict[int, torch.Tensor] = {}
    with torch.no_grad(), ExitStack() as stack:
        for number, part in enumerate(readers(model)):
            stack.enter_context(reading(part, lambda hidden, at=number: seen.setdefault(at, hidden)))
        states = model(torch.tensor([[5, 6, 7]]), output_hidden_states=True).hidden_states
    assert len(states) == len(seen) == 1 + model.config.num_hidden_layers
    assert all(torch.equal(seen[number], state) for number, state in enumerate(states))


def test_a_layer_that_is_called_in_another_way_is_called_by_its_name(tokenizer: Any) -> None:
    layer = readers(llama(tokenizer))[1]
    with (
        pytest.raises(Refused, match="its second layer is called"),
        reading(layer, lambda hidden: hidden, called="second layer"),
    ):
        layer(hidden_states=torch.zeros(1, 3, 32))


def test_a_model_whose_layers_cannot_be_found_is_told(tokenizer: Any) -> None:
    model = llama(tokenizer)
    model.config.num_hidden_layers = 7
    with pytest.raises(HarnessError, match="the layers of LlamaForCausalLM cannot be found"):
        readers(model)
