"""The loss of cDPO: preference learning in which each token of a response has a weight of its own.

Lin et al., 2025 (arXiv 2411.19943). With ``D_t = log policy - log reference`` of the response tokens, the margin of a pair is
``beta * (sum of a_t D_t over the chosen response - sum of b_t D_t over the rejected one)``; all weights 1 make it DPO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from harness.errors import HarnessError
from harness.names import suggestion

Tensor = torch.Tensor
NORMALISATIONS = ("none", "mean_one")
AGGREGATES = ("sequence", "positions")


def token_weights(scores: Tensor, *, normalise: str = "none", labels: Tensor | None = None) -> Tensor:
    """Return the weight ``1 - score`` of each token.

    Args:
        scores: (..., T), contrastive scores from 0 to 1.
        normalise: ``none``, or ``mean_one``: see ``normalised``.
        labels: (..., T), below 0 where a position does not count; None where all do.

    Returns:
        (..., T), at least 0; 0 where a position does not count.

    Raises:
        HarnessError: a score that counts is not from 0 to 1, or there is no such normalisation.
    """
    # Rounding may leave the exponential of a log score a little above 1.
    weights = 1 - scores
    counted = _counted(weights, labels)
    if bool((~((weights >= -1e-5) & (weights <= 1)) & counted).any()):
        raise HarnessError(
            "a token's score is not from 0 to 1, so it makes no weight; give scores, not their logarithms"
        )
    return normalised(weights.clamp_min(0), normalise=normalise, labels=labels)


def log_score_weights(log_scores: Tensor, *, normalise: str = "none", labels: Tensor | None = None) -> Tensor:
    """Return ``token_weights`` of scores given as logarithms, exact also where a score is nearly 1."""
    return normalised(-torch.expm1(log_scores.clamp_max(0)), normalise=normalise, labels=labels)


def ratio_weights(
    log_ratios: Tensor, *, ratio_scale: float = 4.0, normalise: str = "none", labels: Tensor | None = None
) -> Tensor:
    """Return the weight ``min(1, max(0, -log_ratio / ratio_scale))`` of each token.

    Args:
        log_ratios: (..., T), ``log p - log q`` in nats.
        ratio_scale: nats by which the negative model is keener where the weight reaches 1, above 0.
        normalise: ``none``, or ``mean_one``: see ``normalised``.
        labels: (..., T), below 0 where a position does not count; None where all do.

    Raises:
        HarnessError: ``ratio_scale`` is not possible, or there is no such normalisation.
    """
    if not 0 < ratio_scale < math.inf:
        raise HarnessError(f"ratio_scale {ratio_scale} is not possible: give a finite number of nats above 0")
    return normalised((-log_ratios / ratio_scale).clamp(0, 1), normalise=normalise, labels=labels)


def normalised(weights: Tensor, *, normalise: str, labels: Tensor | None = None) -> Tensor:
    """Return weights that are 0 where a position does not count, and on average 1 if so wanted.

    Args:
        weights: (..., T), 0 or more.
        normalise: ``none`` leaves them; ``mean_one`` divides each row by the mean over the positions that count, so that
            responses push equally hard. A row of zeros stays zero.
        labels: (..., T), below 0 where a position does not count; None where all do.

    Raises:
        HarnessError: there is no such normalisation.
    """
    if normalise not in NORMALISATIONS:
        raise HarnessError(f"there is no weight normalisation '{normalise}'; {suggestion(normalise, NORMALISATIONS)}")
    counted = _counted(weights, labels)
    weights = weights.masked_fill(~counted, 0)
    if normalise == "none":
        return weights
    mean = weights.sum(-1, keepdim=True) / counted.sum(-1, keepdim=True).clamp_min(1)
    return torch.where(mean > 0, weights / mean.clamp_min(torch.finfo(weights.dtype).tiny), weights)


@dataclass(frozen=True)
class Responses:
    """One side of B pairs, position by position; what stands where a position does not count has no effect.

    Attributes:
        loglikelihoods: (B, T), nats, of the policy; with its gradient.
        reference: (B, T), nats, of the reference.
        weights: (B, T).
        counted: (B, T), true at the tokens of the response.
    """

    loglikelihoods: Tensor
    reference: Tensor
    weights: Tensor
    counted: Tensor

    def deltas(self) -> Tensor:
        """Return (B, T), weighted ``log policy - log reference``; 0 where a position does not count."""
        raw = self.weights * (self.loglikelihoods - self.reference)
        return torch.where(self.counted, raw, 0)

    def mean_loss(self) -> Tensor:
        """Return (B,), the mean cross-entropy per token of each response in nats; 0 for an empty one."""
        nats = torch.where(self.counted, self.loglikelihoods, 0).sum(-1)
        return -nats / self.counted.sum(-1).clamp_min(1)


def cdpo_loss(
    chosen_logits: Tensor,
    chosen_labels: Tensor,
    chosen_reference: Tensor,
    rejected_logits: Tensor,
    rejected_labels: Tensor,
    rejected_reference: Tensor,
    *,
    chosen_weights: Tensor,
    rejected_weights: Tensor,
    beta: float,
    sft_alpha: float = 0.0,
    aggregate: str = "sequence",
) -> Tensor:
    """Return the mean loss of B pairs.

    The two sides may have different numbers of positions. Weights, reference and labels carry no gradient.

    Args:
        chosen_logits: (B, T, V) of the policy, row t predicts label t; any float dtype.
        chosen_labels: (B, T), token ids; below 0 where a position does not count.
        chosen_reference: (B, T), log-probabilities (nats) of the labels by the reference.
        rejected_logits: (B, T, V), as ``chosen_logits``.
        rejected_labels: (B, T), as ``chosen_labels``.
        rejected_reference: (B, T), as ``chosen_reference``.
        chosen_weights: (B, T), 1 at each token in the paper.
        rejected_weights: (B, T), ``1 - score`` in the paper.
        beta: strength of the pull towards the reference, above 0.
        sft_alpha: how much of the mean cross-entropy per chosen token is added, 0 or more; 1 is RPO.
        aggregate: ``sequence`` or ``positions``: see ``pair_losses``.

    Returns:
        A scalar, float32 or the wider dtype of the logits.

    Raises:
        HarnessError: an option is not possible, or shapes do not fit.
    """
    chosen = _responses("chosen", chosen_logits, chosen_labels, chosen_reference, chosen_weights)
    rejected = _responses("rejected", rejected_logits, rejected_labels, rejected_reference, rejected_weights)
    return pair_losses(chosen, rejected, beta=beta, sft_alpha=sft_alpha, aggregate=aggregate).mean()


def pair_losses(
    chosen: Responses, rejected: Responses, *, beta: float, sft_alpha: float = 0.0, aggregate: str = "sequence"
) -> Tensor:
    """Return (B,), the loss of each pair, from log-probabilities.

    ``sequence``: ``-log sigmoid`` of the margin. ``positions``, for comparison with the released trainer: both responses
    begin at their first token, each position has a ``-log sigmoid`` of its own, a missing one counts 0, and a pair's loss is
    the mean over the positions of its longer response.

    Raises:
        HarnessError: an option is not possible, or the two sides have different numbers of pairs.
    """
    _check_options(beta, sft_alpha, aggregate)
    if len(chosen.counted) != len(rejected.counted):
        raise HarnessError(
            f"{len(chosen.counted)} chosen and {len(rejected.counted)} rejected responses make no pairs; give one of each"
        )
    if aggregate == "sequence":
        losses = -logsigmoid(margins(chosen, rejected, beta=beta))
    else:
        losses = _by_position(chosen, rejected, beta)
    return losses + sft_alpha * chosen.mean_loss() if sft_alpha else losses


def margins(chosen: Responses, rejected: Responses, *, beta: float) -> Tensor:
    """Return (B,), the margin of each pair: above 0 where the policy moved towards the chosen response."""
    return beta * (chosen.deltas().sum(-1) - rejected.deltas().sum(-1))


def token_loglikelihoods(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B, T), the log-probability of each label with its gradient; 0 where a position does not count.

    Only rows that count are looked at, so that what stands in others cannot reach the gradient.

    Args:
        logits: (B, T, V), row t predicts label t; float16 and bfloat16 are widened to float32.
        labels: (B, T), token ids; below 0 where a position does not count.
    """
    counted = labels >= 0
    rows = logits[counted]
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    nats = rows.gather(-1, labels[counted][:, None])[:, 0] - rows.logsumexp(-1)
    return nats.new_zeros(labels.shape).masked_scatter(counted, nats)


def _responses(side: str, logits: Tensor, labels: Tensor, reference: Tensor, weights: Tensor) -> Responses:
    """Return one side, its log-probabilities taken from logits."""
    shapes = {"logits": logits.shape[:-1], "reference": reference.shape, "weights": weights.shape}
    for name, shape in shapes.items():
        if shape != labels.shape:
            raise HarnessError(
                f"the {side} {name} are for positions of shape {tuple(shape)}, its labels have {tuple(labels.shape)}; "
                "give one value for each label"
            )
    loglikelihoods = token_loglikelihoods(logits, labels)
    dtype = loglikelihoods.dtype
    return Responses(loglikelihoods, reference.detach().to(dtype), weights.detach().to(dtype), labels >= 0)


def _by_position(chosen: Responses, rejected: Responses, beta: float) -> Tensor:
    """Return (B,), the loss of each pair as a mean over positions."""
    length = max(side.counted.shape[-1] for side in (chosen, rejected))
    first, second = (_from_first_token(side.deltas(), side.counted, length) for side in (chosen, rejected))
    positions = torch.maximum(chosen.counted.sum(-1), rejected.counted.sum(-1))
    is_due = torch.arange(length, device=positions.device) < positions[:, None]
    losses = torch.where(is_due, -logsigmoid(beta * (first - second)), 0).sum(-1)
    # Two empty responses: what both would have at margin 0.
    return torch.where(positions > 0, losses / positions.clamp_min(1), math.log(2))


def _from_first_token(values: Tensor, counted: Tensor, length: int) -> Tensor:
    """Return (B, length) in which the values that count come first, in their order, and zeros follow."""
    order = (~counted).to(torch.int8).argsort(dim=-1, stable=True)
    return torch.nn.functional.pad(values.gather(-1, order), (0, length - values.shape[-1]))


def _counted(weights: Tensor, labels: Tensor | None) -> Tensor:
    """Return which positions count, in the shape of ``weights``."""
    if labels is None:
        return torch.ones_like(weights, dtype=torch.bool)
    if labels.shape != weights.shape:
        raise HarnessError(
            f"scores of shape {tuple(weights.shape)} do not fit labels of shape {tuple(labels.shape)}; "
            "give one score for each label"
        )
    return labels >= 0


def _check_options(beta: float, sft_alpha: float, aggregate: str) -> None:
    if not 0 < beta < math.inf:
        raise HarnessError(f"beta {beta} is not possible: give a finite number above 0")
    if not 0 <= sft_alpha < math.inf:
        raise HarnessError(f"sft_alpha {sft_alpha} is not possible: give a finite number of 0 or more")
    if aggregate not in AGGREGATES:
        raise HarnessError(f"there is no aggregate '{aggregate}'; {suggestion(aggregate, AGGREGATES)}")
