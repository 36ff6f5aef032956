"""The data of the rhymes, made on the spot."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

RHYMES = [("cat", "hat", "dog"), ("moon", "spoon", "star"), ("light", "night", "lamp"), ("sing", "ring", "song")]


def make(**_: Any) -> dict[str, Dataset]:
    """Return the one split: a word, what rhymes with it, and what does not."""
    return {"test": Dataset.from_list([{"word": word, "options": [good, bad]} for word, good, bad in RHYMES])}
