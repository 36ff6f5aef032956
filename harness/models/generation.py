"""Greedy text for many prompts: shared beginnings once, each row stops for itself, waiting prompts take its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.models.attention import How, TreeAttention, Trunk, attend, join, route, see_trunk, sink
from harness.models.trie import Trie, plan

if TYPE_CHECKING:
    from harness.models.scoring import TreeModel
    from harness.models.trie import Ints, Pack

Tensor = torch.Tensor
# Prompts join the running rows in portions of this many tokens.
PROMPT_TOKENS = 1024


@dataclass
class Prompt:
    """A text to go on from.

    Args:
        token_ids: at least one.
        limit: the most tokens to generate, at least one.
        is_finished: is given the generated ids after each token, and says whether they end here.
    """

    token_ids: Sequence[int]
    limit: int
    is_finished: Callable[[list[int]], bool]


@dataclass
class _Row:
    """A prompt under way. ``length`` counts its own keys, those of its trunk (``base``) left out."""

    number: int
    trunk: int
    base: int
    length: int
    token_ids: list[int] = field(default_factory=list)


class NotANumber(Exception):
    """The logits of a prompt are not numbers; ``number`` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(f"the logits of prompt {number} are not numbers")
        self.number = number


def generate(
    tree_model: TreeModel,
    prompts: Sequence[Prompt],
    *,
    rows: int,
    budget: int,
    on_done: Callable[[int, list[int]], None],
) -> None:
    """Generate for each prompt, and hand each result over when it is finished.

    Args:
        rows: prompts under way at a time, about.
        budget: tokens per forward pass, for the prompts.
        on_done: is given a prompt's number and its generated ids, in any order.

    Raises:
        NotANumber: logits are NaN or infinite.
    """
    _Generation(tree_model, prompts, rows, budget, on_done).run()


class _Generation:
    def __init__(
        self,
        tree_model: TreeModel,
        prompts: Sequence[Prompt],
        rows: int,
        budget: int,
        on_done: Callable[[int, list[int]], None],
    ) -> None:
        self.tree_model, self.prompts, self.most, self.on_done = tree_model, prompts, rows, on_done
        self.trie = Trie.build([prompt.token_ids for prompt in prompts], [len(prompt.token_ids) for prompt in prompts])
        self.packs = plan(self.trie, min(budget, PROMPT_TOKENS))
        self.trunks: dict[int, Trunk] = {}
        self.rows: list[_Row] = []
        self.cache = _Cache()
        self.of_leaf: dict[int, list[int]] = {}
        for number, path in enumerate(self.trie.paths):
            self.of_leaf.setdefault(int(path[-1]), []).append(number)

    def run(self) -> None:
        waiting = list(reversed(self.packs))
        while waiting or self.rows:
            while waiting and (not self.rows or len(self.rows) + self._count(waiting[-1]) <= self.most):
                self._prefill(waiting.pop())
            if self.rows:
                self._step()

    def _count(self, pack: Pack) -> int:
        leaves = self.of_leaf.keys()
        return sum(len(self.of_leaf[p]) for p in leaves & set(pack.positions.tolist()))

    def _prefill(self, pack: Pack) -> None:
        """Run the tokens of prompts, and take in the prompts that end there with their first token."""
        attention = TreeAttention(pack, self.trie, self.trunks, self.tree_model.device, keep=True)
        found: list[tuple[_Row, Ints]] = []
        leaf_rows: list[int] = []
        start = 0
        for unit in pack.units:
            for index in np.flatnonzero(np.isin(unit.positions, list(self.of_leaf))):
                base = self.trunks[unit.trunk].length if unit.trunk >= 0 else 0
                for number in self.of_leaf.pop(int(unit.positions[index])):
                    path = self.trie.paths[number][base:]
                    found.append(
                        (_Row(number, unit.trunk, base, len(path)), start + np.searchsorted(unit.positions, path))
                    )
                    leaf_rows.append(start + int(index))
            start += len(unit)
        with route(self.tree_model.model, attention):
            hidden = self.tree_model.push(pack, self.trie, attention, np.array(leaf_rows, np.int64))
        if not found:
            return
        first = self._best(hidden, [row for row, _ in found])
        self.cache.add([places for _, places in found], attention.kept, at=len(self.rows))
        self.rows += [row for row, _ in found]
        self._take(first, len(self.rows) - len(found))

    def _step(self) -> None:
        """Give every row one more token."""
        attention = _RowAttention(self.rows, self.cache, self.trunks, self.tree_model.device)
        tokens = np.array([row.token_ids[-1] for row in self.rows], np.int64)
        places = np.array([row.base + row.length for row in self.rows], np.int64)
        with route(self.tree_model.model, attention):
            hidden = self.tree_model.run(tokens, places, attention, np.arange(len(self.rows)))
        for row in self.rows:
            row.length += 1
        self._take(self._best(hidden, self.rows), 0)

    def _best(self, hidden: Tensor, rows: Sequence[_Row]) -> list[int]:
        with self.tree_model.work.timed("head"):
            tokens: list[int] = self.tree_model.head.best(hidden).tolist()
        self.tree_model.work.scored_rows += len(tokens)
        for row, token in zip(rows, tokens, strict=True):
            if token < 0:
                raise NotANumber(row.number)
        return tokens

    def _take(self, tokens: list[int], start: int) -> None:
        """Append a token to each row from ``start`` on, and let the finished ones go."""
        for row, token in zip(self.rows[start:], tokens, strict=True):
            row.token_ids.append(token)
        for index in range(len(self.rows) - 1, start - 1, -1):
            row = self.rows[index]
            prompt = self.prompts[row.number]
            if len(row.token_ids) >= prompt.limit or prompt.is_finished(row.token_ids):
                self.on_done(row.number, row.token_ids)
                last = self.rows.pop()
                if index < len(self.rows):
                    self.cache.move(len(self.rows), index, last.length)
                    self.rows[index] = last


class _Cache:
    """Keys and values of the rows under way: one (rows, heads, places, width) pair per layer, grown as needed."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def add(self, places: Sequence[Ints], kept: list[tuple[Tensor, Tensor]], *, at: int) -> None:
        """Copy the keys and values at ``places`` of a pack into rows from ``at`` on."""
        self.reserve(at + len(places), max(map(len, places)) + 1, kept)
        device = kept[0][0].device
        indices = [torch.as_tensor(rows, device=device) for rows in places]
        for (keys, values), (new_keys, new_values) in zip(self.layers, kept, strict=True):
            for row, index in enumerate(indices, at):
                keys[row, :, : len(index)] = new_keys.index_select(1, index)
                values[row, :, : len(index)] = new_values.index_select(1, index)

    def reserve(self, rows: int, places: int, like: list[tuple[Tensor, Tensor]]) -> None:
        """Make room for at least so many rows and places; what is there stays."""
        have = self.layers[0][0].shape if self.layers else (0, 0, 0, 0)
        if rows <= have[0] and places <= have[2]:
            return
        rows = max(rows, have[0] if rows <= have[0] else int(1.25 * have[0]))
        places = max(have[2], places + 63) if places > have[2] else have[2]
        fresh = []
        for layer, pair in enumerate(like):
            grown = []
            for side, tensor in enumerate(pair):
                heads, width = (
                    (tensor.shape[0], tensor.shape[-1]) if tensor.dim() == 3 else (tensor.shape[1], tensor.shape[-1])
                )
                room = tensor.new_zeros((rows, heads, places, width))
                if self.layers:
                    room[: have[0], :, : have[2]] = self.layers[layer][side]
                grown.append(room)
            fresh.append((grown[0], grown[1]))
        self.layers = fresh

    def move(self, source: int, target: int, places: int) -> None:
        """Copy the first ``places`` of a row over another row."""
        for keys, values in self.layers:
            keys[target, :, :places] = keys[source, :, :places]
            values[target, :, :places] = values[source, :, :places]


class _RowAttention:
    """Attention of one new token per row to the keys of its row and of its trunk."""

    def __init__(self, rows: Sequence[_Row], cache: _Cache, trunks: dict[int, Trunk], device: torch.device) -> None:
        self.cache, self.trunks, self.calls = cache, trunks, 0
        self.lengths = torch.tensor([row.length for row in rows], device=device)
        self.places = torch.tensor([row.base + row.length for row in rows], device=device)
        self.numbers = torch.arange(len(rows), device=device)
        self.width = max(row.length for row in rows) + 1
        self.longest = max(row.base + row.length for row in rows) + 1
        cache.reserve(len(rows), self.width, cache.layers)
        by_trunk: dict[int, list[int]] = {}
        for number, row in enumerate(rows):
            by_trunk.setdefault(row.trunk, []).append(number)
        self.by_trunk = [
            (trunk, None if len(members) == len(rows) else torch.tensor(members, device=device))
            for trunk, members in by_trunk.items()
            if trunk >= 0
        ]
        self.biases: dict[Any, Tensor] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """See ``Routed``."""
        if how.window is not None and self.longest <= how.window:
            how = replace(how, window=None)
        keys, values = self.cache.layers[self.calls]
        keys[self.numbers, :, self.lengths] = key.transpose(0, 1)
        values[self.numbers, :, self.lengths] = value.transpose(0, 1)
        heads, count, width = query.shape
        groups = heads // key.shape[0]
        folded = query.reshape(key.shape[0], groups, count, width).permute(2, 0, 1, 3)
        result, sums = attend(
            folded,
            keys[:count, :, : self.width],
            values[:count, :, : self.width],
            how,
            bias=self._bias(query.dtype, how),
        )
        assert sums is not None
        out = result.reshape(count, heads, -1)
        total = sums.reshape(count, heads).transpose(0, 1)
        for trunk, members in self.by_trunk:
            chosen = slice(None) if members is None else members
            part, sums = out[chosen], total[:, chosen]
            join(
                part,
                sums,
                *see_trunk(query[:, chosen], *self.trunks[trunk].layers[self.calls], how, self.places[chosen]),
            )
            if members is not None:
                out[members], total[:, members] = part, sums
        sink(out, total, how)
        self.calls += 1
        return out

    def _bias(self, dtype: torch.dtype, how: How) -> Tensor:
        name = (dtype, how.window)
        if name not in self.biases:
            steps = torch.arange(self.width, device=self.lengths.device)[None]
            is_hidden = steps > self.lengths[:, None]
            if how.window is not None:
                is_hidden |= self.lengths[:, None] - steps >= how.window
            bias = torch.zeros(is_hidden.shape, dtype=dtype, device=steps.device).masked_fill_(is_hidden, -torch.inf)
            self.biases[name] = bias[:, None, None]
        return self.biases[name]
