"""What losses over pairs of responses share: log-probabilities kept from before, and both sides of a pair in one pass.

A pair is two rows, the chosen response above the rejected one, both behind the same prompt: it goes through the model once.
What does not change while a policy is trained, such as its reference, is asked once and travels with the rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from harness.errors import HarnessError
from harness.methods.chunked_loss import label_loglikelihoods
from harness.methods.micro_batches import IGNORED, Batch, pad
from harness.methods.training_memory import CPU_TOKENS, DEVICE_TOKENS
from harness.models.tree import memory
from harness.progress import bar
from harness.seeds import stream_seed

Tensor = torch.Tensor
Row = tuple[Sequence[int], Sequence[int]]  # ids, and labels of which -100 are not due


@dataclass(frozen=True)
class Side:
    """The chosen or the rejected responses of P pairs, padded to T.

    ``loglikelihoods`` (P, T) are of each token, in nats, 0 where ``is_due`` (P, T) says that it is no response's; gradients go
    through them. ``extras`` (P, T) are those of the batch.
    """

    loglikelihoods: Tensor
    is_due: Tensor
    extras: Mapping[str, Tensor]


def sides(model: torch.nn.Module, batch: Batch) -> tuple[Side, Side]:
    """Return the chosen and the rejected side of a batch of pairs, each prompt having gone through the model once.

    Args:
        model: the policy, in training mode or not.
        batch: rows 0, 2, 4, ... are chosen, the one below each is rejected; on the model's device.
    """
    found, is_due = label_loglikelihoods(model, batch), batch.labels != IGNORED
    is_due[:, 0] = False
    is_due = is_due.to(found.device)
    chosen, rejected = (
        Side(found[first::2], is_due[first::2], {name: of[first::2] for name, of in batch.extras.items()})
        for first in (0, 1)
    )
    return chosen, rejected


def kept_loglikelihoods(model: torch.nn.Module, rows: Sequence[Row], *, label: str) -> list[list[float]]:
    """Return the log-probability (nats) of each label of each row, as many numbers as the row has labels.

    In evaluation mode and without gradients, by the same code that training uses; what was on stays on. For a reference, ask
    within ``adapters.using(model, None)``.

    Args:
        model: with the adapter on that is asked, or none.
        rows: ids and labels; rows that begin alike are read faster one below the other.
        label: what the progress bar says.

    Raises:
        HarnessError: the memory does not hold a row by itself, or a log-probability is not finite.
    """
    found: list[list[float]] = []
    with bar(len(rows), label, unit="text") as progress:
        for part in parts_of(rows, model):
            found += _kept(model, rows[part])
            progress.update(part.stop - part.start)
    return found


def parts_of(rows: Sequence[Row], model: torch.nn.Module) -> list[slice]:
    """Return consecutive rows in parts that are read at once, pairs (0 and 1, 2 and 3) together."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    most = 4 * (CPU_TOKENS if on_cpu else DEVICE_TOKENS)  # nothing is kept for a backward pass
    parts, start, tokens = [], 0, 0
    for first in range(0, len(rows), 2):
        size = sum(len(ids) for ids, _ in rows[first : first + 2])
        if tokens and tokens + size > most:
            parts.append(slice(start, first))
            start, tokens = first, 0
        tokens += size
    return [*parts, slice(start, len(rows))] if rows else []


def shuffled(count: int, size: int, *, seed: int) -> Iterator[list[int]]:
    """Yield ``size`` numbers below ``count`` at a time without end, each once in an epoch, every epoch in another order."""
    epoch, waiting = 0, list[int]()
    while True:
        while len(waiting) < size:
            numbers = list(range(count))
            random.Random(stream_seed(seed, "order", epoch)).shuffle(numbers)
            waiting += numbers
            epoch += 1
        yield waiting[:size]
        waiting = waiting[size:]


@torch.no_grad()
def _kept(model: torch.nn.Module, rows: Sequence[Row]) -> list[list[float]]:
    was_training = model.training
    model.eval()
    batch = pad(rows)
    try:
        found = label_loglikelihoods(model, batch).cpu()
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        found = None
    finally:
        model.train(was_training)
    if found is None:
        memory.give_back()
        if len(rows) == 1:
            raise HarnessError(
                f"the memory does not hold a text of {len(rows[0][0])} tokens; leave it out, or take a smaller model"
            )
        half = len(rows) // 2
        return [*_kept(model, rows[:half]), *_kept(model, rows[half:])]
    if not bool(torch.isfinite(found).all()):
        raise HarnessError("the model's log-probabilities are not finite; load it with dtype=float32")
    due = batch.labels[:, 1:] != IGNORED
    return [row[1:][is_due].tolist() for row, is_due in zip(found, due, strict=True)]
