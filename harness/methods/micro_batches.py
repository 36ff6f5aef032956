"""One step's rows in parts that fit the memory: rows of similar length together, each part with its share of the mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100


class Batch(NamedTuple):
    """One optimiser step's rows: (B, T) ids, labels (-100 where no loss is due) and attention mask.

    ``labels[:, t]`` is due at position ``t - 1``, as in transformers. A loss over pairs puts their rows one below the other.
    ``extras`` has more (B, T) numbers by name that a loss of one's own needs beside the labels, such as weights of tokens or
    what a reference said of them: they go where their rows go.
    """

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    extras: Mapping[str, Tensor] = MappingProxyType({})

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return a batch with each of the tensors changed."""
        extras = {name: change(tensor) for name, tensor in self.extras.items()}
        return Batch(change(self.input_ids), change(self.labels), change(self.attention_mask), extras)


class MeanOf(StrEnum):
    """What a loss is the mean of, so that it may be asked for some rows of a step at a time."""

    LABELS = "labels"
    ROWS = "rows"
    PAIRS = "pairs"  # rows 0 and 1, rows 2 and 3, and so on

    @property
    def rows_together(self) -> int:
        """How many rows a part has to have at least."""
        return 2 if self is MeanOf.PAIRS else 1


class MicroBatch(NamedTuple):
    """Some rows of a step, without columns that are padding in all of them, and their share of the step's mean."""

    batch: Batch
    share: float


def pad(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]], extras: Mapping[str, Sequence[Sequence[float]]] | None = None
) -> Batch:
    """Return (ids, labels) rows as one batch, padded on the right with id 0, label -100 and mask 0.

    Args:
        rows: ids and labels of each.
        extras: by name, for each row as many numbers as it has ids; padded with 0, float32.
    """
    longest = max(len(ids) for ids, _ in rows)
    input_ids = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, (ids, targets) in enumerate(rows):
        input_ids[number, : len(ids)] = torch.tensor(ids)
        labels[number, : len(ids)] = torch.tensor(targets)
        mask[number, : len(ids)] = 1
    more = {name: torch.zeros((len(rows), longest)) for name in extras or {}}
    for name, numbers in (extras or {}).items():
        for row, of_row in zip(more[name], numbers, strict=True):
            row[: len(of_row)] = torch.tensor(of_row)
    return Batch(input_ids, labels, mask, more)


def label_count(batch: Batch) -> int:
    """Return how many labels are due; the first position's never is."""
    return int((batch.labels[:, 1:] != IGNORED).sum())


def split(batch: Batch, *, tokens: int, mean_of: MeanOf) -> list[MicroBatch]:
    """Return the rows of ``batch`` in parts of at most ``tokens`` tokens, the longest rows first.

    A row or pair that is longer goes alone. Of a mean over labels, rows that have none are left out: all of them, where
    no row has a label.

    Args:
        batch: on the CPU.
        tokens: most tokens of a part, its padding included.
        mean_of: what the loss is the mean of.

    Raises:
        ValueError: there are pairs, and a row without the other one.
    """
    size = mean_of.rows_together
    if len(batch.input_ids) % size:
        raise ValueError(f"a loss over pairs was given {len(batch.input_ids)} rows; pairs stand one below the other")
    labels = (batch.labels[:, 1:] != IGNORED).sum(1)
    weights = labels if mean_of is MeanOf.LABELS else torch.ones_like(labels)
    total = int(weights.sum())
    groups = [group for group in torch.arange(len(labels)).view(-1, size).tolist() if int(weights[group].sum())]
    lengths = _lengths(batch).tolist()
    parts: list[tuple[list[int], int]] = []  # rows, and the longest one's length
    for group in sorted(groups, key=lambda group: -max(lengths[row] for row in group)):
        if parts and (len(parts[-1][0]) + size) * parts[-1][1] <= tokens:
            parts[-1][0].extend(group)
        else:
            parts.append((list(group), max(lengths[row] for row in group)))
    return [
        MicroBatch(batch.map(partial(_some, rows=rows, longest=longest)), int(weights[rows].sum()) / total)
        for rows, longest in parts
    ]


def _some(tensor: Tensor, *, rows: list[int], longest: int) -> Tensor:
    return tensor[rows, :longest]


def _lengths(batch: Batch) -> Tensor:
    """Return where each row's last token or label ends, (B,)."""
    is_used = (batch.attention_mask != 0) | (batch.labels != IGNORED)
    return (is_used * torch.arange(1, is_used.shape[1] + 1)).amax(1).clamp_min(1)
