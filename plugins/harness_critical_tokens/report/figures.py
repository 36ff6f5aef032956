"""The figures of a page: how weights are spread, how well they find critical tokens, and how training went."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness_critical_tokens.report.gathering import WEIGHTS, Gathered, Shown

BINS = 20
THRESHOLDS = (0.5, 0.9)
WIDTH, HEIGHT = 320, 110
MOST_POINTS = 160
Row = list[str]
LABELS = {
    "contrastive": "1 − s (the paper's)",
    "log_ratio": "log ratio",
    "positive": "1 − p, positive alone",
    "negative": "1 − q, negative alone",
    "probability": "1 − base",
    "rate": "1 − rate of right rollouts",
}


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, in the coordinates of the drawing, and what it says."""

    x: float
    y: float
    width: float
    height: float
    says: str


@dataclass(frozen=True)
class Curve:
    """A curve: its points as SVG wants them, and its first and last values."""

    name: str
    points: str
    first: str
    last: str
    steps: int


def known_weights(gathered: Gathered) -> list[str]:
    """Return the names of the weights that the responses have, in the order of ``WEIGHTS``."""
    return [name for name in WEIGHTS if any(each.weights(name, 1.0) is not None for each in gathered.responses)]


def histogram(gathered: Gathered, name: str) -> list[Bar]:
    """Return how many tokens of rejected responses have a weight in each twentieth, by the logarithm of their number."""
    counts = [0] * BINS
    for _, weights in _weighed(gathered, name):
        for weight in weights:
            counts[min(BINS - 1, int(weight * BINS))] += 1
    most = math.log1p(max(counts))
    width = WIDTH / BINS
    return [
        Bar(
            round(number * width, 1),
            round(HEIGHT * (1 - math.log1p(count) / most), 1),
            round(width - 2, 1),
            round(HEIGHT * math.log1p(count) / most, 1),
            f"{count:,} tokens from {number / BINS:g} to {(number + 1) / BINS:g}",
        )
        for number, count in enumerate(counts)
        if count
    ]


def precision_table(gathered: Gathered) -> tuple[Row, list[Row]] | None:
    """Return heads and rows: precision and recall of "its weight is at least ..." for the critical token.

    None where no response's critical token is known. Responses whose token came from rollouts count as well.
    """
    heads = ["weight", "responses", *(f"{what} at {at:g}" for at in THRESHOLDS for what in ("precision", "recall"))]
    rows = []
    for name in known_weights(gathered):
        known = [(weights, place) for each, weights in _weighed(gathered, name)
                 if (place := each.place()) is not None and place < len(weights)]  # fmt: skip
        if known and name != "rate":
            cells = [_share(*_found(known, at)) for at in THRESHOLDS]
            rows.append([LABELS[name], f"{len(known):,}", *(cell for pair in cells for cell in pair)])
    return (heads, rows) if rows else None


def identification_table(report: Mapping[str, Any]) -> tuple[Row, list[Row]] | None:
    """Return heads and rows of what the method reported of finding the critical token, over all and by kind and style."""
    found = report.get("identification")
    if not isinstance(found, dict):
        return None
    rankings = {name: figures for name, figures in found.items() if isinstance(figures, dict)}
    columns = list(dict.fromkeys(key for figures in rankings.values() for key, value in figures.items()
                                 if isinstance(value, int | float)))  # fmt: skip
    rows = [
        [LABELS.get(name, name) + part, *(_number(figures.get(column)) for column in columns)]
        for name, whole in rankings.items()
        for part, figures in _parts(whole)
    ]
    return (["ranking by", *(column.replace("_at_", "@").replace("_", " ") for column in columns)], rows)


def curves(gathered: Gathered) -> list[Curve]:
    """Return the curves of training: losses of each stage, and what was kept of each step."""
    found = {}
    for source in (gathered.report.get("training"), gathered.report):
        stages = source.items() if isinstance(source, dict) else ()
        for name, stage in stages:
            if isinstance(stage, dict) and _is_series(stage.get("losses")):
                found[f"loss, {name}"] = stage["losses"]
    for name, values in gathered.training.items():
        if _is_series(values) and not (found and name == "loss"):  # it is the last stage's
            found[name.replace("_", " ")] = values
    return [_curve(name, values) for name, values in found.items()]


def _weighed(gathered: Gathered, name: str) -> Iterator[tuple[Shown, list[float]]]:
    for each in gathered.responses:
        if each.side == "rejected" and (weights := each.weights(name, gathered.ratio_scale)) is not None:
            yield each, weights


def _found(known: Sequence[tuple[list[float], int]], at: float) -> tuple[int, int, int]:
    """Return how many critical tokens have that weight, how many tokens have it, and how many responses there are."""
    right = sum(weights[place] >= at for weights, place in known)
    return right, sum(weight >= at for weights, _ in known for weight in weights), len(known)


def _share(right: int, marked: int, due: int) -> tuple[str, str]:
    return f"{right / marked:.2f}" if marked else "–", f"{right / due:.2f}"


def _parts(figures: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "", figures
    for key, groups in figures.items():
        if key.startswith("by_") and isinstance(groups, dict):
            for group, of_group in groups.items():
                if isinstance(of_group, dict):
                    yield f", {key.removeprefix('by_')} {group}", of_group


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "" if value is None else str(value)


def _is_series(values: Any) -> bool:
    return isinstance(values, list) and len(values) > 1 and all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    )  # fmt: skip


def _curve(name: str, values: Sequence[float]) -> Curve:
    step = max(1, math.ceil(len(values) / MOST_POINTS))
    means = [sum(values[at : at + step]) / len(values[at : at + step]) for at in range(0, len(values), step)]
    low, high = min(means), max(means)
    points = (
        f"{WIDTH * at / max(1, len(means) - 1):.1f},{HEIGHT * (1 - (mean - low) / (high - low or 1)):.1f}"
        for at, mean in enumerate(means)
    )
    return Curve(name, " ".join(points), f"{values[0]:.4g}", f"{values[-1]:.4g}", len(values))
