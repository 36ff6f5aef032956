"""Random draws that are the same on every Python and platform, and the check of the numbers they start from."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from harness.errors import HarnessError

Item = TypeVar("Item")

FEWSHOT_SEED_SHIFT = 1_000_003
"""Added to a task's seed for its few-shot examples, so that they come from a stream of their own."""


class Draws:
    """A private stream of random draws; the global random state is neither read nor changed.

    Only ``Random.random()`` is used, because it is the one method whose numbers the Python documentation promises to
    keep for a given seed; ``randrange``, ``choice``, ``sample`` and ``shuffle`` may change between versions.
    """

    def __init__(self, *key: object) -> None:
        """Start the stream that belongs to ``key``; keys that differ in text give unrelated streams."""
        # A text, not a number: an integer seed loses its sign, so that -1 and 1 would give the same questions.
        self._random = Random("/".join(str(part) for part in key))

    def below(self, bound: int) -> int:
        """Return a whole number from 0 to ``bound - 1``, each equally likely."""
        return int(self._random.random() * bound)

    def one_of(self, items: Sequence[Item]) -> Item:
        """Return one of ``items``, each equally likely."""
        return items[self.below(len(items))]

    def several_of(self, items: Sequence[Item], count: int) -> list[Item]:
        """Return ``count`` items from different positions, in random order; needs ``len(items) >= count``."""
        positions: list[int] = []
        while len(positions) < count:
            position = self.below(len(items))
            if position not in positions:
                positions.append(position)
        return [items[position] for position in positions]


def whole_number(name: str, value: object, *, at_least: int | None = None) -> int:
    """Return ``value`` if it is an ``int`` (``True`` is none) and not below ``at_least``.

    Raises:
        HarnessError: it is something else; the sentence says ``name``.
    """
    wanted = "a whole number" if at_least is None else f"a whole number, {at_least} or more"
    if isinstance(value, bool) or not isinstance(value, int) or (at_least is not None and value < at_least):
        raise HarnessError(f"{name} is {value!r}; give {wanted}")
    return value
