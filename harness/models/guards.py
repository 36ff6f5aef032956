"""No silent number: what is not finite stops the run and names the request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import torch
from transformers import LogitsProcessor

from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


class RefuseNaN(LogitsProcessor):
    """Stop a generation whose logits are NaN: greedy search would silently take token 0."""

    def __init__(self, rows: Sequence[Instance | None]) -> None:
        """Watch ``rows``, the requests of the batch."""
        self.rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return ``scores`` (B, V) as they are; raise ``HarnessError`` naming the request where they are NaN."""
        is_broken = torch.isnan(scores).any(dim=-1)
        if is_broken.any():
            row = int(is_broken.nonzero()[0])
            refuse_generation(self.rows[row] if row < len(self.rows) else None)
        return scores


def refuse_generation(request: Instance | None) -> NoReturn:
    """Raise ``HarnessError``: the logits of ``request`` are not numbers."""
    name = named(request) if request is not None else "a request"
    raise HarnessError(f"{name} got NaN logits while generating; try --model_args dtype=float32")


def check_finite(score: float, request: Instance) -> None:
    """Raise ``HarnessError`` naming the request when its score is NaN or infinite."""
    if not math.isfinite(score):
        raise HarnessError(
            f"{named(request)} got the score {score}: the model's output is broken, and no score of it would mean "
            "anything; try --model_args dtype=float32"
        )


def named(request: Instance) -> str:
    """Return how an error calls a request: its number, document, task, and the end of its text."""
    text = printable(str(request.args[0])[-60:])
    return f"request {request.idx} of document {request.doc_id} in task '{printable(request.task_name)}' (...{text})"
