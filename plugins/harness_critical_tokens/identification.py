"""How well weights find the critical token, where it is known: rank of the token that covers the planted error."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.models.spans import first_token
from harness.seeds import stream_seed
from harness_critical_tokens.encoding import Encoded
from harness_critical_tokens.pairs_file import Pair
from harness_critical_tokens.scoring import TokenScores
from harness_critical_tokens.weighting import of_scores

GROUPS = ("kind", "style")  # keys of a pair by whose values the figures are shown apart
Figures = dict[str, float]


@dataclass(frozen=True)
class Ranking:
    """One way to order tokens: ``order`` gives the numbers that rank, ``weigh`` those whose share is looked at."""

    order: Callable[[TokenScores], Sequence[float]]
    weigh: Callable[[TokenScores], Sequence[float]]


def rankings(ratio_scale: float) -> dict[str, Ranking]:
    """Return the ways by name: the paper's weight, the log ratio, each model alone, and the untouched base."""

    def by(name: str) -> Ranking:
        def weigh(scores: TokenScores) -> list[float]:
            return of_scores(name, scores, ratio_scale=ratio_scale)

        logs = {"contrastive": "log_score", "positive": "positive", "negative": "negative", "probability": "base"}
        # Ranked by logarithms: weights near 1 would be equal.
        source = logs.get(name, "log_ratio")
        return Ranking(lambda scores: [-log for log in getattr(scores, source)], weigh)

    return {name: by(name) for name in ("contrastive", "log_ratio", "positive", "negative", "probability")}


def identification(
    pairs: Sequence[Pair],
    rejected: Sequence[Encoded],
    scores: Sequence[TokenScores],
    *,
    ratio_scale: float,
    seed: int,
) -> dict[str, Any] | None:
    """Return by ranking ``hit_at_1``, ``hit_at_3``, ``mean_reciprocal_rank``, ``auc``, ``share``, ``share_propagated``.

    Each is a mean over the rejected responses whose critical place is known, and stands once more for each kind and style.

    Args:
        pairs: the pairs.
        rejected: the tokens of their rejected responses.
        scores: of these tokens.
        ratio_scale: nats at which the weight by log ratio is 1.
        seed: of the random ranking.

    Returns:
        None where no pair says which character is the first wrong one.
    """
    known = [
        (pair, response, of_pair)
        for pair, response, of_pair in zip(pairs, rejected, scores, strict=True)
        if _has_place(pair)
    ]
    if not known:
        return None
    table: dict[str, Any] = {"responses": len(known)}
    for name, ranking in rankings(ratio_scale).items():
        rows = [(pair, _figures(pair, response, ranking.order(of), ranking.weigh(of))) for pair, response, of in known]
        table[name] = _summary(rows)
    rows = []
    for pair, response, _ in known:
        draw = random.Random(stream_seed(seed, "random ranking", pair.number))
        order = [draw.random() for _ in response.offsets]
        rows.append((pair, _figures(pair, response, order, [1.0] * len(order))))
    table["random"] = _summary(rows)
    return table


def mean_rank(values: Sequence[float], place: int) -> float:
    """Return the rank of one of some values, 1 for the largest; equal ones share their mean rank."""
    more = sum(value > values[place] for value in values)
    equal = sum(value == values[place] for value in values)
    return more + (equal + 1) / 2


def critical_place(pair: Pair, response: Encoded) -> int:
    """Return the number of the token that covers the first wrong character of a rejected response."""
    return first_token(response.offsets, pair.row["first_wrong_char"])


def _figures(pair: Pair, response: Encoded, order: Sequence[float], weights: Sequence[float]) -> Figures:
    place, total = critical_place(pair, response), sum(weights)
    rank, count = mean_rank(order, place), len(order)
    spans = pair.row.get("propagated_spans") or []
    later = sum(
        weight
        for weight, (start, end) in zip(weights, response.offsets, strict=True)
        if any(first < end and start < last for first, last in spans)
    )
    return {
        "hit_at_1": float(rank <= 1),
        "hit_at_3": float(rank <= 3),
        "mean_reciprocal_rank": 1 / rank,
        "auc": (count - rank) / (count - 1) if count > 1 else 0.5,
        "share": weights[place] / total if total else 0.0,
        "share_propagated": later / total if total else 0.0,
    }


def _summary(rows: Sequence[tuple[Pair, Figures]]) -> dict[str, Any]:
    found: dict[str, Any] = _means([figures for _, figures in rows])
    for key in GROUPS:
        groups: dict[str, list[Figures]] = {}
        for pair, figures in rows:
            if key in pair.row:
                groups.setdefault(str(pair.row[key]), []).append(figures)
        if groups:
            found[f"by_{key}"] = {
                group: _means(some) | {"responses": len(some)} for group, some in sorted(groups.items())
            }
    return found


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {name: round(sum(row[name] for row in rows) / len(rows), 4) for name in rows[0]}


def _has_place(pair: Pair) -> bool:
    place = pair.row.get("first_wrong_char")
    return isinstance(place, int) and not isinstance(place, bool) and 0 <= place < len(pair.rejected)
