"""Words that name several sides, completed by what ``--across`` says is compared: ``baseline`` beside ``quantization=nf4``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence, Set

from harness.comparing.selectors import description
from harness.comparing.sides import Pool, candidates
from harness.errors import HarnessError
from harness.records.record import Record

# What of a side may differ with a word of ``--across``, the first of it has to; other words tell no sides apart.
FIELDS = {
    "model": ("model", "revision", "digest"),
    "dtype": ("dtype",),
    "quantization": ("quantization", "dtype"),
    "adapter": ("adapter", "digest"),
}
OF_MODEL = frozenset({"model", "revision", "adapter", "quantization", "dtype", "digest"})
# Ways to take one of the sides that each word names; more are not looked through.
MOST_WAYS = 10_000


def completed(words: Sequence[str], pool: Pool, across: Sequence[str]) -> list[str]:
    """Return the words, those that name several sides with terms that leave one, where only one goes with the other words.

    Sides go together that differ in what ``across`` names and in nothing else; where there are none, that differ in nothing else
    of the model. Words stay as they are where none or several go together, or where one of them names nothing.
    """
    named = [word for word in across if word in FIELDS]
    if not named:
        return list(words)
    try:
        found = [candidates(word, pool) for word in words]
    except HarnessError:
        return list(words)  # told where the sides are looked up
    if all(len(groups) == 1 for _, groups in found) or math.prod(len(groups) for _, groups in found) > MOST_WAYS:
        return list(words)
    ways = list(itertools.product(*(range(len(groups)) for _, groups in found)))
    for fields in (None, OF_MODEL):
        fitting = [
            way
            for way in ways
            if _go_together([found[n][1][place][0].record for n, place in enumerate(way)], named, fields)
        ]
        if len(fitting) == 1:
            told = [
                selector.only(groups[place], groups)
                for (selector, groups), place in zip(found, fitting[0], strict=True)
            ]
            return [one or word for one, word in zip(told, words, strict=True)]
    return list(words)


def _go_together(records: Sequence[Record], across: Sequence[str], fields: Set[str] | None) -> bool:
    """Whether each record differs from the first in what ``across`` names, and in no other of the fields, None for all."""
    free = {field for word in across for field in FIELDS[word]}
    first, *others = map(description, records)
    for other in others:
        differing = {name for name in first.keys() | other.keys() if first.get(name) != other.get(name)}
        is_other = any(FIELDS[word][0] in differing for word in across)
        if not is_other or (differing if fields is None else differing & fields) - free:
            return False
    return True
