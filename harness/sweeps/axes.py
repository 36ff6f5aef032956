"""Combinations of values: the product of axes, less what is excluded, and what ``include`` adds to them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.sweeps.located import Located

# Values by the names they are set under.
Combination = dict[str, Located]


@dataclass(frozen=True)
class Axis:
    """What one list gives: alternatives, each of one value or of several that go together.

    Attributes:
        where: how an error calls its place.
        is_grouped: whether it is of several names, as an entry of ``methods`` is.
    """

    alternatives: tuple[Combination, ...]
    where: str
    is_grouped: bool = False

    @property
    def names(self) -> list[str]:
        """Every name that one of its alternatives sets."""
        return list(dict.fromkeys(name for one in self.alternatives for name in one))


def size(axes: Iterable[Axis]) -> int:
    """Return how many combinations axes have."""
    return math.prod(len(axis.alternatives) for axis in axes)


def product(axes: Sequence[Axis]) -> Iterator[Combination]:
    """Yield every combination of axes, the last of which varies fastest."""
    for chosen in itertools.product(*(axis.alternatives for axis in axes)):
        yield {name: value for part in chosen for name, value in part.items()}


def excluded(combination: Combination, entry: Mapping[str, Sequence[Located]]) -> bool:
    """Return whether an entry of ``exclude`` takes a combination out: each of its names has one of the values there."""
    marks = {name: value.mark for name, value in combination.items()}
    return all(marks.get(name) in {value.mark for value in values} for name, values in entry.items())


def included(
    originals: Sequence[Combination], entries: Iterable[Combination], names: Iterable[str]
) -> list[Combination]:
    """Return combinations with what the entries of ``include`` add, in their order.

    An entry is added to every original combination of which it would overwrite no value; where it fits none, it is a
    combination of its own. What earlier entries added may be overwritten, and what earlier entries made is added to by
    none: the rules of a matrix of GitHub Actions.

    Args:
        originals: the product, less what is excluded.
        entries: one value a name.
        names: those of the axes, whose values are never overwritten, nor set where a combination has none of that name.
    """
    of_axes = frozenset(names)
    found = [dict(original) for original in originals]
    marks = [{name: value.mark for name, value in original.items()} for original in originals]
    made: list[Combination] = []
    for entry in entries:
        fixed = {name: value.mark for name, value in entry.items() if name in of_axes}
        fitting = [number for number, own in enumerate(marks) if all(own.get(name) == fixed[name] for name in fixed)]
        for number in fitting:
            found[number] |= {name: value for name, value in entry.items() if name not in fixed}
        if not fitting:
            made.append(dict(entry))
    return [*found, *made]
