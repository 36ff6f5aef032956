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
from harness.models.tree.products import few_rows
from harness.models.tree.quick_layers import QuickLayers
from harness.models.tree.tree_attention import TreeAttention
from harness.models.tree.trie import Trie, plan
from harness.threads import watched

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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

    def run(self, budget: int) -> Iterator[tuple[int, Scored]]:
        """Score everything; yield the number of each sequence with its scores, as soon as they are there.

        Args:
            budget: tokens per forward pass.
        """
        trunks: dict[int, Trunk] = {}
        pushed: list[Ints] = []
        packs = plan(self.trie, budget)
        by_leaf = np.argsort(self.leaf, kind="stable")
        sorted_leaf = self.leaf[by_leaf]
        for pack in packs:
            pushed.append(self._push(pack, trunks))
            for trunk in pack.done:
                trunks.pop(trunk, None)
            if sum(len(hidden) for hidden, _ in self.waiting) >= ENOUGH_ROWS or pack is packs[-1]:
                self._flush()
                positions = np.concatenate(pushed)
                low, high = np.searchsorted(sorted_leaf, positions), np.searchsorted(sorted_leaf, positions, "right")
                for number in by_leaf[_ranges(low, high)].tolist():
                    pairs = self.pair_of[self.edges[number] : self.edges[number + 1]]
                    yield number, Scored(self.logprobs[pairs], self.is_best[pairs])
                pushed = []

    def _push(self, pack: Pack, trunks: dict[int, Trunk]) -> Ints:
        """Run a pack, put the hidden states that are to be scored aside, and return their positions."""
        positions = pack.positions
        rows = np.flatnonzero(self.is_scored[positions])
        found, first = np.unique(positions[rows], return_index=True)
        attention = TreeAttention(pack, self.trie, trunks, self.tree_model.device)
        with route(self.tree_model.model, attention):
            hidden = self.tree_model.push(pack, self.trie, attention, rows[first])
        self.is_scored[found] = False  # a stem that is shared by copying is scored once
        if len(found):
            self.waiting.append((hidden, found))
        return found

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
