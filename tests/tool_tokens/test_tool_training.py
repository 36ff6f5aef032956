"""Training on frozen states: the loss and gradient of the full softmax, the penalty, and what is measured."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import HarnessError
from harness.models.finding import resolve
from harness.models.identity import tensor_fingerprints
from harness.models.loading import load_lm
from harness_tool_tokens.rows.naming import prior_texts
from harness_tool_tokens.rows.prior import prior_rows
from harness_tool_tokens.rows.settings import Settings
from harness_tool_tokens.rows.states import States, frozen_states
from harness_tool_tokens.rows.texts import FIRST_TOOL, IGNORED, CallPlace, Encoded, Row, draw_shots, encode_row
from harness_tool_tokens.rows.training import _blocks, best_bias, epoch_order, measure, penalty, train
from harness_tool_tokens.tools.tool import Tool
from harness_tool_tokens.tools.toolbox import Toolbox

Tensor = torch.Tensor
KEYS = ("tick", "tock", "chime")
TOOLBOX = Toolbox(tuple(Tool(key, key, f"what {key} does") for key in KEYS))
BEGINNINGS = {"tick": "Forty clocks ticked = ", "tock": "The bank, said he, = ", "chime": "What is time? = "}


def make_rows(per_tool: int) -> list[Row]:
    """Return rows whose beginning tells the tool."""
    rows = []
    for key in KEYS:
        for number in range(per_tool):
            text, result = f"{number} {BEGINNINGS[key]}", f"{number + 12}"
            rows.append(
                Row(f"{key}-{number}", f"{text}{result} of them", (CallPlace(key, len(text), len(text) + len(result)),))
            )
    return rows


ROWS = make_rows(3)


def load_tiny(tiny_model: Path, **settings: Any) -> Any:
    return load_lm(resolve({"pretrained": str(tiny_model)}, **settings), device="cpu", batch_size=1)


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> Any:
    return load_tiny(tiny_model)


def encoded_of(lm: Any, rows: list[Row]) -> list[Encoded]:
    return [encode_row(lm, row, TOOLBOX) for row in rows]


@pytest.fixture(scope="module")
def states(lm: Any) -> States:
    return frozen_states(lm, encoded_of(lm, ROWS))


def some_rows(seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(3, 32, generator=torch.Generator().manual_seed(seed)) * scale


def loss(
    hidden: Tensor,
    log_total: Tensor,
    target_logit: Tensor,
    targets: Tensor,
    weights: Tensor,
    rows: Tensor,
    *,
    bias: float = 0.0,
) -> Tensor:
    """Return the cross-entropy over words and tools, in nats, as a weighted mean over n positions.

    ``log(exp(L) + sum_k exp(s_k)) - z_target`` for a word and ``- s_k`` for tool k, with ``s = W h + bias``.

    Args:
        hidden: (n, D); log_total, target_logit, targets, weights: (n,), as in ``States``.
        rows: (K, D), what is differentiated.
    """
    scores = hidden @ rows.T + bias
    is_tool = targets <= FIRST_TOOL
    chosen = scores.gather(1, torch.where(is_tool, FIRST_TOOL - targets, 0)[:, None])[:, 0]
    total = torch.logaddexp(log_total, torch.logsumexp(scores, 1))
    return ((total - torch.where(is_tool, chosen, target_logit)) * weights).sum() / weights.sum()


def loss_of(states: States, rows: Tensor, bias: float = 0.0) -> Tensor:
    parts = (states.hidden, states.log_total, states.target_logit, states.targets, states.weights)
    return loss(*parts, rows, bias=bias)


def full_cross_entropy(lm: Any, encoded: list[Encoded], rows: Tensor, bias: float = 0.0) -> Tensor:
    """Return the mean cross-entropy over the concatenation of word and tool logits, the model run anew."""
    logits, labels = [], []
    for row in encoded:
        with torch.no_grad():
            hidden = lm.model.model(torch.tensor([row.token_ids])).last_hidden_state[0].float()
            words = lm.model.lm_head(hidden.to(lm.model.dtype)).float()
        logits.append(torch.cat([words, hidden @ rows.T + bias], 1))
        size = words.shape[1]
        labels += [-100 if t == IGNORED else t if t >= 0 else size + FIRST_TOOL - t for t in row.targets]
    return torch.nn.functional.cross_entropy(torch.cat(logits), torch.tensor(labels))


def one_block(states: States, bias: float = 0.0) -> Any:
    [block] = _blocks(replace(states, rows=states.rows * 0), 3, bias)
    return block


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("bias", [0.0, 2.5, -4.0])
@pytest.mark.parametrize("kind", ["both", "tools", "words"])
def test_cached_loss_and_gradient_are_those_of_the_full_softmax(lm: Any, bias: float, kind: str) -> None:
    """Acceptance property 4."""
    encoded = encoded_of(lm, ROWS)
    if kind != "both":
        keep = (lambda t: t <= FIRST_TOOL) if kind == "tools" else (lambda t: t >= 0)
        encoded = [Encoded(e.token_ids, [t if keep(t) else IGNORED for t in e.targets]) for e in encoded]
    states = frozen_states(lm, encoded)
    full, cached = some_rows().requires_grad_(), some_rows().requires_grad_()
    expected, found = full_cross_entropy(lm, encoded, full, bias), loss_of(states, cached, bias)
    expected.backward()
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert relative(cached.grad, full.grad) < 1e-5  # type: ignore[arg-type]
    by_hand = torch.zeros(3, 32)
    value = one_block(states, bias).gradient(some_rows(), by_hand)
    assert float(value) == pytest.approx(expected.item(), rel=1e-5)
    assert relative(by_hand, full.grad) < 1e-5  # type: ignore[arg-type]


def test_weights_of_positions_count_in_loss_and_gradient(states: States) -> None:
    """Acceptance property 4."""
    weights = torch.linspace(0.5, 3.0, len(states))
    weighted, rows = replace(states, weights=weights), some_rows().requires_grad_()
    value = loss_of(weighted, rows)
    value.backward()
    each = torch.stack([loss(*(part[i : i + 1] for part in parts(weighted)), some_rows()) for i in range(len(states))])
    assert value.item() == pytest.approx(float((each * weights).sum() / weights.sum()), rel=1e-5)
    by_hand = torch.zeros(3, 32)
    one_block(weighted).gradient(some_rows(), by_hand)
    assert relative(by_hand, rows.grad) < 1e-5  # type: ignore[arg-type]


def parts(states: States) -> tuple[Tensor, ...]:
    return states.hidden, states.log_total, states.target_logit, states.targets, states.weights


def test_only_tool_rows_have_gradients_and_absent_tools_are_only_pushed_down(lm: Any) -> None:
    """Acceptance property 3."""
    states = frozen_states(lm, encoded_of(lm, [row for row in ROWS if row.calls[0].tool == "tick"]))
    rows = some_rows(scale=0.3).requires_grad_()
    loss_of(states, rows).backward()
    assert all(parameter.grad is None for parameter in lm.model.parameters())
    scores = states.hidden @ rows.detach().T
    total = torch.logaddexp(states.log_total, scores.logsumexp(1))
    push = ((scores - total[:, None]).exp() / len(states)).T @ states.hidden
    assert rows.grad is not None
    assert torch.allclose(rows.grad[1:], push[1:], atol=1e-7)
    assert not torch.allclose(rows.grad[0], push[0], atol=1e-4)


def test_training_leaves_the_models_parameters_and_logits_bit_for_bit(lm: Any) -> None:
    """Acceptance property 1."""
    ids = torch.tensor([encode_row(lm, ROWS[0], TOOLBOX).token_ids])
    before = tensor_fingerprints(lm.model), lm.model(ids).logits
    start = some_rows()
    states = frozen_states(lm, encoded_of(lm, ROWS), cache=False)
    kept = start.clone(), states.hidden.clone()
    train(states, start, start, Settings(learning_rate=0.1, steps=20))
    assert tensor_fingerprints(lm.model) == before[0] and torch.equal(lm.model(ids).logits, before[1])
    assert torch.equal(start, kept[0]) and torch.equal(states.hidden, kept[1])


@pytest.mark.parametrize("form", ["squared", "norm", "none"])
def test_the_penalty_and_its_gradient_are_0_at_the_prior(form: str) -> None:
    """Acceptance property 7."""
    rows, prior = some_rows().requires_grad_(), some_rows()
    value = penalty(rows, prior, weight=3.0, form=form)
    assert value.item() == 0
    if form != "none":
        value.backward()
        assert torch.equal(rows.grad, torch.zeros(3, 32))  # type: ignore[arg-type]


def test_the_penalty_forms_are_lambda_times_the_norm_squared_or_not() -> None:
    """Acceptance property 7."""
    rows, prior = some_rows(1), some_rows(2)
    apart = sum((a - b) ** 2 for a, b in zip(rows.flatten().tolist(), prior.flatten().tolist(), strict=True))
    assert penalty(rows, prior, weight=0.3, form="squared").item() == pytest.approx(0.3 * apart, rel=1e-5)
    assert penalty(rows, prior, weight=0.3, form="norm").item() == pytest.approx(0.3 * math.sqrt(apart), rel=1e-5)
    assert penalty(rows, prior, weight=0.3, form="none").item() == 0


@pytest.mark.parametrize("form", ["squared", "norm"])
def test_with_a_huge_penalty_rows_stay_at_the_prior(states: States, form: Any) -> None:
    """Acceptance property 7."""
    prior = some_rows()
    free, _ = train(states, prior, prior, Settings(learning_rate=0.01, steps=600))
    held, report = train(states, prior, prior, Settings(learning_rate=0.01, steps=600, penalty=1e6, penalty_form=form))
    # Adam's steps have the length of lr whatever the gradient's: the rows cannot be held closer than a few of these.
    assert float((held - prior).abs().max()) < 0.03 < float((free - prior).abs().max()) / 5
    assert all(map(math.isfinite, report["losses"]))


@pytest.mark.parametrize("form", ["squared", "norm"])
def test_without_data_any_start_converges_to_the_prior(states: States, form: Any) -> None:
    """Acceptance property 7."""
    nothing = replace(states, **{name: getattr(states, name)[:0] for name in States.__dataclass_fields__})
    settings = Settings(learning_rate=0.01, steps=3000, penalty=0.1, penalty_form=form)
    for seed in (1, 2):
        rows, report = train(nothing, some_rows(), some_rows(seed), settings)
        assert float((rows - some_rows()).abs().max()) < 0.01  # Adam's steps do not shrink
        assert report["losses"] == [0.0] * 3000


@pytest.mark.parametrize("form", ["squared", "norm"])
def test_more_penalty_gives_a_smaller_distance_to_the_prior(states: States, form: Any) -> None:
    """Acceptance property 8."""
    prior = some_rows(scale=0.3)
    weights = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
    settings = [
        Settings(learning_rate=0.01, steps=1500, batch_size=9, penalty=weight, penalty_form=form) for weight in weights
    ]
    reports = [train(states, prior, prior, one)[1] for one in settings]
    distances = [report["distance"] for report in reports]
    assert all(nearer < farther for farther, nearer in itertools.pairwise(distances))
    for report in reports:
        assert report["distance"] == pytest.approx(math.hypot(*report["distances"]), rel=1e-5)


def test_the_same_seed_gives_the_same_rows_to_the_byte(lm: Any, states: States) -> None:
    """Acceptance property 9."""
    start = some_rows()
    one, first = train(states, start, start, Settings(epochs=3, seed=4))
    two, second = train(states, start, start, Settings(epochs=3, seed=4))
    other, _ = train(states, start, start, Settings(epochs=3, seed=5))
    assert torch.equal(one, two) and first["losses"] == second["losses"]
    assert not torch.equal(one, other)
    shots = [draw_shots(make_rows(9), 2, seed=seed, toolbox=TOOLBOX) for seed in (0, 0, 1)]
    again = [train(frozen_states(lm, encoded_of(lm, rows)), start, start, Settings(epochs=2))[0] for rows in shots]
    assert torch.equal(again[0], again[1]) and not torch.equal(again[0], again[2])


@pytest.mark.parametrize("form", ["squared", "norm", "none"])
@pytest.mark.parametrize("batch", [1, 4])
def test_training_is_torchs_adam_on_the_plain_loss(states: States, form: Any, batch: int) -> None:
    """Acceptance property 4."""
    prior = some_rows(scale=0.3)
    settings = Settings(
        learning_rate=0.01, epochs=3, batch_size=batch, penalty=0.05, penalty_form=form, seed=2, bias=1.0
    )
    found, report = train(states, prior, prior, settings)
    rows = prior.clone().requires_grad_()
    adam, losses = torch.optim.Adam([rows], lr=0.01), []
    for epoch in range(3):
        order = epoch_order(len(ROWS), seed=2, epoch=epoch)
        for start in range(0, len(order), batch):
            chosen = torch.isin(states.rows, torch.tensor(order[start : start + batch]))
            value = loss(*(part[chosen] for part in parts(states)), rows, bias=1.0)
            losses.append(value.item())
            adam.zero_grad()
            (value + penalty(rows, prior, weight=0.05, form=form)).backward()
            adam.step()
    assert report["losses"] == pytest.approx(losses, rel=1e-5)
    assert relative(found, rows.detach()) < 1e-5
    assert report["steps"] == 3 * math.ceil(9 / batch) and report["epochs"] == pytest.approx(3, abs=0.4)


def test_tools_tied_to_distinct_contexts_are_learned_perfectly_in_seconds(lm: Any) -> None:
    """Acceptance property 10."""
    started = time.monotonic()
    states = frozen_states(lm, encoded_of(lm, make_rows(6)))
    unseen = frozen_states(lm, encoded_of(lm, make_rows(9)[6:9] + make_rows(9)[15:18] + make_rows(9)[24:27]))
    start = prior_rows(lm, prior_texts(TOOLBOX), prior="random")
    rows, _ = train(states, start, start, Settings(learning_rate=0.03, steps=4000))
    found = measure(states, rows)
    assert found["selection"] == found["recall"] == 1.0
    # All words are about equally unlikely in this model, so that little pushes a tool down where one of them is due.
    assert found["false"] < 0.2
    assert measure(unseen, rows)["selection"] == 1.0
    assert time.monotonic() - started < 20


def test_one_epoch_of_rows_and_as_many_steps_are_the_same(states: States) -> None:
    start = some_rows()
    by_epochs, _ = train(states, start, start, Settings(epochs=2))
    by_steps, _ = train(states, start, start, Settings(steps=18))
    assert torch.equal(by_epochs, by_steps)
    untouched, report = train(states, start, start, Settings(steps=0))
    assert torch.equal(untouched, start) and report["steps"] == 0


def test_few_rows_are_trained_on_for_3000_steps_and_none_for_no_step(states: States) -> None:
    start = some_rows()
    assert train(states, start, start, Settings())[1]["steps"] == 3000
    nothing = replace(states, **{name: getattr(states, name)[:0] for name in States.__dataclass_fields__})
    rows, report = train(nothing, start, start, Settings())
    assert report["steps"] == 0 and torch.equal(rows, start)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0; it has to be above 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"bias": math.inf}, "bias inf"),
        ({"penalty": -1.0}, "penalty is -1.0; it has to be 0 or more"),
        ({"penalty": math.nan}, "penalty is nan"),
        ({"penalty_form": "cubed"}, "penalty_form 'cubed' is unknown"),
        ({"batch_size": 0}, "batch_size is 0; it has to be 1 or more"),
        ({"epochs": 1, "steps": 1}, "both epochs and steps"),
        ({"steps": None, "epochs": -1}, "epochs is -1; it has to be 0 or more"),
        ({"learning_rate": 1e37}, "above 0 and at most 100"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**({"steps": 1} | changes) if "epochs" not in changes else changes)


def test_options_say_in_one_value_how_far_and_how_long() -> None:
    made = Settings.of(penalty="norm:0.01", steps="10 epochs", seed=3)
    assert (made.penalty, made.penalty_form, made.epochs, made.steps, made.seed) == (0.01, "norm", 10, None, 3)
    plain = Settings.of(penalty=0.01, steps=300)
    assert (plain.penalty, plain.penalty_form, plain.epochs, plain.steps) == (0.01, "squared", None, 300)
    assert Settings.of(penalty="norm:1e-3", steps="1epoch") == Settings(penalty=1e-3, penalty_form="norm", epochs=1)
    with pytest.raises(ValueError, match="penalty is 'norm:much'; give a number"):
        Settings.of(penalty="norm:much", steps=None)
    with pytest.raises(ValueError, match="steps is 'ten'; give a whole number, or 10 epochs"):
        Settings.of(penalty=0, steps="ten")


def test_rows_that_diverge_are_not_handed_on(states: States) -> None:
    with pytest.raises(HarnessError, match="became infinite in training"):
        train(replace(states, hidden=states.hidden * 1e38), some_rows(), some_rows(), Settings(steps=2))


def test_a_label_without_a_row_is_refused(states: States) -> None:
    with pytest.raises(HarnessError, match="a training row is for tool 2, but there are rows for 2 tools"):
        train(states, some_rows()[:2], some_rows()[:2], Settings(steps=1))


def by_margins(*positions: tuple[int, int, float, float]) -> tuple[States, Tensor]:
    """Return states and two rows at which tool scores and the best word are as given.

    Args:
        positions: target, best tool, its logit less 0 (the other's), best word's logit.
    """
    hidden = torch.tensor([[top if tool == 0 else 0.0, top if tool == 1 else 0.0] for _, tool, top, _ in positions])
    targets = torch.tensor([target for target, *_ in positions])
    words = torch.tensor([word for *_, word in positions])
    zeros = torch.zeros(len(positions))
    places = torch.arange(len(positions))
    return States(hidden, words, zeros, words, targets, places * 0, places, zeros + 1), torch.eye(2)


TOOL0, TOOL1, WORD = FIRST_TOOL, FIRST_TOOL - 1, 7


def test_measures_are_the_hand_counted_ones() -> None:
    states, rows = by_margins(
        (TOOL0, 0, 5.0, 3.0),  # right, fires
        (TOOL0, 0, 2.0, 3.0),  # right, silent
        (TOOL1, 0, 5.0, 3.0),  # wrong, fires
        (TOOL1, 1, 4.0, 1.0),  # right, fires
        (WORD, 1, 6.0, 4.0),  # false
        (WORD, 0, 1.0, 4.0),
        (WORD, 0, 1.0, 1.0),  # as good as the word: silent
        (WORD, 0, 1.0, 9.0),
    )
    found = measure(states, rows)
    assert (found["selection"], found["recall"], found["false"]) == (0.75, 0.5, 0.25)
    assert (found["calls"], found["words"]) == (4, 4)
    assert found["tools"][0] == {"calls": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert found["tools"][1] == {"calls": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert found["margins"]["call_to_word"][0] == -3.0 and found["margins"]["call_to_word"][-1] == 3.0
    assert found["margins"]["call_to_tool"][0] == -5.0
    assert found["margins"]["word_to_tool"][0] == -8.0 and found["margins"]["word_to_tool"][-1] == 2.0
    more = measure(states, rows, bias=1.5)
    assert (more["selection"], more["recall"], more["false"]) == (0.75, 0.75, 0.5)
    assert json.loads(json.dumps(found)) == found


def test_measures_without_calls_or_without_words_are_none() -> None:
    states, rows = by_margins((TOOL0, 0, 5.0, 3.0))
    assert measure(states, rows)["false"] is None
    states, rows = by_margins((WORD, 0, 5.0, 3.0))
    found = measure(states, rows)
    assert found["selection"] is found["recall"] is None and found["tools"][1]["f1"] is None


@pytest.mark.parametrize("seed", range(20))
def test_no_bias_has_a_better_f1_than_the_chosen_one(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    size = 40
    states, _ = by_margins(*[(WORD, 0, 0.0, 0.0)] * size)
    targets = torch.where(torch.rand(size, generator=draw) < 0.4, torch.randint(-4, -1, (size,), generator=draw), WORD)
    states = replace(states, targets=targets, hidden=torch.randn(size, 3, generator=draw))
    states = replace(
        states, best_word=torch.randint(-2, 6, (size,), generator=draw).float(), weights=torch.full((size,), 1.5)
    )

    def f1(bias: float) -> float:
        scores = states.hidden @ torch.eye(3) + bias
        top, tool = scores.max(1)
        fires = top > states.best_word
        is_call = targets <= FIRST_TOOL
        right = float((fires & (FIRST_TOOL - targets == tool)).sum())
        fired = float((fires & is_call).sum()) + 1.5 * float((fires & ~is_call).sum())
        return 2 * right / max(1.0, fired + float(is_call.sum()))

    bias = best_bias(states, torch.eye(3))
    others = [value / 50 for value in range(-600, 600)]
    assert f1(bias) >= max(map(f1, others)) - 1e-9
    assert not any(abs(value) < abs(bias) - 0.2 and f1(value) >= f1(bias) + 1e-9 for value in others)


def test_of_equally_good_biases_the_nearest_to_0_is_chosen() -> None:
    states, rows = by_margins((TOOL0, 0, 5.0, 3.0), (WORD, 0, 1.0, 4.0))
    assert best_bias(states, rows) == 0.0
    states, rows = by_margins((TOOL0, 0, 1.0, 3.0), (WORD, 0, 1.0, 9.0))
    assert best_bias(states, rows) == 5.0  # between the thresholds 2 and 8
    states, rows = by_margins((WORD, 0, 1.0, 9.0))
    assert best_bias(states, rows) == 0.0


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_model_trains_rows_and_stays_as_it_is(tiny_model: Path, quantization: str) -> None:
    """Acceptance property 21."""
    check_quantised(load_tiny(tiny_model, quantization=quantization), is_batch_free=quantization != "int8")


@pytest.mark.slow
def test_a_model_from_gguf_trains_rows_and_stays_as_it_is() -> None:
    """Acceptance property 21."""
    check_quantised(load_lm(resolve({}), device="cpu", batch_size=1))


def check_quantised(lm: Any, *, is_batch_free: bool = True) -> None:
    """Check acceptance properties 1, 2, 3, 4 and 7 on whatever weights ``lm`` has."""
    encoded = encoded_of(lm, ROWS)
    ids = torch.tensor([encoded[0].token_ids])
    before = tensor_fingerprints(lm.model), lm.model(ids).logits
    states = frozen_states(lm, encoded)
    zeros = prior_rows(lm, prior_texts(TOOLBOX), prior="zeros")
    assert torch.equal(states.hidden @ zeros.T, torch.zeros(len(states), 3))
    prior = prior_rows(lm, prior_texts(TOOLBOX), prior="head_rows")
    full, cached = prior.clone().requires_grad_(), prior.clone().requires_grad_()
    loss_of(states, cached).backward()
    if is_batch_free:  # else what a token gets depends on what stands beside it
        expected = full_cross_entropy(lm, encoded, full)
        expected.backward()
        assert loss_of(states, cached).item() == pytest.approx(expected.item(), rel=1e-5)
        assert relative(cached.grad, full.grad) < 1e-4  # type: ignore[arg-type]
    assert all(parameter.grad is None for parameter in lm.model.parameters())
    rows, report = train(states, prior, prior, Settings(learning_rate=0.01, epochs=30, penalty=1e-4))
    assert sum(report["losses"][-9:]) < sum(report["losses"][:9])
    held, _ = train(states, prior, prior, Settings(learning_rate=0.01, steps=300, penalty=1e6))
    assert float((held - prior).abs().max()) < 0.05 < float((rows - prior).abs().max())
    assert tensor_fingerprints(lm.model) == before[0] and torch.equal(lm.model(ids).logits, before[1])
