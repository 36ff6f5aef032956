"""Greedy text for many prompts: shared beginnings once, each row stops for itself, waiting prompts take its place.

Rows guess their next tokens from their own past (see ``drafts``) while there is room in the batch: on a CPU as on a
GPU a pass over few tokens takes as long as reading the weights, so a few more cost little.

A text may go on after something was done with it: what is told of its end may return prompts to go on with, which
use its keys as far as their tokens are the same, or those of a beginning that comes again and again.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.models.tree.attention import Trunk, route
from harness.models.tree.drafts import Drafts
from harness.models.tree.memory import freed_memory_kept, trim
from harness.models.tree.prompts import (
    Candidates,
    Choose,
    NotANumber,
    OnDone,
    Place,
    Prompt,
    UnderWay,
    common_length,
    most_likely,
)
from harness.models.tree.row_attention import KeptKeys, RowAttention, RowCache
from harness.models.tree.tree_attention import TreeAttention
from harness.models.tree.trie import MAX_BRANCH_TOKENS, Trie, plan

if TYPE_CHECKING:
    from harness.models.tree.scoring import TreeModel
    from harness.models.tree.trie import Ints, Pack

Tensor = torch.Tensor
# Prompts join the running rows in portions of this many tokens; with fewer a CPU multiplies as fast, and takes less memory.
PROMPT_TOKENS, CPU_PROMPT_TOKENS = 1024, 512
# With fewer rows than this, prompts that branch do not go through the model together: they would all start at once.
MANY_ROWS = 16
# Tokens of a later prompt that go through the model beside the other rows' next ones.
CHUNK = 32
# Tokens whose keys are held for beginnings that come again.
SHARED_TOKENS = 16384
# Numbers of trunks that are kept for prompts to come; those of the prompts' own tree are below.
FIRST_SHARED = 1 << 40


@dataclass
class _Row:
    """A prompt under way. ``length`` counts its own keys, those of its trunk (``base``) left out.

    ``pending`` are the tokens that have no keys yet: the last one, or what is left of a prompt that came later.
    """

    number: int
    prompt: Prompt
    trunk: int
    base: int
    length: int
    drafts: Drafts
    pending: list[int]
    token_ids: list[int] = field(default_factory=list)


def generate(
    tree_model: TreeModel,
    prompts: Sequence[Prompt],
    *,
    rows: int,
    budget: int,
    on_done: OnDone,
    choose: Choose = most_likely,
) -> None:
    """Generate for each prompt, and hand each result over when it is finished.

    Args:
        rows: prompts under way at a time, about.
        budget: tokens per forward pass, for the prompts.
        on_done: is told of each prompt that ended, in any order; what it returns comes next.
        choose: chooses the tokens.

    Raises:
        NotANumber: logits are NaN or infinite.
    """
    _Generation(tree_model, prompts, rows, budget, on_done, choose).run()


class _Generation:
    def __init__(
        self,
        tree_model: TreeModel,
        prompts: Sequence[Prompt],
        rows: int,
        budget: int,
        on_done: OnDone,
        choose: Choose,
    ) -> None:
        self.tree_model, self.prompts, self.most = tree_model, prompts, rows
        self.on_done, self.choose = on_done, choose
        self.trie = Trie.build([prompt.token_ids for prompt in prompts], [len(prompt.token_ids) for prompt in prompts])
        self.packs = plan(
            self.trie,
            min(budget, CPU_PROMPT_TOKENS if tree_model.device.type == "cpu" else PROMPT_TOKENS),
            branch_tokens=MAX_BRANCH_TOKENS if rows >= MANY_ROWS else 0,
            most_units=rows,
        )
        self.trunks: dict[int, Trunk] = {}
        self.rows: list[_Row] = []
        self.done: set[int] = set()  # trunks that no prompt to come needs
        self.cache = RowCache(self.rows)
        self.of_leaf: dict[int, list[int]] = {}
        for number, path in enumerate(self.trie.paths):
            self.of_leaf.setdefault(int(path[-1]), []).append(number)
        self.later: list[tuple[int, Prompt]] = []  # what ended texts go on with
        self.shared: dict[tuple[int, ...], int] = {}  # trunks of beginnings that come again, the last used last
        self.made = 0
        self.kept: weakref.WeakKeyDictionary[KeptKeys, int] = weakref.WeakKeyDictionary()  # of which number
        self.under_way = UnderWay(prompts)

    def run(self) -> None:
        """Generate everything. Whatever ends it early, no keys are left behind."""
        trim()
        try:
            self._run()
        finally:
            self._forget(self.kept.values())

    def _run(self) -> None:
        waiting = list(reversed(self.packs))
        while waiting or self.rows or self.later:
            while self.later and len(self.rows) < self.most:
                self._admit(*self.later.pop(0))
            while waiting and self._has_room(self._count(waiting[-1])):
                pack = waiting.pop()
                with freed_memory_kept():  # until the pack is done: a step needs less
                    self._prefill(pack)
                self.done.update(pack.done)
            if self.rows:
                self._step()
            used = {row.trunk for row in self.rows} | {kept.trunk for kept in self.kept}
            for trunk in self.done - used:
                self.trunks.pop(trunk, None)
            self.done &= used

    def _has_room(self, prompts: int) -> bool:
        """Whether so many more may begin; what goes on later has a place already."""
        under_way = len(self.rows) + len(self.later)
        return not under_way or under_way + prompts <= self.most

    def _count(self, pack: Pack) -> int:
        leaves = self.of_leaf.keys()
        return sum(len(self.of_leaf[p]) for p in leaves & set(pack.positions.tolist()))

    def _prefill(self, pack: Pack) -> None:
        """Run the tokens of prompts, and take in the prompts that end there with their first token."""
        found: list[tuple[_Row, Ints]] = []
        leaf_rows: list[int] = []
        start = 0
        for unit in pack.units:
            for index in np.flatnonzero(np.isin(unit.positions, list(self.of_leaf))):
                base = self.trunks[unit.trunk].length if unit.trunk >= 0 else 0
                for number in self.of_leaf.pop(int(unit.positions[index])):
                    path = self.trie.paths[number][base:]
                    prompt = self.prompts[number]
                    row = _Row(number, prompt, unit.trunk, base, len(path), Drafts(prompt.token_ids), [])
                    found.append((row, start + np.searchsorted(unit.positions, path)))
                    leaf_rows.append(start + int(index))
            start += len(unit)
        device, at = self.tree_model.device, len(self.rows)
        keep = self.cache.add([places for _, places in found], at=at, device=device) if found else None
        attention = TreeAttention(pack, self.trie, self.trunks, device, keep=keep)
        with route(self.tree_model.model, attention):
            hidden = self.tree_model.push(pack, self.trie, attention, np.array(leaf_rows, np.int64))
        if not found:
            return
        first = [[token] for token in self._chosen(hidden, [Place(row.prompt, ()) for row, _ in found])]
        self.rows += [row for row, _ in found]
        self._take(first, len(self.rows) - len(found))

    def _admit(self, number: int, prompt: Prompt) -> None:
        """Take in a prompt that came later, with the keys there are of its beginning; its other tokens are pending."""
        kept = prompt.after.kept if prompt.after is not None else None
        same = 0 if kept is None else common_length(kept.token_ids, prompt.token_ids[:-1])
        if kept is not None and same:
            if prompt.shared:
                self._hold(kept)
            base = min(kept.base, same)
            row = _Row(number, prompt, kept.trunk, base, same - base, Drafts(prompt.token_ids), [])
            self.cache.put(len(self.rows), kept, row.length)
        else:
            trunk, same = self._shared_trunk(tuple(prompt.token_ids[: min(prompt.shared, len(prompt.token_ids) - 1)]))
            row = _Row(number, prompt, trunk, same, 0, Drafts(prompt.token_ids), [])
        row.pending = list(prompt.token_ids[same:])
        self.rows.append(row)
        prompt.after = None  # lest it hold the keys of all texts before it

    def _hold(self, kept: KeptKeys) -> None:
        """Make a trunk of kept keys, of which any number of rows see as much as they go on from."""
        count = len(kept.token_ids)
        if kept.base < count:
            layers = kept.layers
            if kept.base:
                above = [
                    (keys[:, : kept.base], values[:, : kept.base]) for keys, values in self.trunks[kept.trunk].layers
                ]
                layers = [
                    (torch.cat([a, k], 1), torch.cat([b, v], 1)) for (a, b), (k, v) in zip(above, layers, strict=True)
                ]
            self.made += 1
            kept.trunk, kept.base = FIRST_SHARED + self.made, count
            kept.layers = [(keys[:, :0], values[:, :0]) for keys, values in layers]
            self.trunks[kept.trunk] = Trunk(layers)
            self.done.add(kept.trunk)  # it goes with the last that uses it

    def _forget(self, numbers: Iterable[int]) -> None:
        """Let go of the keys that were kept for what goes on under these numbers."""
        gone = set(numbers)
        for kept in [kept for kept, number in self.kept.items() if number in gone]:
            kept.forget()

    def _shared_trunk(self, token_ids: tuple[int, ...]) -> tuple[int, int]:
        """Return number and length of the trunk of a beginning that comes again; -1 and 0 of an empty one."""
        if not token_ids:
            return -1, 0
        if token_ids in self.shared:
            self.shared[token_ids] = self.shared.pop(token_ids)  # the last one used is the last one
        else:
            self._make_room(len(token_ids))
            trie = Trie.build([token_ids], [1])
            (pack,) = plan(trie, len(token_ids))
            made = Trunk()

            def keep(layer: int, keys: Tensor, values: Tensor) -> None:
                made.layers.append((keys.clone(), values.clone()))

            attention = TreeAttention(pack, trie, {}, self.tree_model.device, keep=keep)
            with route(self.tree_model.model, attention):
                self.tree_model.push(pack, trie, attention, np.array([len(token_ids) - 1]))
            self.made += 1
            number = self.shared[token_ids] = FIRST_SHARED + self.made
            self.trunks[number] = made
        return self.shared[token_ids], len(token_ids)

    def _make_room(self, tokens: int) -> None:
        """Let go of the beginnings that were not used for longest, once no row uses them, until so many tokens fit."""
        while self.shared and sum(map(len, self.shared)) + tokens > SHARED_TOKENS:
            self.done.add(self.shared.pop(next(iter(self.shared))))

    def _step(self) -> None:
        """Give every row its next token, and as many more as were guessed right."""
        rows = self.rows[: self.most]  # there are more when many prompts end in one pack
        fed = [row.pending[:CHUNK] for row in rows]
        spare = max(0, self.most - len(rows))
        guesses: list[list[int]] = []
        for row, tokens in zip(rows, fed, strict=True):
            left = row.prompt.limit - len(row.token_ids) - 1
            is_next = len(tokens) == len(row.pending)
            guesses.append(row.drafts.guess(min(spare, left)) if is_next else [])
            spare -= len(guesses[-1])
        widths = [len(tokens) + len(guess) for tokens, guess in zip(fed, guesses, strict=True)]
        attention = RowAttention(rows, widths, self.cache, self.trunks, self.tree_model.device)
        pushed = [token for tokens, guess in zip(fed, guesses, strict=True) for token in (*tokens, *guess)]
        asked, places = self._asked(rows, fed, guesses)
        with route(self.tree_model.model, attention):
            hidden = self.tree_model.run(np.array(pushed), attention.text_places, attention, asked)
        best = iter(self._chosen(hidden, places) if places else [])
        found: list[list[int]] = []
        for row, tokens, guess in zip(rows, fed, guesses, strict=True):
            row.length += len(tokens)
            del row.pending[: len(tokens)]
            if row.pending:
                found.append([])
                continue
            answers = [next(best) for _ in range(1 + len(guess))]
            right = next((n for n, token in enumerate(guess) if token != answers[n]), len(guess))
            row.drafts.judge(len(guess), right)
            row.length += right
            found.append(answers[: right + 1])
        self._take(found, 0)

    def _asked(
        self, rows: Sequence[_Row], fed: Sequence[list[int]], guesses: Sequence[list[int]]
    ) -> tuple[Ints, list[Place]]:
        """Return which of the tokens in a step are followed by one to choose, and the places of these."""
        asked: list[int] = []
        places: list[Place] = []
        start = 0
        for row, tokens, guess in zip(rows, fed, guesses, strict=True):
            if len(tokens) == len(row.pending):
                asked += range(start + len(tokens) - 1, start + len(tokens) + len(guess))
                places += [Place(row.prompt, [*row.token_ids, *guess[:n]]) for n in range(1 + len(guess))]
            start += len(tokens) + len(guess)
        return np.array(asked, np.int64), places

    def _chosen(self, hidden: Tensor, places: Sequence[Place]) -> list[int]:
        with self.tree_model.work.timed("head"):
            head = self.tree_model.head
            words = Candidates(hidden, lambda barred: head.best(hidden, barred), lambda: head.logits(hidden))
            tokens = self.choose(words, places)
        self.tree_model.work.scored_rows += len(tokens)
        return tokens

    def _take(self, tokens: Sequence[Sequence[int]], start: int) -> None:
        """Append what each row from ``start`` on goes on with, and let the finished rows go."""
        for index in range(start + len(tokens) - 1, start - 1, -1):
            row = self.rows[index]
            if self._extend(row, tokens[index - start]):
                if row.prompt.keeps:
                    self._keep(row, index)
                last = self.rows.pop()
                self.cache.let_go(index)
                if index < len(self.rows):
                    self.cache.move(len(self.rows), index, last.length)
                    self.cache.let_go(len(self.rows))
                    self.rows[index] = last
                more = list(self.on_done(row.number, row.prompt, row.token_ids) or ())
                self.later += [(row.number, prompt) for prompt in more]
                if self.under_way.has_ended(row.number, row.prompt, more):
                    self._forget([row.number])

    def _extend(self, row: _Row, tokens: Sequence[int]) -> bool:
        """Append tokens to a row one by one; return whether it ends with one of them."""
        for token in tokens:
            if token < 0:
                raise NotANumber(row.number)
            row.token_ids.append(token)
            row.drafts.append(token)
            if len(row.token_ids) >= row.prompt.limit or row.prompt.is_finished(row.token_ids):
                return True
        row.pending += tokens[-1:]
        return False

    def _keep(self, row: _Row, index: int) -> None:
        """Put the keys of an ended row aside. Its last token has none."""
        token_ids = [*row.prompt.token_ids, *row.token_ids[:-1]]
        row.prompt.kept = self.cache.take(index, row.trunk, row.base, token_ids)
        self.kept[row.prompt.kept] = row.number
