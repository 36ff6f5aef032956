"""Shard: which part of a run's requests one of several commands answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

MOST = 10_000


@dataclass(frozen=True)
class Shard:
    """The ``number``-th of ``count`` parts, counted from 1."""

    number: int
    count: int

    @classmethod
    def of(cls, words: str) -> Shard:
        """Return what ``3/16`` says.

        Raises:
            HarnessError: it is no such part.
        """
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", words)
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= count <= MOST:
            raise HarnessError(
                f"--shard is '{printable(words)}'; it has to be K/N, the K-th of N parts: 1/16, 2/16 ... 16/16, of "
                f"{MOST:,} at most"
            )
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def title(self) -> str:
        """Return how people call it."""
        return f"shard {self.number} of {self.count}"

    def owned(self, requests: Sequence[Instance]) -> list[int]:
        """Return the places of its requests among those of a task: all of one document are one shard's.

        Requests of a corpus belong to no document, and are dealt out one by one.
        """
        numbers = (request.idx if request.doc_id < 0 else request.doc_id for request in requests)
        return [place for place, number in enumerate(numbers) if number % self.count == self.number - 1]
