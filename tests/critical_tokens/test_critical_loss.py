"""Weights and the loss of cDPO against golden numbers, and what has to hold for any input."""

from __future__ import annotations

import math
from typing import Any

import critical_golden
import pytest
import torch
from torch.nn.functional import logsigmoid

from harness import HarnessError
from harness_critical_tokens.loss import (
    Responses,
    cdpo_loss,
    log_score_weights,
    margins,
    ratio_weights,
    token_loglikelihoods,
    token_weights,
)

CASES = critical_golden.rows("cdpo_losses")
SIDES = ("chosen", "rejected")


def one_side(pairs: list[dict[str, Any]], side: str, dtype: torch.dtype, noise: float = 0.0) -> dict[str, torch.Tensor]:
    """Return the arguments of one side of a golden case, rows filled up to the longest with ``noise``."""
    rows = [len(pair[f"{side}_labels"]) for pair in pairs]
    vocabulary = len(pairs[0][f"policy_{side}_logits"][0])
    logits = torch.full((len(pairs), max(rows), vocabulary), noise, dtype=dtype)
    labels = torch.full((len(pairs), max(rows)), -100)
    reference, weights = (torch.full((len(pairs), max(rows)), noise, dtype=dtype) for _ in range(2))
    for row, (pair, length) in enumerate(zip(pairs, rows, strict=True)):
        logits[row, :length] = torch.tensor(pair[f"policy_{side}_logits"], dtype=dtype)
        labels[row, :length] = torch.tensor(pair[f"{side}_labels"])
        reference[row, :length] = torch.tensor(pair[f"reference_{side}_logps"], dtype=dtype)
        weights[row, :length] = torch.tensor(pair[f"{side}_weights"], dtype=dtype)
    return {"logits": logits.requires_grad_(), "labels": labels, "reference": reference, "weights": weights}


def loss_of(chosen: dict[str, torch.Tensor], rejected: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
    return cdpo_loss(
        *(side[name] for side in (chosen, rejected) for name in ("logits", "labels", "reference")),
        chosen_weights=chosen["weights"],
        rejected_weights=rejected["weights"],
        **{"beta": 0.3, **options},
    )


def random_side(seed: int, pairs: int = 2, tokens: int = 4) -> dict[str, torch.Tensor]:
    """Return one side of random pairs of which each later one is a token shorter, behind one token of prompt."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 6, (pairs, tokens), generator=random)
    labels[:, 0] = -100
    for row in range(1, pairs):
        labels[row, tokens - row :] = -100
    logits, reference = (
        torch.randn(*shape, generator=random, dtype=torch.float64) for shape in ((pairs, tokens, 6), (pairs, tokens))
    )
    weights = torch.rand(pairs, tokens, generator=random, dtype=torch.float64)
    return {"logits": logits.requires_grad_(), "labels": labels, "reference": reference, "weights": weights}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_loss_margin_and_gradients_are_the_golden_ones(case, dtype):
    """Property 2: to 1e-10 in float64 and 1e-5 in float32; both aggregates."""
    limit = {"atol": 1e-10, "rtol": 1e-10} if dtype == torch.float64 else {"atol": 1e-5, "rtol": 1e-5}
    chosen, rejected = (one_side(case["pairs"], side, dtype, noise=0.7) for side in SIDES)
    options = {"beta": case["beta"], "sft_alpha": case["sft_alpha"]}
    loss = loss_of(chosen, rejected, **options)
    loss.backward()
    expected = case["expected"]
    assert loss.dtype == dtype
    torch.testing.assert_close(loss.detach(), torch.tensor(expected["loss"], dtype=dtype), **limit)
    for row, pair in enumerate(expected["pairs"]):
        for name, side in zip(SIDES, (chosen, rejected), strict=True):
            due = torch.tensor(pair[f"grad_policy_{name}_logits"], dtype=dtype)
            torch.testing.assert_close(side["logits"].grad[row, : len(due)], due, **limit)
    sides = [
        Responses(
            token_loglikelihoods(side["logits"], side["labels"]),
            side["reference"],
            side["weights"],
            side["labels"] >= 0,
        )
        for side in (chosen, rejected)
    ]
    due = torch.tensor([pair["margin"] for pair in expected["pairs"]], dtype=dtype)
    torch.testing.assert_close(margins(*sides, beta=case["beta"]).detach(), due, **limit)
    by_position = loss_of(chosen, rejected, beta=case["beta"], aggregate="positions")
    due = torch.tensor(expected["positions_preference_loss"], dtype=dtype)
    torch.testing.assert_close(by_position.detach(), due, **limit)


def test_weights_of_one_make_it_dpo():
    """Property 1: the sigmoid loss of the four summed log-probabilities, 1e-12 in float64 and 1e-6 in float32."""
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        chosen, rejected = random_side(0), random_side(1)
        for side in (chosen, rejected):
            side["weights"] = torch.ones_like(side["weights"])
            side["logits"] = side["logits"].detach().to(dtype)
        sums = []
        for side in (chosen, rejected):
            counted = side["labels"] >= 0
            policy = side["logits"].log_softmax(-1).gather(-1, side["labels"].clamp_min(0)[..., None])[..., 0]
            sums.append(((policy - side["reference"].to(dtype)) * counted).sum(-1))
        due = -logsigmoid(0.3 * (sums[0] - sums[1])).mean()
        torch.testing.assert_close(loss_of(chosen, rejected), due, atol=0, rtol=limit)


@pytest.mark.parametrize("aggregate", ["sequence", "positions"])
def test_gradients_are_central_differences(aggregate):
    """Property 3: of random small inputs, in float64 to 1e-6, with the cross-entropy term."""
    chosen, rejected = random_side(2), random_side(3, tokens=5)

    def loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        sides = ({**chosen, "logits": first}, {**rejected, "logits": second})
        return loss_of(*sides, sft_alpha=0.5, aggregate=aggregate)

    assert torch.autograd.gradcheck(loss, (chosen["logits"], rejected["logits"]), eps=1e-6, atol=1e-6)


def test_at_the_reference_the_loss_is_log_two():
    """Property 4: whatever the weights; the gradient of the rejected side is proportional to its weights."""
    chosen, rejected = random_side(4, pairs=1), random_side(5, pairs=1)
    for side in (chosen, rejected):
        side["reference"] = token_loglikelihoods(side["logits"], side["labels"]).detach()
    for aggregate in ("sequence", "positions"):
        assert float(loss_of(chosen, rejected, aggregate=aggregate).detach()) == pytest.approx(math.log(2), abs=1e-12)
    loss_of(chosen, rejected).backward()
    label = rejected["labels"][0, 1:]
    bare = torch.nn.functional.one_hot(label, 6) - rejected["logits"][0, 1:].detach().softmax(-1)
    due = 0.3 * 0.5 * rejected["weights"][0, 1:, None] * bare
    torch.testing.assert_close(rejected["logits"].grad[0, 1:], due)


def test_weights_of_zero_leave_the_rejected_response_alone():
    """Property 5: its gradient is exactly 0, and the loss still depends on the chosen one."""
    chosen, rejected = random_side(6), random_side(7)
    rejected["weights"] = torch.zeros_like(rejected["weights"])
    loss_of(chosen, rejected).backward()
    assert not rejected["logits"].grad.any()
    assert chosen["logits"].grad.any()


@pytest.mark.parametrize("aggregate", ["sequence", "positions"])
@pytest.mark.parametrize("left", [0, 3])
def test_padding_and_neighbours_change_nothing(aggregate, left):
    """Properties 6 and 7: padding right or left, with noise in it, and other pairs beside; weights there do not matter."""
    chosen, rejected = random_side(8), random_side(9, tokens=6)
    alone = [
        loss_of(
            *({name: value[row : row + 1] for name, value in side.items()} for side in (chosen, rejected)),
            aggregate=aggregate,
            sft_alpha=0.2,
        )
        for row in range(2)
    ]
    padded = [pad(side, left, right=2) for side in (chosen, rejected)]
    together = loss_of(*padded, aggregate=aggregate, sft_alpha=0.2)
    torch.testing.assert_close(together, torch.stack(alone).mean(), atol=1e-12, rtol=0)
    turned = [{name: value.flip(0) for name, value in side.items()} for side in padded]
    torch.testing.assert_close(loss_of(*turned, aggregate=aggregate, sft_alpha=0.2), together, atol=1e-12, rtol=0)
    torch.autograd.backward([together])
    for side, before in zip(padded, (chosen, rejected), strict=True):
        gradient = side["logits"].grad
        assert not gradient[side["labels"] < 0].any()
        [due] = torch.autograd.grad(loss_of(chosen, rejected, aggregate=aggregate, sft_alpha=0.2), [before["logits"]])
        width = before["labels"].shape[1]
        torch.testing.assert_close(gradient[:, left : left + width], due, atol=1e-12, rtol=0)


def pad(side: dict[str, torch.Tensor], left: int, right: int) -> dict[str, torch.Tensor]:
    """Return the side with noise left and right, and at each position that does not count."""
    sizes = {
        "logits": (0, 0, left, right),
        "labels": (left, right),
        "reference": (left, right),
        "weights": (left, right),
    }
    padded = {
        name: torch.nn.functional.pad(side[name].detach(), size, value=-100 if name == "labels" else 9e4)
        for name, size in sizes.items()
    }
    padded["weights"][padded["labels"] < 0] = -7e8
    padded["logits"].requires_grad_()
    return padded


def test_the_loss_follows_each_weight_and_the_margin_is_linear():
    """Properties 8 and 9: more weight on a token that became likelier costs; doubling beta doubles the margin."""
    chosen, rejected = random_side(10, pairs=1), random_side(11, pairs=1)
    likelihoods = [token_loglikelihoods(side["logits"].detach(), side["labels"]) for side in (chosen, rejected)]
    deltas = (likelihoods[1] - rejected["reference"])[0]
    before = loss_of(chosen, rejected)
    for place in (1, 2, 3):
        more = rejected["weights"].clone()
        more[0, place] += 0.01
        after = loss_of(chosen, {**rejected, "weights": more})
        assert (after > before) == (deltas[place] > 0)

    def margin(weights: torch.Tensor, beta: float) -> float:
        sides = (
            Responses(nats, side["reference"], used, side["labels"] >= 0)
            for nats, side, used in zip(likelihoods, (chosen, rejected), (chosen["weights"], weights), strict=True)
        )
        return float(margins(*sides, beta=beta))

    weights, none = rejected["weights"], torch.zeros_like(rejected["weights"])
    assert margin(weights, 0.6) == pytest.approx(2 * margin(weights, 0.3))
    share = margin(weights, 0.3) - margin(none, 0.3)
    assert margin(3 * weights, 0.3) - margin(none, 0.3) == pytest.approx(3 * share)


def test_one_tiny_step_lowers_the_loss():
    """Property 11: of that pair."""
    chosen, rejected = random_side(12, pairs=1), random_side(13, pairs=1)
    before = loss_of(chosen, rejected)
    before.backward()
    for side in (chosen, rejected):
        side["logits"] = side["logits"].detach() - 1e-3 * side["logits"].grad
    assert loss_of(chosen, rejected) < before


def test_empty_responses_leave_the_loss_defined():
    chosen, rejected = random_side(14), random_side(15)
    for side in (chosen, rejected):
        side["labels"] = torch.full_like(side["labels"], -100)
    for aggregate in ("sequence", "positions"):
        loss = loss_of(chosen, rejected, aggregate=aggregate, sft_alpha=1.0)
        assert float(loss.detach()) == pytest.approx(math.log(2))
        loss.backward()
    assert not chosen["logits"].grad.any()


@pytest.mark.parametrize("case", critical_golden.rows("token_weights"), ids=lambda case: case["id"])
def test_weights_are_the_golden_ones(case):
    """Property 29: none and mean_one."""
    weights = token_weights(torch.tensor(case["scores"], dtype=torch.float64), normalise=case["normalise"])
    torch.testing.assert_close(weights, torch.tensor(case["weights"], dtype=torch.float64), atol=1e-12, rtol=0)


def test_weights_average_one_over_the_tokens_that_count():
    """Property 29: exactly 1 over response tokens of each row; all-zero stays zero."""
    scores = torch.rand(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([[1, 1, 1, 1, 1, 1], [-100, -100, 1, 1, 1, -100], [-100] * 6])
    scores[1, 0], scores[2] = math.nan, 7.0  # noise where nothing counts
    weights = token_weights(scores, normalise="mean_one", labels=labels)
    assert weights.sum(-1).tolist() == pytest.approx([6, 3, 0], abs=1e-12)
    assert not weights[labels < 0].any()
    assert not token_weights(torch.ones(2, 4), normalise="mean_one").any()
    assert not token_weights(torch.zeros(1, 0), normalise="mean_one").any()


def test_weights_of_logarithms_and_ratios():
    logs = torch.tensor([0.0, -1e-9, -2.0, -math.inf, 1e-8], dtype=torch.float64)
    assert log_score_weights(logs).tolist() == pytest.approx([0, 1e-9, 1 - math.exp(-2), 1, 0], rel=1e-9)
    ratios = torch.tensor([-8.0, -1.0, 0.0, 3.0])
    assert ratio_weights(ratios).tolist() == [1, 0.25, 0, 0]
    assert ratio_weights(ratios, normalise="mean_one").mean() == 1
    assert ratio_weights(ratios, ratio_scale=2, labels=torch.tensor([-100, 1, 1, 1])).tolist() == [0, 0.5, 0, 0]


def test_what_makes_no_loss_is_said_in_one_sentence():
    chosen, rejected = random_side(16), random_side(17)
    for options, words in (
        ({"beta": 0}, "beta 0 is not possible"),
        ({"beta": math.nan}, "beta nan is not possible"),
        ({"sft_alpha": -1}, "sft_alpha -1 is not possible"),
        ({"aggregate": "sequences"}, "did you mean 'sequence'"),
    ):
        with pytest.raises(HarnessError, match=words):
            loss_of(chosen, rejected, **options)
    with pytest.raises(HarnessError, match="the rejected weights are for positions of shape"):
        loss_of(chosen, {**rejected, "weights": rejected["weights"][:, :2]})
    with pytest.raises(HarnessError, match="make no pairs"):
        loss_of(chosen, random_side(18, pairs=1))
    for scores, words in ((torch.tensor([-1.5]), "not from 0 to 1"), (torch.tensor([math.nan]), "not from 0 to 1")):
        with pytest.raises(HarnessError, match=words):
            token_weights(scores)
    with pytest.raises(HarnessError, match="no weight normalisation 'mean'"):
        token_weights(torch.zeros(2), normalise="mean")
    with pytest.raises(HarnessError, match="do not fit labels"):
        token_weights(torch.zeros(2), labels=torch.zeros(3))
    with pytest.raises(HarnessError, match="ratio_scale 0 is not possible"):
        ratio_weights(torch.zeros(2), ratio_scale=0)
