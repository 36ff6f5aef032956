"""Contrastive scores: how likely two models find each token, one trained on right solutions, the other on wrong ones.

Lin et al., 2025 (arXiv 2411.19943). All of it in log space and over the whole vocabulary: the score of a token cannot be had
from the two probabilities of that token alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from harness.errors import HarnessError

Tensor = torch.Tensor
IGNORED = -100
"""The label of a position that does not count: prompt or padding. Any label below 0 is taken so."""
MOST_LOGITS = 1 << 24
"""Logits of one model that are worked on at once; more positions are taken in parts."""


@torch.no_grad()
def log_scores(positive_logits: Tensor, negative_logits: Tensor, labels: Tensor, *, contrast: float) -> Tensor:
    """Return the log of the contrastive score of each label, ``softmax((1 + contrast) * P - contrast * Q)[label]``.

    A token that both models rule out (a logit of minus infinity) scores 0 and is left out of the sum.

    Args:
        positive_logits: (..., V), row t predicts label t, of the model trained on right solutions; any float dtype.
        negative_logits: the same shape, of the model trained on wrong solutions.
        labels: (...), token ids; below 0 where a position does not count.
        contrast: 0 or more; 0 gives the positive model's own log-probability.

    Returns:
        (...), at most 0, float32 or the wider dtype of the logits; 0 where a position does not count. No gradient.

    Raises:
        HarnessError: ``contrast`` is no finite number of 0 or more, the shapes differ, or the negative model alone rules
            out a token: its score would be infinite.
    """
    _check_contrast(contrast)

    def score(positive: Tensor, negative: Tensor, label: Tensor) -> Tensor:
        combined = _combined(positive, negative, contrast)
        return _of_label(combined, label) - combined.logsumexp(-1)

    return _where_counted(score, labels, positive_logits, negative_logits)


@torch.no_grad()
def log_ratios(positive_logits: Tensor, negative_logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``log p - log q`` of each label: 0 where the models agree, however unlikely the token is.

    Args:
        positive_logits: (..., V), row t predicts label t.
        negative_logits: the same shape.
        labels: (...), token ids; below 0 where a position does not count.

    Returns:
        (...), nats, negative where the negative model is keener; 0 where a position does not count. No gradient.

    Raises:
        HarnessError: the shapes differ.
    """
    return loglikelihoods(positive_logits, labels) - loglikelihoods(negative_logits, labels)


@torch.no_grad()
def loglikelihoods(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the log-probability of each label, nats; 0 where a position does not count.

    Args:
        logits: (..., V), row t predicts label t, any float dtype.
        labels: (...), token ids; below 0 where a position does not count.

    Returns:
        (...), float32 or the wider dtype of the logits. No gradient.

    Raises:
        HarnessError: the shapes differ.
    """

    def score(rows: Tensor, label: Tensor) -> Tensor:
        return _of_label(rows, label) - rows.logsumexp(-1)

    return _where_counted(score, labels, logits)


def _where_counted(score: Callable[..., Tensor], labels: Tensor, *logits: Tensor) -> Tensor:
    """Return ``score`` of the rows that count, some at a time and at least in float32; 0 elsewhere."""
    for each in logits:
        if each.shape != logits[0].shape or each.shape[:-1] != labels.shape or each.ndim == 0:
            shapes = " and ".join(str(tuple(each.shape)) for each in logits)
            raise HarnessError(
                f"logits of shape {shapes} do not fit labels of shape {tuple(labels.shape)}; give one row of the whole "
                "vocabulary for each label"
            )
    dtype = torch.promote_types(torch.promote_types(logits[0].dtype, logits[-1].dtype), torch.float32)
    scores = torch.zeros(labels.shape, dtype=dtype, device=labels.device)
    counted = (labels >= 0).nonzero(as_tuple=True)
    rows = max(1, MOST_LOGITS // max(1, logits[0].shape[-1]))
    for start in range(0, len(counted[0]) if counted else 0, rows):
        part = tuple(index[start : start + rows] for index in counted)
        scores[part] = score(*(each[part].to(dtype) for each in logits), labels[part])
    return scores


def _combined(positive: Tensor, negative: Tensor, contrast: float) -> Tensor:
    """Return (n, V) logits of the contrast; offsets of a row are taken out first, which keeps float32 exact."""
    positive = positive - positive.amax(-1, keepdim=True)
    if contrast == 0:
        return positive
    negative = negative - negative.amax(-1, keepdim=True)
    is_ruled_out = positive == -math.inf
    if bool(((negative == -math.inf) & ~is_ruled_out).any()):
        raise HarnessError(
            "the negative model rules out a token (a logit of minus infinity) that the positive model allows, so its "
            "score would be infinite; mask the same tokens in both models"
        )
    return torch.where(is_ruled_out, -math.inf, (1 + contrast) * positive - contrast * negative)


def _of_label(rows: Tensor, label: Tensor) -> Tensor:
    return rows.gather(-1, label[:, None])[:, 0]


def _check_contrast(contrast: float) -> None:
    if not 0 <= contrast < math.inf:
        raise HarnessError(f"contrast {contrast} is not possible: give a finite number of 0 or more")
