"""Contrastive scores against golden numbers, and what has to hold for any logits."""

from __future__ import annotations

import math

import critical_golden
import pytest
import torch

from harness import HarnessError
from harness_critical_tokens import contrast
from harness_critical_tokens.contrast import log_ratios, log_scores, loglikelihoods


def logits(seed: int, *shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("case", critical_golden.rows("contrastive_scores"), ids=lambda case: case["id"])
def test_scores_are_the_golden_ones(case):
    """Property 12: log scores to 1e-10 in float64, to 1e-5 in float32 (1e-3 with offsets of hundreds)."""
    positive, negative = (
        torch.tensor(case[f"{side}_logits"], dtype=torch.float64) for side in ("positive", "negative")
    )
    labels, due = torch.tensor(case["labels"]), torch.tensor(case["log_scores"], dtype=torch.float64)
    exact = log_scores(positive, negative, labels, contrast=case["beta"])
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact, due, atol=1e-10, rtol=1e-10)
    narrow = log_scores(positive.float(), negative.float(), labels, contrast=case["beta"])
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), due, atol=1e-3 if "offsets" in case["note"] else 1e-5, rtol=1e-5)
    for side, rows in (("positive", positive), ("negative", negative)):
        due = torch.tensor(case[f"{side}_logps"], dtype=torch.float64)
        torch.testing.assert_close(loglikelihoods(rows, labels), due, atol=1e-10, rtol=1e-10)


def test_a_constant_on_one_position_changes_nothing():
    """Property 12: softmax does not see it, in the positive model nor in the negative one."""
    positive, negative, labels = logits(0, 4, 7), logits(1, 4, 7), torch.tensor([0, 3, 6, 2])
    before = log_scores(positive, negative, labels, contrast=1.5)
    shift = torch.tensor([[0.0], [300.0], [-40.0], [7.0]], dtype=torch.float64)
    for shifted in ((positive + shift, negative), (positive, negative + shift)):
        torch.testing.assert_close(log_scores(*shifted, labels, contrast=1.5), before, atol=1e-10, rtol=0)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 3.0])
def test_scores_are_a_distribution_and_equal_p_without_a_contrast(strength):
    """Property 13: contrast 0 or equal models give p; from 0 to 1; over the whole vocabulary they sum to 1."""
    positive, negative, everything = logits(2, 1, 9).expand(9, 9), logits(3, 1, 9).expand(9, 9), torch.arange(9)
    scores = log_scores(positive, negative, everything, contrast=strength).exp()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert float(scores.sum()) == pytest.approx(1, abs=1e-12)
    p = positive.log_softmax(-1).diagonal().exp()
    torch.testing.assert_close(log_scores(positive, positive, everything, contrast=strength).exp(), p)
    torch.testing.assert_close(log_scores(positive, negative, everything, contrast=0).exp(), p)


def test_scores_rise_with_the_positive_logit_and_fall_with_the_negative_one():
    """Property 14: raising only q's logit of the label lowers the score, raising p's raises it."""
    positive, negative, label = logits(4, 1, 6), logits(5, 1, 6), torch.tensor([2])
    raised = torch.zeros(1, 6, dtype=torch.float64)
    raised[0, 2] = 0.1
    before = log_scores(positive, negative, label, contrast=1)
    assert log_scores(positive, negative + raised, label, contrast=1) < before
    assert log_scores(positive + raised, negative, label, contrast=1) > before


def test_swapping_the_models_flips_the_sign_of_the_ratio():
    """Property 16: and equal models have the ratio 0."""
    positive, negative, labels = logits(6, 3, 5), logits(7, 3, 5), torch.tensor([1, -100, 4])
    ratios = log_ratios(positive, negative, labels)
    assert torch.equal(ratios, -log_ratios(negative, positive, labels))
    assert ratios[1] == 0 and not log_ratios(positive, positive, labels).any()


def test_chunks_and_batches_give_what_the_whole_gives(monkeypatch):
    """Property 19: of scores, chunked over positions."""
    positive, negative = logits(8, 2, 7, 11), logits(9, 2, 7, 11)
    labels = torch.arange(14).reshape(2, 7) % 11
    labels[1, 4:] = -100
    whole = log_scores(positive, negative, labels, contrast=1)
    monkeypatch.setattr(contrast, "MOST_LOGITS", 25)
    torch.testing.assert_close(log_scores(positive, negative, labels, contrast=1), whole, atol=1e-12, rtol=0)
    alone = [log_scores(positive[row], negative[row], labels[row], contrast=1) for row in range(2)]
    torch.testing.assert_close(torch.stack(alone), whole, atol=1e-12, rtol=0)


def test_a_position_that_does_not_count_is_zero_whatever_stands_there():
    positive, negative = logits(10, 3, 4), logits(11, 3, 4)
    positive[1], negative[1] = math.nan, -math.inf
    scores = log_scores(positive, negative, torch.tensor([0, -100, 3]), contrast=1)
    assert scores[1] == 0 and scores.isfinite().all()
    assert not log_scores(positive, negative, torch.full((3,), -100), contrast=1).any()
    assert log_scores(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), contrast=1).shape == (0,)


def test_ids_that_both_models_mask_are_left_out_of_the_sum():
    positive, negative, labels = logits(12, 2, 6), logits(13, 2, 6), torch.tensor([1, 2])
    due = log_scores(positive[:, :4], negative[:, :4], labels, contrast=1)
    positive[:, 4:] = negative[:, 4:] = -math.inf
    torch.testing.assert_close(log_scores(positive, negative, labels, contrast=1), due, atol=1e-12, rtol=0)
    assert log_scores(positive, negative, torch.tensor([4, 5]), contrast=1).exp().tolist() == [0, 0]


def test_half_precision_is_widened_first():
    positive, negative, labels = logits(14, 3, 5), logits(15, 3, 5), torch.tensor([0, 1, 2])
    for dtype in (torch.bfloat16, torch.float16):
        narrow = (positive.to(dtype), negative.to(dtype))
        scores = log_scores(*narrow, labels, contrast=1)
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, log_scores(*(each.float() for each in narrow), labels, contrast=1))


def test_what_cannot_be_scored_is_said_in_one_sentence():
    positive, negative, labels = logits(16, 2, 4), logits(17, 2, 4), torch.tensor([0, 1])
    for strength in (-1, math.nan, math.inf):
        with pytest.raises(HarnessError, match=r"contrast .* is not possible"):
            log_scores(positive, negative, labels, contrast=strength)
    with pytest.raises(HarnessError, match="do not fit labels of shape"):
        log_scores(positive, negative[:, :3], labels, contrast=1)
    with pytest.raises(HarnessError, match="do not fit labels of shape"):
        loglikelihoods(positive, labels[:1])
    negative[1, 3] = -math.inf
    with pytest.raises(HarnessError, match="negative model rules out a token"):
        log_scores(positive, negative, labels, contrast=1)
