"""Twelve questions about sums, made here: small enough to be asked many times."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven")


def make(**_: Any) -> dict[str, Dataset]:
    """Return the split ``test``."""
    pairs = [(first, second) for first in range(4) for second in range(3)]
    rows = [
        {"question": f"{WORDS[first]} and {WORDS[second]} clocks are", "answer": first + second, "options": list(WORDS)}
        for first, second in pairs
    ]
    return {"test": Dataset.from_list(rows)}
