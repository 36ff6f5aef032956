"""Pairs of responses: each prompt goes through the model once, and log-probabilities are those of each row alone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tiny_models import SIZES

from harness import HarnessError
from harness.methods import adapters, label_states, preferences, training_memory
from harness.methods.chunked_loss import label_loglikelihoods
from harness.methods.packing import lay_out, layout_of
from harness.methods.preferences import kept_loglikelihoods, shuffled, sides
from harness.methods.training import IGNORED, Batch, pad, train

PROMPTS = [[(5 * row + 3 * place) % 390 + 1 for place in range(length)] for row, length in enumerate((20, 12))]
RESPONSES = [[[7, 9, 120], [7, 33, 5, 260, 18]], [[300, 2], [4, 8]]]
ROWS = [
    (prompt + response, [IGNORED] * len(prompt) + response)
    for prompt, pair in zip(PROMPTS, RESPONSES, strict=True)
    for response in pair
]


def build(kind: str = "Llama", **settings: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(vocab_size=400, **(SIZES | settings))
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    model = adapters.add_adapter(model, rank=4, alpha=8.0, target_modules=["all-linear"], seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def one_by_one(model: Any, rows: Any = ROWS) -> list[torch.Tensor]:
    """The log-probability of each label, every row alone and all logits made."""
    found = []
    for ids, labels in rows:
        scores = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        due = torch.tensor(labels[1:])
        found.append(scores[due != IGNORED].gather(-1, due[due != IGNORED][:, None])[:, 0])
    return found


def gradients(model: Any, value: torch.Tensor) -> torch.Tensor:
    return torch.cat(
        [grad.flatten() for grad in torch.autograd.grad(value, [p for p in model.parameters() if p.requires_grad])]
    )


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Llama", {}),
        ("Mistral", {"sliding_window": 8}),
        ("Gemma2", {"head_dim": 8, "sliding_window": 8, "attn_logit_softcapping": 5.0}),
        (
            "GptOss",
            {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
        ),  # padded: its attention has sinks
    ],
)
def test_labels_have_the_log_probabilities_and_gradients_of_rows_alone(kind: str, settings: dict[str, Any]) -> None:
    """Property 19: pairs that share their prompt in one pass score as each row one by one, gradients too."""
    model, weights = build(kind, **settings).train(), torch.linspace(-1.0, 2.0, 12)
    expected = torch.cat(one_by_one(model))
    wanted = gradients(model, (expected * weights).sum())
    batch = pad(ROWS)
    table = label_loglikelihoods(model, batch)
    found = table[:, 1:][batch.labels[:, 1:] != IGNORED]
    assert torch.allclose(found, expected, atol=1e-5)
    assert float(table.detach().abs().sum()) == pytest.approx(float(expected.detach().abs().sum()), abs=1e-4)
    moved = gradients(model, (found * weights).sum())
    assert float((moved - wanted).norm() / wanted.norm()) < 1e-3


def test_a_prompt_goes_through_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = build(), list[int]()
    run = label_states.run_packed

    def running(model: Any, batch: Batch, layout: Any, device: torch.device) -> Any:
        seen.append(len(layout))
        return run(model, batch, layout, device)

    monkeypatch.setattr(label_states, "run_packed", running)
    label_loglikelihoods(model, pad(ROWS))
    assert seen[-1] == sum(map(len, PROMPTS)) + 1 + 4 + 2 + 2 + 2  # both first responses begin with token 7


def test_rows_are_laid_out_with_what_they_share_once() -> None:
    layout = lay_out([4, 3, 5], [0, 2, 3])
    assert layout.index.tolist() == [[0, 1, 2, 3, 0], [0, 1, 4, 0, 0], [0, 1, 4, 5, 6]]
    assert len(layout) == 7
    short = pad([([1, *range(9, 40)], [1] * 32), ([1, *range(50, 81)], [1] * 32)])
    assert layout_of(short) is None  # one token in common saves nothing


def test_both_sides_of_pairs_stand_apart_with_what_travels_with_them() -> None:
    model = build()
    extras = {"weight": [[float(place) for place, _ in enumerate(ids)] for ids, _ in ROWS]}
    chosen, rejected = sides(model, pad(ROWS, extras))
    first, second, third, fourth = one_by_one(model)
    assert torch.allclose(chosen.loglikelihoods[chosen.is_due], torch.cat([first, third]), atol=1e-5)
    assert torch.allclose(rejected.loglikelihoods[rejected.is_due], torch.cat([second, fourth]), atol=1e-5)
    assert rejected.extras["weight"][rejected.is_due].tolist() == [20, 21, 22, 23, 24, 12, 13]


def test_what_travels_with_rows_stays_with_them_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss over pairs with weights of tokens trains the same in one part and in two."""

    def weighted(model: Any, batch: Batch) -> torch.Tensor:
        chosen, rejected = sides(model, batch)
        both = [(side.loglikelihoods * side.extras["weight"]).sum(-1) for side in (chosen, rejected)]
        return -torch.nn.functional.logsigmoid(both[0] - both[1]).mean()

    batch = pad(
        ROWS, {"weight": [[(row + place) / 40 for place, _ in enumerate(ids)] for row, (ids, _) in enumerate(ROWS)]}
    )
    losses = []
    for tokens in (4096, 1):
        monkeypatch.setattr(training_memory, "CPU_TOKENS", tokens)
        settings: dict[str, Any] = {"learning_rate": 0.01, "warmup_steps": 0, "label": "Training", "mean_of": "pairs"}
        log = train(build(), [batch] * 2, steps=2, loss=weighted, **settings)
        losses.append(log.losses)
        assert log.micro_batches == (2 if tokens > 1 else 4)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_reference_is_asked_once_and_says_the_same_in_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Property 19: batched equals one by one; and what was on, and training mode, stay."""
    model = build().train()
    with adapters.using(model, None), torch.no_grad():
        expected = [row.tolist() for row in one_by_one(model)]
        found = kept_loglikelihoods(model, ROWS, label="Reading")
        monkeypatch.setattr(preferences, "CPU_TOKENS", 1)
        apart = kept_loglikelihoods(model, ROWS[2:] + ROWS[:2], label="Reading")
    for kept in (found, apart[2:] + apart[:2]):
        assert all(a == pytest.approx(b, abs=1e-5) for a, b in zip(kept, expected, strict=True))
    assert model.training and not adapters.are_off(model)


def test_memory_that_runs_out_makes_the_parts_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = build(), []
    ask = preferences.label_loglikelihoods

    def short(model: Any, batch: Batch) -> torch.Tensor:
        sizes.append(len(batch.labels))
        if len(batch.labels) > most:
            raise torch.OutOfMemoryError("the device has no memory left")
        return ask(model, batch)

    monkeypatch.setattr(preferences, "label_loglikelihoods", short)
    most = 1
    assert len(kept_loglikelihoods(model, ROWS, label="Reading")) == 4 and sizes == [4, 2, 1, 1, 2, 1, 1]
    most = 0
    with pytest.raises(HarnessError, match="the memory does not hold a text of 23 tokens; leave it out"):
        kept_loglikelihoods(model, ROWS, label="Reading")


def test_every_pair_comes_once_in_an_epoch_in_an_order_of_the_seed() -> None:
    def numbers(seed: int) -> list[int]:
        return list(itertools.chain.from_iterable(itertools.islice(shuffled(5, 2, seed=seed), 5)))

    assert sorted(numbers(0)[:5]) == sorted(numbers(0)[5:]) == [0, 1, 2, 3, 4]
    assert numbers(0) == numbers(0) != numbers(1)
    assert [len(some) for some in itertools.islice(shuffled(2, 5, seed=0), 2)] == [5, 5]
