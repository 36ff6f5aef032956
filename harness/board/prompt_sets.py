"""Prompts of one model that differ though the questions are the same, as of two chat templates: what belongs together over tasks.

A digest of prompts is another for each task, so it is the runs that tell: what one command asked is one set of prompts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Asked:
    """What a model was asked in one column: the rows that stand by one untouched model there.

    Attributes:
        column: its number.
        board: what these rows have in common.
        first: the smallest number of their records, in the order of the ledger.
        variant: what tells it from others of the column, empty where there are none.
        title: the column's task.
        runs: the names of the runs behind the rows.
    """

    column: int
    board: str
    first: int
    variant: str
    title: str
    runs: set[str] = field(default_factory=set)


def named_sets(asked: Iterable[Asked]) -> dict[tuple[int, str], str]:
    """Return by column and board how the set of prompts that it belongs to is called.

    Those with a run in common are one set, and so are others that never stand in one column. The set with most columns, of as
    many the one that was recorded first, is called by nothing; the others by what tells them apart, on the first task that does.
    """
    sets: list[list[Asked]] = []
    for group in sorted(_linked(asked), key=lambda group: (-len(group), min(one.first for one in group))):
        fitting = (one for one in sets if _columns(one).isdisjoint(_columns(group)))
        known = next(fitting, None)
        if known is None:
            sets.append(list(group))
        else:
            known += group
    names = ["", *(_name(one) for one in sets[1:])]
    return {(one.column, one.board): name for name, group in zip(names, sets, strict=False) for one in group}


def _linked(asked: Iterable[Asked]) -> list[list[Asked]]:
    """Return groups with runs in common, no two of one column in a group."""
    groups: list[list[Asked]] = []
    for one in sorted(asked, key=lambda one: one.first):
        linked = [group for group in groups if any(one.runs & other.runs for other in group)]
        joined = [one]
        for group in linked:
            if _columns(joined).isdisjoint(_columns(group)):
                joined = [*group, *joined]
                groups.remove(group)
        groups.append(joined)
    return groups


def _columns(group: Iterable[Asked]) -> set[int]:
    return {one.column for one in group}


def _name(group: Iterable[Asked]) -> str:
    told = [one for one in sorted(group, key=lambda one: one.column) if one.variant]
    variants = {one.variant for one in told}
    return "" if not told else told[0].variant + (f" on {told[0].title}" if len(variants) > 1 else "")
