"""Requests to embed, and their answers as one array."""

from __future__ import annotations

from typing import Any

import numpy
from lm_eval.api.instance import Instance

TEXTS = ("Forty clocks ticked.", "The clockmaker wound them every Sunday, in order.", "What is time?")


def requests(texts: Any, instruction: str | None = None, role: str | None = None) -> list[Instance]:
    """Return a request for each text."""
    return [
        Instance("embed", {}, (text, {"instruction": instruction, "role": role}), number, metadata=("t", number, 1))
        for number, text in enumerate(texts)
    ]


def embedded(lm: Any, texts: Any, instruction: str | None = None, role: str | None = None) -> Any:
    """Return the vectors (N, D) of texts."""
    return numpy.stack(lm.embed(requests(texts, instruction, role)))
