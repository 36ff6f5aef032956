"""The passes over a tree in portions: those whose rows go through the head together, and what each needs of the others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from harness.models.tree.trie import Ints, Pack, Trie


# After so many tokens the head is run on however few rows: beside them that takes no time.
ENOUGH_TOKENS = 1024


@dataclass(frozen=True)
class Step:
    """One pass.

    Attributes:
        positions: those that are scored, in order. One that several passes copy is scored in each, so that a sequence needs
            nothing but its own pass and the trunks above it.
        rows: where they stand in the pass.
        first: those of them that no pass before it has scored.
        portion: the number of its portion.
        ends: whether it is the last one of that.
    """

    pack: Pack
    positions: Ints
    rows: Ints
    first: Ints
    portion: int
    ends: bool


def steps_of(packs: Sequence[Pack], is_scored: np.ndarray[Any, np.dtype[np.bool_]], enough: int) -> list[Step]:
    """Return the passes with what is scored in each.

    Args:
        is_scored: (N,) whether the head is asked at a position.
        enough: rows that end a portion. So do ``ENOUGH_TOKENS``, and passes of trunks that have any row: others may need those
            without what is beside.
    """
    waiting, found = is_scored.copy(), list[Step]()
    portion = rows_so_far = tokens_so_far = 0
    for number, pack in enumerate(packs):
        rows = np.flatnonzero(is_scored[pack.positions])
        positions, first = np.unique(pack.positions[rows], return_index=True)
        new = positions[waiting[positions]]
        waiting[positions] = False
        rows_so_far, tokens_so_far = rows_so_far + len(positions), tokens_so_far + len(pack.positions)
        after = packs[number + 1] if number + 1 < len(packs) else None
        is_full = rows_so_far >= enough or (rows_so_far > 0 and tokens_so_far >= ENOUGH_TOKENS)
        ends = after is None or is_full or (rows_so_far > 0 and _is_trunks(pack) != _is_trunks(after))
        found.append(Step(pack, positions, rows[first], new, portion, ends))
        if ends:
            portion, rows_so_far, tokens_so_far = portion + 1, 0, 0
    return found


def _is_trunks(pack: Pack) -> bool:
    return pack.units[0].becomes >= 0


def first_portions(steps: Sequence[Step], trie: Trie) -> Ints:
    """Return for each position (N,) the portion in which it goes through the model first."""
    first = np.full(len(trie), -1, np.int64)
    for step in reversed(steps):
        first[step.pack.positions] = step.portion
    return first


def leaf_portions(steps: Sequence[Step], trie: Trie) -> Ints:
    """Return for each position (N,) the portion in which it is scored first, -1 where the head is not asked."""
    scored = np.full(len(trie), -1, np.int64)
    for step in steps:
        scored[step.first] = step.portion
    return scored


def trunk_portions(steps: Sequence[Step]) -> list[set[int]]:
    """Return for each portion those of the trunks above it in which anything is scored."""
    makes = {unit.becomes: (step, unit.trunk) for step in steps for unit in step.pack.units if unit.becomes >= 0}
    found: list[set[int]] = [set() for _ in range(steps[-1].portion + 1)]
    for step in steps:
        waiting, seen = {unit.trunk for unit in step.pack.units} - {-1}, set[int]()
        while waiting:
            trunk = waiting.pop()
            seen.add(trunk)
            above, next_trunk = makes[trunk]
            if len(above.positions):
                found[step.portion].add(above.portion)
            waiting |= {next_trunk} - {-1} - seen
    return found


def needed(steps: Sequence[Step], portions: Collection[int]) -> set[int]:
    """Return the numbers of the passes that some portions take: their own, and those of the trunks above them."""
    makes = {unit.becomes: number for number, step in enumerate(steps) for unit in step.pack.units if unit.becomes >= 0}
    found: set[int] = set()
    waiting = [number for number, step in enumerate(steps) if step.portion in portions]
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += {makes[unit.trunk] for unit in steps[number].pack.units if unit.trunk >= 0}
    return found
