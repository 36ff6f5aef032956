"""Log-likelihoods over a tree of tokens: every distinct prefix goes through the model once, the head where asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.models.head import ENOUGH_ROWS, Head
from harness.models.refused import Refused
from harness.models.tree.attention import Trunk, calls, restart, route
from harness.models.tree.portions import Step, first_portions, leaf_portions, needed, steps_of, trunk_portions
from harness.models.tree.products import few_rows
from harness.models.tree.quick_layers import QuickLayers
from harness.models.tree.tree_attention import TreeAttention
from harness.models.tree.trie import Trie, plan
from harness.threads import watched

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.models.due import Choice, Due
    from harness.models.tree.trie import Ints, Pack
    from harness.models.tree.work import Work

Tensor = torch.Tensor


@dataclass
class Scored:
    """The scores of the last tokens of one sequence: log-probabilities in nats, and which tokens are the likeliest."""

    logprobs: np.ndarray[Any, np.dtype[np.float64]]
    is_best: np.ndarray[Any, np.dtype[np.bool_]]


class TreeModel:
    """A model whose attention and head can be run over packs of a tree.

    Args:
        layers: how many attention layers a forward pass has; another number means something went past us.
    """

    def __init__(self, model: PreTrainedModel, head: Head, *, layers: int, work: Work, autocast: Any) -> None:
        self.model, self.head, self.layers, self.work, self.autocast = model, head, layers, work, autocast
        self.device = model.get_input_embeddings().weight.device
        self.quick_layers = QuickLayers(model)

    def push(self, pack: Pack, trie: Trie, attention: TreeAttention, rows: Ints) -> Tensor:
        """Run one pack and return the hidden states (rows, width) before the head."""
        positions = pack.positions
        return self.run(trie.token_ids[positions], trie.depth[positions], attention, rows)

    def run(self, token_ids: Ints, places: Ints, attention: Any, rows: Ints) -> Tensor:
        """Run tokens at their places in the text, and return the hidden states (rows, width) before the head."""
        inputs = torch.as_tensor(token_ids, device=self.device)[None]
        position_ids = torch.as_tensor(places, device=self.device)[None]
        with self.work.timed("model"), watched("scoring", inputs.shape[1]):
            restart()
            with (
                self.autocast(),
                self.quick_layers.used(),
                few_rows(inputs.shape[1], self.device),
                self.head.taking(torch.as_tensor(rows)),
            ):
                self.model(input_ids=inputs, position_ids=position_ids, use_cache=False)
                hidden = self.head.taken()
            if calls() != self.layers:
                raise Refused(f"{calls()} of its {self.layers} layers have attention that can be routed")
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        self.work.forwards += 1
        self.work.pushed_tokens += inputs.shape[1]
        return hidden


class Scoring:
    """Score the last tokens of sequences, each given all tokens before it.

    Args:
        sequences: token ids, at least two each.
        counts: how many of its last tokens are scored, for each sequence; fewer than it has.
    """

    def __init__(self, tree_model: TreeModel, sequences: Sequence[Sequence[int]], counts: Sequence[int]) -> None:
        self.tree_model, self.edges = tree_model, np.cumsum([0, *counts])
        self.trie = Trie.build([sequence[:-1] for sequence in sequences], counts)
        tokens = [
            np.asarray(sequence[len(sequence) - count :], np.int64)
            for sequence, count in zip(sequences, counts, strict=True)
        ]
        # A pair is a position and a token that may follow it; requests share pairs as they share positions.
        wanted = np.concatenate(self.trie.paths) * (1 << 31) + np.concatenate(tokens)
        pairs, self.pair_of = np.unique(wanted, return_inverse=True)
        self.pair_position, self.pair_token = pairs >> 31, pairs & ((1 << 31) - 1)
        self.is_scored = np.zeros(len(self.trie), bool)
        self.is_scored[self.pair_position] = True
        self.logprobs, self.is_best = np.full(len(pairs), np.nan), np.zeros(len(pairs), bool)
        # A sequence is finished with its last position.
        self.leaf = np.array([path[-1] for path in self.trie.paths])
        self.waiting: list[tuple[Tensor, Ints]] = []
        self.steps: list[Step] = []
        self.choice: Choice | None = None

    def plan(self, budget: int, due: Due | None = None, owners: Sequence[int] = ()) -> None:
        """Lay out the passes, and choose those that are due.

        Args:
            budget: tokens per forward pass.
            due: which requests are; None: all of them.
            owners: the number of the request that each sequence belongs to.
        """
        self.steps = steps_of(plan(self.trie, budget), self.is_scored, ENOUGH_ROWS)
        if due is not None:
            portions = leaf_portions(self.steps, self.trie)[self.leaf].tolist()
            above = trunk_portions(self.steps)
            sizes = [0] * (self.steps[-1].portion + 1)
            for step in self.steps:
                sizes[step.portion] += len(step.pack.positions)
            self.choice = due.choose(portions, owners, sizes, more=[above[portion] for portion in portions])

    @property
    def distinct(self) -> tuple[int, int]:
        """How many positions are this part's to push, and how many pairs of one and itself or an ancestor there are."""
        if self.choice is None:
            return len(self.trie), self.trie.pairs
        is_own = np.isin(first_portions(self.steps, self.trie), list(self.choice.taken or ()))
        return int(is_own.sum()), int(self.trie.depth[is_own].sum() + is_own.sum())

    def run(self) -> Iterator[tuple[int, Scored]]:
        """Score what was planned; yield the number of each sequence with its scores, as soon as they are there."""
        choice, trunks = self.choice, dict[int, Trunk]()
        computed = None if choice is None else choice.computed
        due = range(len(self.steps)) if computed is None else sorted(needed(self.steps, computed))
        by_leaf = np.argsort(self.leaf, kind="stable")
        sorted_leaf = self.leaf[by_leaf]
        pushed: list[Ints] = []
        for step in (self.steps[number] for number in due):
            is_asked = computed is None or step.portion in computed
            pushed.append(self._push(step, trunks, is_asked=is_asked))
            for trunk in step.pack.done:
                trunks.pop(trunk, None)
            if step.ends and is_asked:
                self._flush()
                positions = np.concatenate(pushed)
                low, high = np.searchsorted(sorted_leaf, positions), np.searchsorted(sorted_leaf, positions, "right")
                for number in by_leaf[_ranges(low, high)].tolist():
                    if choice is None or number in choice.windows:
                        pairs = self.pair_of[self.edges[number] : self.edges[number + 1]]
                        yield number, Scored(self.logprobs[pairs], self.is_best[pairs])
                pushed = []

    def _push(self, step: Step, trunks: dict[int, Trunk], *, is_asked: bool) -> Ints:
        """Run a pass, put the hidden states that are to be scored aside, and return the positions that are new.

        Args:
            is_asked: whether they are; another pass needs the keys.
        """
        attention = TreeAttention(step.pack, self.trie, trunks, self.tree_model.device)
        with route(self.tree_model.model, attention):
            hidden = self.tree_model.push(step.pack, self.trie, attention, step.rows)
        if is_asked and len(step.positions):
            self.waiting.append((hidden, step.positions))
        return step.first if is_asked else step.first[:0]

    def _flush(self) -> None:
        if not self.waiting:
            return
        work = self.tree_model.work
        with work.timed("head"):
            hidden = torch.cat([hidden for hidden, _ in self.waiting])
            positions = np.concatenate([positions for _, positions in self.waiting])
            low = np.searchsorted(self.pair_position, positions)
            high = np.searchsorted(self.pair_position, positions, "right")
            pairs, rows = _ranges(low, high), np.repeat(np.arange(len(positions)), high - low)
            device = hidden.device
            scores, is_best = self.tree_model.head.score(
                hidden, torch.as_tensor(rows, device=device), torch.as_tensor(self.pair_token[pairs], device=device)
            )
            both = torch.stack([scores, is_best.to(scores.dtype)]).cpu().numpy()  # the only copy to the host
            self.logprobs[pairs], self.is_best[pairs] = both[0], both[1] > 0
        work.scored_rows += len(positions)
        self.waiting = []


def _ranges(low: Ints, high: Ints) -> Ints:
    """Return low[0] ... high[0] - 1, low[1] ... high[1] - 1 and so on."""
    lengths = high - low
    starts = np.repeat(low - np.append(0, np.cumsum(lengths)[:-1]), lengths)
    return starts + np.arange(int(lengths.sum()))
