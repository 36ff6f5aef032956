"""Pairs of a right and a wrong response that people bring, one JSON object a line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import HarnessError
from harness.json_lines import read_json_lines
from harness.names import printable


@dataclass(frozen=True)
class Pair:
    """A prompt with a right response and a wrong one, under its number in the file (from 0); ``row`` is all that stands there."""

    number: int
    prompt: str
    chosen: str
    rejected: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class PairsFile:
    """The pairs of a file that can be used, how many it has, and how many were dropped for which reason."""

    pairs: tuple[Pair, ...]
    read: int
    dropped: Mapping[str, int]

    @property
    def digest(self) -> str:
        """SHA-256 over what the pairs say."""
        content = json.dumps([[pair.number, dict(pair.row)] for pair in self.pairs], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def read_pairs(path: Path) -> PairsFile:
    """Return the pairs of a file; those with an empty text, equal responses or equal answers are dropped and counted.

    Args:
        path: JSON lines with ``prompt``, ``chosen`` and ``rejected``, and whatever else.

    Raises:
        HarnessError: the file cannot be read, a line lacks a key, its ``propagated_spans`` are none, or no pair is left.
    """
    rows = read_json_lines(path, {"prompt": str, "chosen": str, "rejected": str})
    dropped: dict[str, int] = {}
    pairs = []
    for number, row in enumerate(rows):
        _check_spans(row, f"pair {number} of '{printable(path)}'")
        reason = _fault(row)
        if reason is not None:
            dropped[reason] = dropped.get(reason, 0) + 1
            continue
        pairs.append(Pair(number, row["prompt"], row["chosen"], row["rejected"], row))
    if not pairs:
        raise HarnessError(f"no pair of '{printable(path)}' can be used: {counted(dropped)}")
    return PairsFile(tuple(pairs), len(rows), dropped)


def counted(dropped: Mapping[str, int]) -> str:
    """Return ``3 with equal responses, 1 with an empty response``."""
    return ", ".join(f"{count} with {reason}" for reason, count in dropped.items())


def _check_spans(row: Mapping[str, Any], where: str) -> None:
    spans = row.get("propagated_spans")
    if spans is not None and not (isinstance(spans, list) and all(map(_is_span, spans))):
        raise HarnessError(
            f"{where} has 'propagated_spans' that are no list of [first character, end]; correct them or leave them out"
        )


def _is_span(span: Any) -> bool:
    return isinstance(span, list) and len(span) == 2 and all(type(place) is int for place in span)


def _fault(row: Mapping[str, Any]) -> str | None:
    if not row["prompt"].strip():
        return "an empty prompt"
    if not (row["chosen"].strip() and row["rejected"].strip()):
        return "an empty response"
    if row["chosen"].strip() == row["rejected"].strip():
        return "equal responses"
    answers = row.get("answer"), row.get("rejected_answer")
    return "equal answers" if None not in answers and answers[0] == answers[1] else None
