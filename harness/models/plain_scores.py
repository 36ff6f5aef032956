"""Log-probabilities of given ids by plain forward passes: batches padded on the right, which causal attention does not see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from harness.models.tree.memory import Budget, in_portions

if TYPE_CHECKING:
    from harness.models.tree.pieces import Window

Tensor = torch.Tensor


def score_plainly(
    call: Callable[[Tensor], Tensor], windows: Sequence[Window], *, budget: Budget, device: torch.device
) -> list[list[float]]:
    """Return for each window the log-probability, in nats, of each of its scored ids given all before it.

    Args:
        call: the forward pass, (B, T) ids to (B, T, V) logits.
        windows: (context, scored) ids, one of context at least; the longest are taken first.
        budget: how many rows go through the model at once.
    """
    answers: list[list[float]] = [[]] * len(windows)
    order = sorted(range(len(windows)), key=lambda number: -sum(map(len, windows[number])))

    def answer(part: list[int]) -> None:
        size = budget.plain_rows(sum(map(len, windows[part[0]])))
        for start in range(0, len(part), size):
            batch = part[start : start + size]
            logits = call(_padded([windows[number][0] + windows[number][1] for number in batch]).to(device))
            for number, rows in zip(batch, logits, strict=True):
                answers[number] = _scores(rows, *windows[number])

    in_portions(order, answer, budget)
    return answers


def _padded(sequences: Sequence[list[int]]) -> Tensor:
    """Return all but the last id of each sequence (B, T), padded on the right with 0."""
    inputs = torch.zeros((len(sequences), max(map(len, sequences)) - 1), dtype=torch.long)
    for line, sequence in zip(inputs, sequences, strict=True):
        line[: len(sequence) - 1] = torch.tensor(sequence[:-1])
    return inputs


def _scores(logits: Tensor, context: list[int], scored: list[int]) -> list[float]:
    span = logits[len(context) - 1 : len(context) - 1 + len(scored)]
    targets = torch.tensor(scored, device=logits.device)[:, None]
    found: list[float] = torch.log_softmax(span.float(), dim=-1).gather(1, targets)[:, 0].tolist()
    return found
