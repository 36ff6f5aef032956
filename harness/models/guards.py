"""No silent number: what is not finite stops the run and names the request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import torch
from transformers import LogitsProcessor

from harness.errors import HarnessError, NoScore
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


class NotFinite(NoScore):
    """Scores of a task are no numbers: ``count`` of those that were asked for."""

    def __init__(self, sentence: str, count: int = 1) -> None:
        """Say which request was the first."""
        super().__init__(sentence)
        self.count = count


def refuse_generation(request: Instance | None) -> NoReturn:
    """Raise ``NotFinite``: the logits of ``request`` are not numbers."""
    name = named(request) if request is not None else "a request"
    raise NotFinite(f"{name} got NaN logits while generating; try --model_args dtype=float32")


def check_finite(scores: Sequence[float], requests: Sequence[Instance]) -> None:
    """Raise ``NotFinite`` naming the first request whose score is NaN or infinite, and saying how many there are."""
    broken = [number for number, score in enumerate(scores) if not math.isfinite(score)]
    if broken:
        others = f" and {len(broken) - 1:,} others of {len(scores):,}" if len(broken) > 1 else ""
        raise NotFinite(
            f"{named(requests[broken[0]])}{others} got the score {scores[broken[0]]}: the model's output is broken, and no "
            "score of it would mean anything; try --model_args dtype=float32",
            len(broken),
        )


def check_pair(request: Instance, context: Sequence[int], continuation: Sequence[int], *, max_length: int) -> None:
    """Raise ``HarnessError`` naming the request when a side has no tokens, or the scored one does not fit the context."""
    if not context or not continuation:
        what = "context" if not context else "continuation"
        raise HarnessError(f"{named(request)} has a {what} without tokens; fix the task")
    if len(continuation) > max_length:
        raise HarnessError(
            f"{named(request)} asks for the score of {len(continuation)} tokens, but the model's context holds {max_length}"
        )


def check_room(request: Instance, wanted: int, *, max_length: int) -> None:
    """Raise ``HarnessError`` naming the request when so many new tokens leave no room in the context for its prompt."""
    if wanted >= max_length:
        raise HarnessError(
            f"{named(request)} asks for {wanted} new tokens, but the model's context holds {max_length}; lower it with "
            "--gen_kwargs max_gen_toks=..."
        )


def check_ids(sequences: Sequence[Sequence[int]], *, rows: int, requests: Sequence[Instance] = ()) -> None:
    """Raise ``HarnessError`` when the tokenizer made an id that a model with so many embeddings has none for.

    Args:
        requests: whose sequences these are, the first one of which is named.
    """
    for number, sequence in enumerate(sequences):
        most = max(sequence, default=0)
        if most >= rows:
            whose = f"{named(requests[number])}: " if requests else ""
            raise HarnessError(
                f"{whose}the tokenizer gives token {most}, but the model has embeddings for {rows} tokens; it is another "
                "model's tokenizer, or the embeddings were not resized, or the text holds a special token by accident"
            )


def named(request: Instance) -> str:
    """Return how an error calls a request: its number, document, task, and the end of its text."""
    text = printable(str(request.args[0])[-60:])
    return f"request {request.idx} of document {request.doc_id} in task '{printable(request.task_name)}' (...{text})"
