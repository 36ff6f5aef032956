"""Weights of the tokens of rejected responses: by score, and the controls that a gain has to beat."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Literal

import torch

from harness import HarnessError
from harness.models.spans import first_token
from harness.seeds import stream_seed
from harness_critical_tokens.encoding import Encoded
from harness_critical_tokens.loss import log_score_weights, normalised, ratio_weights
from harness_critical_tokens.pairs_file import Pair
from harness_critical_tokens.scoring import TokenScores

ScoreName = Literal[
    "contrastive", "log_ratio", "none", "permuted", "permuted_log_ratio", "first_difference", "probability", "positive", "given"
]  # fmt: skip
PERMUTED = {"permuted": "contrastive", "permuted_log_ratio": "log_ratio"}


def rejected_weights(
    score: ScoreName, scores: TokenScores | None, pair: Pair, response: Encoded, *, ratio_scale: float, seed: int
) -> list[float]:
    """Return the weight of each of the T tokens of a rejected response, 0 to 1.

    Args:
        score: which weights; ``none`` is 1 everywhere (DPO), ``given`` are those of the pair's own ``weights``.
        scores: of the response, where the weights are made of them (``probability`` needs ``base`` alone).
        pair: the response's.
        response: its tokens.
        ratio_scale: nats at which ``log_ratio`` is 1.
        seed: permutes.

    Raises:
        HarnessError: the pair gives no weights, or none that can be read.
    """
    if score == "none":
        return [1.0] * len(response.offsets)
    if score == "first_difference":
        place = _first_difference(pair, response)
        return [float(number == place) for number in range(len(response.offsets))]
    if score == "given":
        return _given(pair, response)
    assert scores is not None
    if score in PERMUTED:
        weights = of_scores(PERMUTED[score], scores, ratio_scale=ratio_scale)
        random.Random(stream_seed(seed, "permuted", pair.number)).shuffle(weights)
        return weights
    return of_scores(score, scores, ratio_scale=ratio_scale)


def of_scores(score: str, scores: TokenScores, *, ratio_scale: float) -> list[float]:
    """Return what scores say of each token: 1 - s, the log ratio below 0 on a scale, 1 - p, 1 - q or 1 - base."""
    if score == "log_ratio":
        return listed(ratio_weights(_wide(scores.log_ratio), ratio_scale=ratio_scale))
    logs = {
        "contrastive": scores.log_score,
        "positive": scores.positive,
        "negative": scores.negative,
        "probability": scores.base,
    }[score]
    return listed(log_score_weights(_wide(logs)))


def normalised_weights(weights: Sequence[float], normalise: str) -> list[float]:
    """Return the weights of a response as they are, or with ``mean_one`` so that their average is 1."""
    return listed(normalised(_wide(weights), normalise=normalise))


def listed(weights: torch.Tensor) -> list[float]:
    """Return a tensor's numbers."""
    numbers: list[float] = weights.tolist()
    return numbers


def weight_figures(rows: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """Return the mean weight of all tokens, and the share of all weight in the tenth of the tokens that have most."""
    ordered = sorted((weight for row in rows for weight in row), reverse=True)
    total = math.fsum(ordered)
    top = math.fsum(ordered[: max(1, len(ordered) // 10)])
    return {"mean_weight": total / max(1, len(ordered)), "weight_in_top_tenth": top / total if total else None}


def _wide(numbers: Sequence[float]) -> torch.Tensor:
    return torch.tensor(list(numbers), dtype=torch.float64)


def _first_difference(pair: Pair, response: Encoded) -> int:
    same = 0
    for ours, theirs in zip(pair.rejected, pair.chosen, strict=False):
        if ours != theirs:
            break
        same += 1
    return min(first_token(response.offsets, same), len(response.offsets) - 1)


def _given(pair: Pair, response: Encoded) -> list[float]:
    spans = pair.row.get("weights")
    if not isinstance(spans, list) or not all(map(_is_span, spans)):
        raise HarnessError(
            f"score=given needs 'weights' in every pair, a list of [first character, end, weight from 0 to 1] of its rejected "
            f"response; pair {pair.number} has none such"
        )
    return [
        max((float(weight) for first, last, weight in spans if first < end and start < last), default=0.0)
        for start, end in response.offsets
    ]


def _is_span(span: Any) -> bool:
    return (
        isinstance(span, list)
        and len(span) == 3
        and all(isinstance(number, int | float) and not isinstance(number, bool) for number in span)
        and 0 <= span[2] <= 1
    )
