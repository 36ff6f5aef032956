"""Short rows side by side: the same loss and gradients as with padding, and not where a row might see its neighbour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import SIZES

from harness.methods import adapters, label_states
from harness.methods.chunked_loss import next_token_loss
from harness.methods.training import IGNORED, Batch, pad

LENGTHS = (30, 9, 28, 5, 12)
ROWS = [[(7 * row + 3 * place) % 390 + 1 for place in range(length)] for row, length in enumerate(LENGTHS)]
BATCH = pad([(ids, [IGNORED, IGNORED, *ids[2:]]) for ids in ROWS])


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of each row that was packed, tries included."""
    seen: list[int] = []
    run = label_states.run_packed

    def running(model: Any, batch: Batch, layout: Any, device: torch.device) -> Any:
        seen.append(len(layout))
        return run(model, batch, layout, device)

    monkeypatch.setattr(label_states, "run_packed", running)
    return seen


def build(kind: str, **settings: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    targets = ["in_proj"] if kind == "Mamba" else ["all-linear"]
    config = getattr(transformers, f"{kind}Config")(vocab_size=400, **(SIZES | settings))
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    return adapters.add_adapter(model, rank=4, alpha=8.0, target_modules=targets, seed=0)


def loss_and_gradients(model: Any, loss: Callable[[Any, Batch], torch.Tensor]) -> tuple[float, torch.Tensor]:
    found = loss(model, BATCH)
    found.backward()
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return float(found.detach()), gradients


def padded_loss(model: Any, batch: Batch) -> torch.Tensor:
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch.labels[:, 1:].flatten())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Llama", {}),
        ("Mistral", {"sliding_window": 8}),
        ("Gemma2", {"head_dim": 8, "sliding_window": 8, "attn_logit_softcapping": 5.0}),
    ],
)
def test_packed_rows_have_the_loss_and_gradients_of_padded_ones(
    kind: str, settings: dict[str, Any], packed: list[int]
) -> None:
    """No row sees its neighbour, and positions begin anew with each: nothing differs but the padding that is not run."""
    model = build(kind, **settings).train()
    expected, wanted = loss_and_gradients(model, padded_loss)
    found, gradients = loss_and_gradients(model, next_token_loss)
    assert packed[-1] == sum(LENGTHS)
    assert found == pytest.approx(expected, abs=1e-5)
    assert float((gradients - wanted).norm() / wanted.norm()) < 1e-3


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("Llama", {"attention_dropout": 0.5}), ("Mamba", {"state_size": 4, "hidden_size": 32})],
)
def test_models_whose_rows_may_not_stand_side_by_side_are_run_with_padding(
    kind: str, settings: dict[str, Any], packed: list[int]
) -> None:
    model = build(kind, **settings).train()
    assert torch.isfinite(next_token_loss(model, BATCH))
    assert sum(LENGTHS) not in packed


def test_sinks_have_the_gradients_of_padded_rows(packed: list[int]) -> None:
    """What a fused kernel tells of its sums has the right numbers and no gradient, so such rows are not packed."""
    model = build("GptOss", head_dim=8, num_local_experts=2, num_experts_per_tok=1).train()
    with torch.no_grad():
        for layer in model.get_base_model().model.layers:
            layer.self_attn.q_proj.weight.mul_(9.0)
    expected, wanted = loss_and_gradients(model, padded_loss)
    found, gradients = loss_and_gradients(model, next_token_loss)
    assert sum(LENGTHS) not in packed and found == pytest.approx(expected, abs=1e-5)
    assert float((gradients - wanted).norm() / wanted.norm()) < 1e-3


def test_a_model_that_looks_at_the_row_as_a_whole_is_run_with_padding(packed: list[int]) -> None:
    """The try-out finds what the kind of a model does not tell."""
    model = build("Llama").train()
    model.get_base_model().model.layers[0].mlp = torch.nn.Softmax(dim=1)
    next_token_loss(model, BATCH)
    assert packed and sum(LENGTHS) not in packed


class Mixing(torch.nn.Module):
    """Adds the mean of the tokens so far, nothing at first."""

    def __init__(self) -> None:
        super().__init__()
        self.share = torch.nn.Parameter(torch.zeros(()))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.share * hidden.cumsum(1)


@pytest.mark.parametrize("is_hook", [True, False], ids=["a hook", "a part"])
def test_what_may_learn_to_look_at_its_neighbours_is_never_shown_them(packed: list[int], is_hook: bool) -> None:
    """A part that begins as nothing passes every try-out; rows stay apart all the same once it has learnt."""
    model, mixing = build("Llama").train(), Mixing()
    layer = model.get_base_model().model.layers[0]
    if is_hook:
        layer.register_forward_hook(lambda module, inputs, output: mixing(output))
    else:
        layer.mlp = torch.nn.Sequential(layer.mlp, mixing)
    next_token_loss(model, BATCH)
    with torch.no_grad():
        mixing.share.fill_(0.5)
    expected, wanted = loss_and_gradients(model, padded_loss)
    found, gradients = loss_and_gradients(model, next_token_loss)
    assert not packed and found == pytest.approx(expected, abs=1e-5)
    assert float((gradients - wanted).norm() / wanted.norm()) < 1e-3


def test_a_label_behind_the_end_of_its_row_is_due_where_it_stands(packed: list[int]) -> None:
    """Packing would take the neighbour's place for it."""
    labels = BATCH.labels.clone()
    labels[1, 15] = 7
    model, batch = build("Llama").train(), BATCH._replace(labels=labels)
    found = next_token_loss(model, batch)
    assert float(found.detach()) == pytest.approx(float(padded_loss(model, batch).detach()), abs=1e-5) and not packed
