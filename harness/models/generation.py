"""Greedy text for many prompts: shared beginnings once, each row stops for itself, waiting prompts take its place.

Rows guess their next tokens from their own past (see ``drafts``) while there is room in the batch: on a CPU as on a
GPU a pass over few tokens takes as long as reading the weights, so a few more cost little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.models.attention import How, Trunk, attend, calls, hide, join, pick_rows, route, see_trunk, sink
from harness.models.drafts import Drafts
from harness.models.tree_attention import TreeAttention, padded
from harness.models.trie import MAX_BRANCH_TOKENS, Trie, plan

if TYPE_CHECKING:
    from harness.models.scoring import TreeModel
    from harness.models.trie import Ints, Pack

Tensor = torch.Tensor
# Prompts join the running rows in portions of this many tokens.
PROMPT_TOKENS = 1024
# With fewer rows than this, prompts that branch do not go through the model together: they would all start at once.
MANY_ROWS = 16


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
    drafts: Drafts
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
        self.packs = plan(
            self.trie,
            min(budget, PROMPT_TOKENS),
            branch_tokens=MAX_BRANCH_TOKENS if rows >= MANY_ROWS else 0,
            most_units=rows,
        )
        self.trunks: dict[int, Trunk] = {}
        self.rows: list[_Row] = []
        self.done: set[int] = set()  # trunks that no prompt to come needs
        self.cache = _Cache()
        self.of_leaf: dict[int, list[int]] = {}
        for number, path in enumerate(self.trie.paths):
            self.of_leaf.setdefault(int(path[-1]), []).append(number)

    def run(self) -> None:
        """Generate everything."""
        waiting = list(reversed(self.packs))
        while waiting or self.rows:
            while waiting and (not self.rows or len(self.rows) + self._count(waiting[-1]) <= self.most):
                pack = waiting.pop()
                self._prefill(pack)
                self.done.update(pack.done)
            if self.rows:
                self._step()
            used = {row.trunk for row in self.rows}
            for trunk in self.done - used:
                self.trunks.pop(trunk, None)
            self.done &= used

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
                    row = _Row(number, unit.trunk, base, len(path), Drafts(self.prompts[number].token_ids))
                    found.append((row, start + np.searchsorted(unit.positions, path)))
                    leaf_rows.append(start + int(index))
            start += len(unit)
        with route(self.tree_model.model, attention):
            hidden = self.tree_model.push(pack, self.trie, attention, np.array(leaf_rows, np.int64))
        if not found:
            return
        first = [[token] for token in self._best(hidden)]
        self.cache.add([places for _, places in found], attention.kept, at=len(self.rows))
        self.rows += [row for row, _ in found]
        self._take(first, len(self.rows) - len(found))

    def _step(self) -> None:
        """Give every row its next token, and as many more as were guessed right."""
        rows = self.rows[: self.most]  # there are more when many prompts end in one pack
        spare = max(0, self.most - len(rows))
        guesses: list[list[int]] = []
        for row in rows:
            left = self.prompts[row.number].limit - len(row.token_ids) - 1
            guesses.append(row.drafts.guess(min(spare, left)))
            spare -= len(guesses[-1])
        widths = [1 + len(guess) for guess in guesses]
        attention = _RowAttention(rows, widths, self.cache, self.trunks, self.tree_model.device)
        tokens = [token for row, guess in zip(rows, guesses, strict=True) for token in (row.token_ids[-1], *guess)]
        with route(self.tree_model.model, attention):
            hidden = self.tree_model.run(np.array(tokens), attention.text_places, attention, np.arange(len(tokens)))
        best = iter(self._best(hidden))
        found = []
        for row, guess in zip(rows, guesses, strict=True):
            answers = [next(best) for _ in range(1 + len(guess))]
            right = next((n for n, token in enumerate(guess) if token != answers[n]), len(guess))
            row.drafts.judge(len(guess), right)
            found.append(answers[: right + 1])
        self._take(found, 0)

    def _best(self, hidden: Tensor) -> list[int]:
        with self.tree_model.work.timed("head"):
            tokens: list[int] = self.tree_model.head.best(hidden).tolist()
        self.tree_model.work.scored_rows += len(tokens)
        return tokens

    def _take(self, tokens: Sequence[Sequence[int]], start: int) -> None:
        """Append what each row from ``start`` on goes on with, and let the finished rows go."""
        for index in range(start + len(tokens) - 1, start - 1, -1):
            row = self.rows[index]
            if self._extend(row, tokens[index - start]):
                self.on_done(row.number, row.token_ids)
                last = self.rows.pop()
                if index < len(self.rows):
                    self.cache.move(len(self.rows), index, last.length)
                    self.rows[index] = last

    def _extend(self, row: _Row, tokens: Sequence[int]) -> bool:
        """Append tokens to a row one by one; return whether it ends with one of them."""
        prompt = self.prompts[row.number]
        for token in tokens:
            if token < 0:
                raise NotANumber(row.number)
            row.length += bool(row.token_ids)  # the keys of the token before are there now
            row.token_ids.append(token)
            row.drafts.append(token)
            if len(row.token_ids) >= prompt.limit or prompt.is_finished(row.token_ids):
                return True
        return False


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
    """Attention of the new tokens of each row to the keys of its row and of its trunk.

    Args:
        widths: how many new tokens each row has, one after the other.
    """

    def __init__(
        self, rows: Sequence[_Row], widths: Sequence[int], cache: _Cache, trunks: dict[int, Trunk], device: torch.device
    ) -> None:
        self.cache, self.trunks, self.count = cache, trunks, len(rows)
        steps = np.concatenate([np.arange(width) for width in widths])
        row_of = np.repeat(np.arange(len(rows)), widths)
        own = np.array([row.length for row in rows])[row_of] + steps
        self.text_places = own + np.array([row.base for row in rows])[row_of]
        self.longest, self.width = int(self.text_places.max()) + 1, int(own.max()) + 1
        cache.reserve(len(rows), self.width, cache.layers)
        self.row_of, self.own, self.places = (
            torch.as_tensor(numbers, device=device) for numbers in (row_of, own, self.text_places)
        )
        # (rows, most new tokens) token numbers, the first of the row standing for padding.
        tokens, is_real = padded(list(zip(np.cumsum([0, *widths]).tolist(), widths, strict=False)))
        self.tokens = torch.as_tensor(tokens, device=device)
        self.is_real = None if is_real.all() else torch.as_tensor(is_real.reshape(-1), device=device)
        trunk_of = np.array([row.trunk for row in rows])[row_of]
        self.by_trunk: list[tuple[int, Any]] = []
        for trunk in np.unique(trunk_of[trunk_of >= 0]).tolist():
            members = np.flatnonzero(trunk_of == trunk)
            everyone = slice(None) if len(members) == len(trunk_of) else torch.as_tensor(members, device=device)
            self.by_trunk.append((trunk, everyone))
        self.biases: dict[Any, Tensor] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """See ``Routed``."""
        if how.window is not None and self.longest <= how.window:
            how = replace(how, window=None)
        layer = calls() - 1
        keys, values = self.cache.layers[layer]
        keys[self.row_of, :, self.own] = key.transpose(0, 1)
        values[self.row_of, :, self.own] = value.transpose(0, 1)
        heads, _, width = query.shape
        groups = heads // key.shape[0]
        folded = pick_rows(query, self.tokens).reshape(self.count, key.shape[0], -1, width)
        seen = keys[: self.count, :, : self.width], values[: self.count, :, : self.width]
        result, sums = attend(folded, *seen, how, bias=self._bias(query.dtype, how, groups))
        assert sums is not None
        out = result.reshape(self.count, heads, -1, value.shape[-1]).transpose(1, 2).flatten(0, 1)
        total = sums.reshape(self.count, heads, -1).transpose(0, 1).flatten(1)
        if self.is_real is not None:
            out, total = out[self.is_real], total[:, self.is_real]
        for trunk, members in self.by_trunk:
            part, part_total = out[members], total[:, members]
            above = self.trunks[trunk].layers[layer]
            join(part, part_total, *see_trunk(query[:, members], *above, how, self.places[members]))
            out[members], total[:, members] = part, part_total
        sink(out, total, how)
        return out

    def _bias(self, dtype: torch.dtype, how: How, groups: int) -> Tensor:
        name = (dtype, how.window, groups)
        if name not in self.biases:
            steps = torch.arange(self.width, device=self.own.device)
            own = self.own[self.tokens][..., None]
            is_hidden = steps > own
            if how.window is not None:
                is_hidden |= own - steps >= how.window
            self.biases[name] = hide(is_hidden, dtype).repeat(1, groups, 1).unsqueeze(1)
        return self.biases[name]
