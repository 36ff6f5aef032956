"""Requests as one tree of tokens, and the order in which to push that tree through a model. Pure data, no torch.

Every distinct prefix of the requests is one position of the tree. Positions are numbered depth first, so that the
descendants of position ``p`` are exactly ``p + 1 ... end[p] - 1``, and ``a`` is ``b`` or an ancestor of ``b`` when
``a <= b < end[a]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

# A unit's branches see the whole unit through a mask; beyond this many the stem is better shared as a trunk.
MAX_BRANCH_TOKENS = 512
# Pushing a trunk costs about as much as this many tokens, however short it is: the weights are read once more.
TRUNK_COST = 16
# Attending to a trunk costs each token below it about this share of a token.
TRUNK_SHARE = 0.02
# Tokens whose keys are held for one level of trunks, in passes' worth.
HELD_PASSES = 2


@dataclass(frozen=True)
class Trie:
    """Token sequences with equal beginnings merged.

    ``token_ids``, ``depth`` and ``end`` have one entry for each of the N distinct prefixes; ``paths[i]`` holds the
    last positions of sequence ``i``, as many as were asked for.
    """

    token_ids: Ints
    depth: Ints
    end: Ints
    paths: list[Ints]

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def pairs(self) -> int:
        """How many pairs of a position and itself or one of its ancestors there are: what attention needs."""
        return int(self.depth.sum()) + len(self)

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]], wanted: Sequence[int]) -> Trie:
        """Merge ``sequences``.

        Args:
            sequences: token ids, each at least one.
            wanted: how many of its last positions ``paths`` is to hold for each sequence.
        """
        arrays = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
        keys = [array.astype(">u4").tobytes() for array in arrays]  # bytes sort as the ids do
        order = sorted(range(len(arrays)), key=keys.__getitem__)
        total, longest = sum(map(len, arrays)), max(map(len, arrays), default=0)
        token_ids, depth = np.empty(total, np.int64), np.empty(total, np.int64)
        end, path = np.empty(total, np.int64), np.empty(longest, np.int64)
        paths: list[Ints] = [np.empty(0, np.int64)] * len(arrays)
        count, previous = 0, np.empty(0, np.int64)
        for number in order:
            array = arrays[number]
            shared = _common(previous, array)
            if shared < len(array):
                end[path[shared : len(previous)]] = count
                fresh = slice(count, count + len(array) - shared)
                token_ids[fresh] = array[shared:]
                depth[fresh] = np.arange(shared, len(array))
                path[shared : len(array)] = np.arange(count, fresh.stop)
                count, previous = fresh.stop, array
            paths[number] = path[len(array) - wanted[number] : len(array)].copy()
        end[path[: len(previous)]] = count
        return cls(token_ids[:count], depth[:count], end[:count], paths)


@dataclass
class Unit:
    """Positions that go through the model together: a chain (the stem), then whatever branches off its end.

    ``trunk`` is the number of the trunk above, whose keys are known by then (-1: none); ``becomes`` the number under
    which this unit's own keys are kept for those below it (-1: they are not).
    """

    positions: Ints
    stem: int
    trunk: int = -1
    becomes: int = -1

    def __len__(self) -> int:
        return len(self.positions)


@dataclass
class Pack:
    """The units of one forward pass; ``done`` lists the trunks that nothing after it needs."""

    units: list[Unit] = field(default_factory=list)
    done: list[int] = field(default_factory=list)

    @property
    def positions(self) -> Ints:
        """The positions in the order in which they go through the model."""
        return np.concatenate([unit.positions for unit in self.units])


@dataclass
class _Branch:
    """A place in the walk: the subtree at ``position`` under ``trunk``, after ``path``, a chain shared by copying."""

    position: int
    trunk: int
    path: Ints


def plan(
    trie: Trie,
    budget: int,
    *,
    branch_tokens: int = MAX_BRANCH_TOKENS,
    trunk_cost: float = TRUNK_COST,
    most_units: int | None = None,
) -> list[Pack]:
    """Return the forward passes that push every position through the model, few of them twice.

    Args:
        budget: tokens per pass; one long sequence may exceed it alone.
        branch_tokens: the most tokens that a unit may have beside its stem.
        trunk_cost: the tokens that a trunk has to save.
        most_units: the most units in one pass.
    """
    return _Planner(trie, max(1, budget), branch_tokens, trunk_cost, most_units).packs() if len(trie) else []


class _Planner:
    def __init__(self, trie: Trie, budget: int, branch_tokens: int, trunk_cost: float, most_units: int | None) -> None:
        self.end, self.depth, self.budget, self.trunks = trie.end, trie.depth, budget, 0
        self.most_units = most_units or len(trie)
        self.branch_tokens, self.trunk_cost = branch_tokens, trunk_cost
        is_last = np.append(trie.end[1:] != trie.end[:-1], True)
        lasts = np.flatnonzero(is_last)
        self.chain_last = lasts[np.searchsorted(lasts, np.arange(len(trie)))]

    def packs(self) -> list[Pack]:
        packs: list[Pack] = []
        roots = self._children(0, len(self.end))
        # Groups of trunks whose keys are held at the same time, the deepest first: few are held at once.
        waiting: list[list[tuple[Unit, list[int]]]] = []
        self._handle([(-1, roots)], packs, waiting)
        while waiting:
            group = waiting.pop()
            packs += self._fill([unit for unit, _ in group])
            self._handle([(unit.becomes, below) for unit, below in group], packs, waiting)
        _note_last_uses(packs)
        return packs

    def _handle(
        self,
        trunks: list[tuple[int, list[int]]],
        packs: list[Pack],
        waiting: list[list[tuple[Unit, list[int]]]],
    ) -> None:
        """Pack the units directly under ``trunks``, and queue the trunks under them."""
        units: list[Unit] = []
        below: list[tuple[Unit, list[int]]] = []
        for trunk, children in trunks:
            own: list[Unit] = []
            self._walk(trunk, children, own, below)
            units += sorted(own, key=lambda unit: -unit.stem)
        packs += self._fill(units)
        group: list[tuple[Unit, list[int]]] = []
        groups, held = [], 0
        for entry in below:
            # A trunk is held with all that is above it.
            tokens = int(self.depth[entry[0].positions[-1]]) + 1
            if group and held + tokens > HELD_PASSES * self.budget:
                groups.append(group)
                group, held = [], 0
            group.append(entry)
            held += tokens
        waiting += [*groups, group] if group else groups

    def _walk(self, trunk: int, children: list[int], units: list[Unit], below: list[tuple[Unit, list[int]]]) -> None:
        stack = [_Branch(child, trunk, np.empty(0, np.int64)) for child in reversed(children)]
        while stack:
            branch = stack.pop()
            start, stop = branch.position, int(self.end[branch.position])
            last = int(self.chain_last[start])
            rest = stop - last - 1
            stem = len(branch.path) + last + 1 - start
            if rest == 0 or (stem + rest <= self.budget and rest <= self.branch_tokens):
                units.append(Unit(np.append(branch.path, np.arange(start, stop)), stem, trunk))
                continue
            path = np.append(branch.path, np.arange(start, last + 1))
            next_children = self._children(last + 1, stop)
            if (len(next_children) - 1) * stem > self.trunk_cost + TRUNK_SHARE * rest:
                unit = Unit(path, stem, trunk, becomes=self.trunks)
                self.trunks += 1
                below.append((unit, next_children))
            else:
                stack += [_Branch(child, trunk, path) for child in reversed(next_children)]

    def _children(self, start: int, stop: int) -> list[int]:
        children = []
        while start < stop:
            children.append(start)
            start = int(self.end[start])
        return children

    def _fill(self, units: list[Unit]) -> list[Pack]:
        """Spread units over as few packs as the budget allows, about equally full."""
        total = sum(map(len, units))
        goal = total / max(1, -(-total // self.budget))
        packs: list[Pack] = []
        size, sent = 0, 0
        for unit in units:
            is_full = bool(packs) and (size + len(unit) > self.budget or len(packs[-1].units) >= self.most_units)
            if not packs or is_full or sent + len(unit) / 2 > goal * len(packs):
                packs.append(Pack())
                size = 0
            packs[-1].units.append(unit)
            size += len(unit)
            sent += len(unit)
        return packs


def _note_last_uses(packs: list[Pack]) -> None:
    last: dict[int, int] = {}
    for number, pack in enumerate(packs):
        for unit in pack.units:
            for trunk in (unit.trunk, unit.becomes):
                last[trunk] = number
    for trunk, number in last.items():
        if trunk >= 0:
            packs[number].done.append(trunk)


def _common(first: Ints, second: Ints) -> int:
    """Return how many ids two sequences begin with in common."""
    most = min(len(first), len(second))
    differs = first[:most] != second[:most]
    return int(differs.argmax()) if differs.any() else most
