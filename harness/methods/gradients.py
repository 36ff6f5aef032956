"""The gradients of one optimiser step, found in parts that fit the memory, and in smaller ones when it runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from harness.errors import HarnessError
from harness.methods.chance import Chance
from harness.methods.chunked_loss import next_token_loss
from harness.methods.micro_batches import IGNORED, Batch, MeanOf, MicroBatch, split
from harness.methods.training_memory import Room
from harness.models.tree.memory import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[[torch.nn.Module, Batch], "Tensor"]


class Gradients:
    """Finds the gradients of step after step.

    Args:
        model: in training mode.
        weights: what takes gradients.
        loss: what is minimised.
        mean_of: what ``loss`` is the mean of, see ``MeanOf``; None: it needs whole batches.
    """

    def __init__(
        self, model: torch.nn.Module, weights: Sequence[torch.nn.Parameter], loss: Loss, mean_of: str | None
    ) -> None:
        self.model, self.weights, self.loss = model, weights, loss
        self.mean_of = None if mean_of is None else MeanOf(mean_of)
        self.device = weights[0].device
        self.room = Room(model, self.device)
        self.micro_batches = 0

    def find(self, batch: Batch, number: int) -> list[Tensor]:
        """Leave the gradient of a step's loss in the weights, and return what each part adds to the loss.

        Args:
            batch: on the CPU.
            number: the step's, for people.

        Raises:
            HarnessError: no row has a label, or the memory does not hold a part that cannot be made smaller.
        """
        chance = Chance(self.device)
        while True:
            parts = self._parts(batch, number)
            self.room.prepare(parts)
            try:
                losses = [self._of_part(part) for part in parts]
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            else:
                self.micro_batches += len(parts)
                return losses
            # Not while the error is handled, which holds the tensors of the pass that failed.
            for weight in self.weights:
                weight.grad = None
            if not self.room.shrink(parts, rows_together=None if self.mean_of is None else self.mean_of.rows_together):
                raise _too_large(parts[0].batch, number)
            chance.restore()

    def _parts(self, batch: Batch, number: int) -> list[MicroBatch]:
        if self.mean_of is None:
            return [MicroBatch(batch, 1.0)]
        parts = split(batch, tokens=self.room.tokens, mean_of=self.mean_of)
        if not parts:
            raise HarnessError(
                f"step {number} of the training has no label: each of its rows has {IGNORED} at every place after the first"
            )
        return parts

    def _of_part(self, part: MicroBatch) -> Tensor:
        batch = part.batch
        if self.loss is not next_token_loss:  # which moves what it needs
            batch = batch.map(lambda tensor: tensor.to(self.device))
        found = self.loss(self.model, batch) * part.share
        found.backward()
        found = found.detach()
        return found.to(
            torch.promote_types(found.dtype, torch.float32)
        )  # parts are added up, and a norm stands beside them


def _too_large(batch: Batch, number: int) -> HarnessError:
    rows, longest = batch.labels.shape
    what = f"{rows} rows of {longest} tokens" if rows > 1 else f"one row of {longest} tokens"
    return HarnessError(
        f"the memory does not hold step {number} of the training, not even {what} by itself; train on shorter rows, a smaller "
        "model or one of fewer bits"
    )
