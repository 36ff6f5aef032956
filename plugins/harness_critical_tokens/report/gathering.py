"""What a run left in its folder, put together: responses with what was found of each of their tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import HarnessError
from harness.json_lines import read_json_lines
from harness.names import printable
from harness_critical_tokens.responses import MADE_BY, RESPONSES

SCORES, ROLLOUTS, REPORT, TRAINING = "scores.jsonl", "rollouts.jsonl", "report.json", "training.json"
LOGS = ("log_score", "log_ratio", "positive", "negative", "base")
DEFAULT_RATIO_SCALE = 4.0
Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Rollouts:
    """Right rollouts of ``made`` from each prefix, None where none were made, and the tokens that they point at.

    The count at ``settled`` is a bound: so many or more.
    """

    counts: Sequence[int | None]
    made: int
    critical: int | None = None
    fallback: int | None = None
    drop: int | None = None
    settled: int | None = None


@dataclass(frozen=True)
class Shown:
    """One response.

    Attributes:
        offsets: the characters of each of its T tokens.
        logs: of each token, in nats: those of ``LOGS`` that are known.
        rollouts: None where none were made.
        span: the characters of the error, where it is known.
        first_wrong: the first character that is wrong, where it is known.
        propagated: characters that are wrong as a consequence.
    """

    pair: int
    side: str
    prompt: str
    text: str
    offsets: Spans
    logs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    rollouts: Rollouts | None = None
    kind: str = ""
    style: str = ""
    span: tuple[int, int] | None = None
    first_wrong: int | None = None
    propagated: Sequence[tuple[int, int]] = ()

    def weights(self, name: str, ratio_scale: float) -> list[float] | None:
        """Return the weight of each token, 0 to 1, by one of ``WEIGHTS``; None where what it is made of is not known."""
        if name == "rate":
            return None if self.rollouts is None else _losses(self.rollouts)
        logs = self.logs.get(WEIGHTS[name])
        if logs is None:
            return None
        if name == "log_ratio":
            return [min(1.0, max(0.0, -ratio / ratio_scale)) for ratio in logs]
        return [-math.expm1(min(0.0, log)) for log in logs]

    def place(self) -> int | None:
        """Return the critical token: by rollouts where they name one, else the one that covers the first wrong character."""
        if self.rollouts is not None and self.rollouts.critical is not None:
            return self.rollouts.critical
        if self.first_wrong is None:
            return None
        return next((token for token, (_, end) in enumerate(self.offsets) if end > (self.first_wrong or 0)), None)


# Weights by name, and of which logarithms they are made.
WEIGHTS = {"contrastive": "log_score", "log_ratio": "log_ratio", "positive": "positive", "negative": "negative",
           "probability": "base", "rate": ""}  # fmt: skip


@dataclass(frozen=True)
class Gathered:
    """A run's responses, which models and options made them, what the method reported, and its training by step."""

    responses: list[Shown]
    made_by: dict[str, Any]
    report: dict[str, Any]
    training: dict[str, Any]

    @property
    def ratio_scale(self) -> float:
        """Nats of log ratio at which the weight is 1."""
        options = self.made_by.get("options")
        scale = options.get("ratio_scale") if isinstance(options, dict) else None
        return float(scale) if isinstance(scale, int | float) and scale > 0 else DEFAULT_RATIO_SCALE


def gather(folder: Path) -> Gathered:
    """Return what stands in the work folder of ``score``, ``cdpo`` or ``find``, or in a run's ``artefacts/``.

    Raises:
        HarnessError: there are no responses, or files do not fit each other or cannot be read.
    """
    path = folder / RESPONSES
    if not path.is_file():
        raise HarnessError(
            f"there is no {RESPONSES} in '{printable(folder)}', so there is nothing to show; "
            "give the artefacts/ folder of a run of score, cdpo or find"
        )
    keys: dict[str, Any] = {"pair": int, "side": str, "prompt": str, "text": str, "offsets": list}
    scores, rollouts = _by_response(folder / SCORES), _by_response(folder / ROLLOUTS)
    responses = [
        _shown(row, scores.get((row["pair"], row["side"]), {}), rollouts.get((row["pair"], row["side"])), path)
        for row in read_json_lines(path, keys)
    ]
    made_by, report, training = (_object(folder / name) for name in (MADE_BY, REPORT, TRAINING))
    return Gathered(responses, made_by, report, training)


def _by_response(path: Path) -> dict[tuple[int, str], dict[str, Any]]:
    """Return the rows of a file by pair and side; rows without a side are of the rejected response."""
    if not path.is_file():
        return {}
    return {(row["pair"], row.get("side", "rejected")): row for row in read_json_lines(path, {"pair": int})}


def _shown(row: dict[str, Any], scores: dict[str, Any], rollouts: dict[str, Any] | None, path: Path) -> Shown:
    offsets = [(int(start), int(end)) for start, end in row["offsets"]]
    lists = {name: scores[name] for name in LOGS if name in scores}
    counts = {"counts": rollouts["counts"]} if rollouts else {}
    for name, values in {**lists, **counts}.items():
        if len(values) not in {len(offsets), len(offsets) - 1}:
            raise HarnessError(
                f"'{name}' has {len(values)} values for the {len(offsets)} tokens of the {row['side']} response of pair "
                f"{row['pair']} in {printable(path)}; run the method again with --no-cache"
            )
    return Shown(
        pair=row["pair"],
        side=row["side"],
        prompt=row["prompt"],
        text=row["text"],
        offsets=offsets,
        logs=lists,
        rollouts=_rollouts(rollouts) if rollouts else None,
        kind=str(row.get("kind", "")),
        style=str(row.get("style", "")),
        span=_span(row.get("critical_span")),
        first_wrong=row["first_wrong_char"] if isinstance(row.get("first_wrong_char"), int) else None,
        propagated=[span for each in row.get("propagated_spans") or [] if (span := _span(each))],
    )


def _rollouts(row: Mapping[str, Any]) -> Rollouts:
    names = ("critical", "fallback", "drop", "settled")
    return Rollouts(row["counts"], row["n"], **{name: row.get(name) for name in names})


def _span(value: Any) -> tuple[int, int] | None:
    is_span = isinstance(value, list) and len(value) == 2 and all(isinstance(place, int) for place in value)
    return (value[0], value[1]) if is_span else None


def _losses(rollouts: Rollouts) -> list[float]:
    return [
        0.0 if count is None or token == rollouts.settled else 1 - count / rollouts.made
        for token, count in enumerate(rollouts.counts)
    ]


def _object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file, empty where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HarnessError(
            f"{printable(path)} is no JSON ({printable(error)}); run the method again with --no-cache"
        ) from error
    return found if isinstance(found, dict) else {}
