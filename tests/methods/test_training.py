"""The training loop: what is counted, what a loss gets, and what it may do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from harness import HarnessError
from harness.methods import adapters
from harness.methods.training import Batch, next_token_loss, pad, train

ROWS = [([5, 9, 120, 33, 7], [5, 9, 120, 33, 7]), ([260, 18, 300], [-100, 18, 300])]
PAIR = pad([([5, 9, 120, 33], [-100, -100, 120, 33]), ([5, 9, 18, 300], [-100, -100, 18, 300])])
SETTINGS: dict[str, Any] = {"learning_rate": 0.01, "warmup_steps": 1, "label": "Training"}


@pytest.fixture
def model(load: Any) -> Any:
    return adapters.add_adapter(load().model, rank=4, alpha=8.0, target_modules=["all-linear"], seed=0)


def endless(batch: Batch) -> Iterator[Batch]:
    while True:
        yield batch


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_rows_are_padded_on_the_right_where_no_loss_is_due() -> None:
    batch = pad(ROWS)
    assert batch.input_ids.tolist() == [[5, 9, 120, 33, 7], [260, 18, 300, 0, 0]]
    assert batch.labels.tolist() == [[5, 9, 120, 33, 7], [-100, 18, 300, -100, -100]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def test_the_default_loss_is_the_mean_cross_entropy_of_the_labels(model: Any) -> None:
    expected = []
    for ids, labels in ROWS:
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        expected += [-float(scores[place - 1, label]) for place, label in enumerate(labels) if place and label != -100]
    assert float(next_token_loss(model, pad(ROWS)).detach()) == pytest.approx(sum(expected) / len(expected), abs=1e-6)


def test_training_lowers_the_loss_changes_the_adapter_alone_and_counts(model: Any) -> None:
    before = weights(model)
    log = train(model, endless(pad(ROWS)), steps=8, **SETTINGS)
    after = weights(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("lora_" in name for name in changed)
    assert len(log.losses) == 8 and log.losses[-1] < log.losses[0] - 0.1
    assert (log.tokens, log.labels) == (8 * 8, 8 * 6)
    assert log.report()["loss_first"] == round(log.losses[0], 4) and log.report()["steps"] == 8
    assert not any(module.training for module in model.modules())


def test_the_same_seed_and_text_train_the_same_and_the_default_may_be_given(load: Any) -> None:
    losses = []
    for loss in ({}, {"loss": next_token_loss}):
        made = adapters.add_adapter(load().model, rank=4, alpha=8.0, target_modules=["all-linear"], seed=0)
        losses.append(train(made, endless(pad(ROWS)), steps=3, **SETTINGS, **loss).losses)
    assert losses[0] == losses[1]


def margins(model: Any, batch: Batch) -> torch.Tensor:
    """Return the log-probability of each row's labels, (B,)."""
    scores = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1].log_softmax(-1)
    due = batch.labels[:, 1:]
    found = scores.gather(-1, due.clamp_min(0)[..., None])[..., 0]
    return (found * (due != -100)).sum(-1)


def preference(model: Any, batch: Batch) -> torch.Tensor:
    """Direct preference optimisation over a chosen row and a rejected one, the base as the reference."""
    policy = margins(model, batch)
    with torch.no_grad(), adapters.using(model, None):
        reference = margins(model, batch)
    chosen, rejected = policy - reference
    return -torch.nn.functional.logsigmoid(0.5 * (chosen - rejected))


def test_a_loss_of_preferences_starts_at_ln_2_and_prefers_what_was_chosen(model: Any) -> None:
    log = train(model, endless(PAIR), steps=6, loss=preference, **SETTINGS)
    assert log.losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert log.losses[-1] < log.losses[0]
    with torch.no_grad():
        after = margins(model, PAIR)
        with adapters.using(model, None):
            before = margins(model, PAIR)
    assert (after - before)[0] > (after - before)[1]


def test_parts_that_are_no_adapter_are_trained_where_they_take_gradients(load: Any) -> None:
    model = load().model.requires_grad_(False)
    model.model.norm.weight.requires_grad_(True)
    before = weights(model)
    train(model, endless(pad(ROWS)), steps=2, **SETTINGS)
    after = weights(model)
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["model.norm.weight"]


def test_fewer_batches_end_the_training_early(model: Any) -> None:
    assert len(train(model, [pad(ROWS)] * 2, steps=5, **SETTINGS).losses) == 2


def test_a_loss_that_is_no_number_stops_at_its_step(model: Any) -> None:
    values = iter([1.0, math.nan])

    def broken(model: Any, batch: Batch) -> torch.Tensor:
        return next_token_loss(model, batch) * 0 + next(values)

    with pytest.raises(HarnessError, match="broke down at step 2: the loss is nan; lower learning_rate"):
        train(model, endless(pad(ROWS)), steps=4, loss=broken, **SETTINGS)


def test_a_model_of_which_nothing_takes_gradients_is_a_mistake_of_the_method(load: Any) -> None:
    with pytest.raises(ValueError, match="nothing of the model takes gradients"):
        train(load().model.requires_grad_(False), [pad(ROWS)], steps=1, **SETTINGS)


def test_parts_may_be_trained_at_rates_of_their_own(model: Any) -> None:
    before = weights(model)

    def rate_of(name: str) -> float:
        return 0.01 if "q_proj" in name else 1e-9

    train(model, endless(pad(ROWS)), steps=2, rate_of=rate_of, **SETTINGS)
    moved = {name: (tensor - before[name]).abs().max().item() for name, tensor in weights(model).items()}
    assert all((size > 1e-3) is ("q_proj" in name) for name, size in moved.items() if "lora_B" in name)
    assert max(size for name, size in moved.items() if "q_proj" not in name) < 1e-6
