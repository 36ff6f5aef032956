"""Encoder, projector and decoder as one module: texts as ids in, one vector a text out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from harness import HarnessError
from harness.models.pooled import pool as pool_rows
from harness_contextual_embeddings.layout import Layout
from harness_contextual_embeddings.pooling import pool
from harness_contextual_embeddings.projector import Projector

if TYPE_CHECKING:
    from harness.models.encoder import Encoder

Tensor = torch.Tensor
# How far states given by rows may lie from those given by ids, of their length.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
LOW_PRECISION_TOLERANCE = 5e-2


class Embedder(torch.nn.Module):
    """What embeds: a decoder, and where there is a contextual token, an encoder and a projector.

    The encoder is never in training mode, not even where it is trained: dropout would make it another one each time.

    Args:
        decoder: a causal model of transformers, plain or with an adapter.
        encoder: the ``Encoder`` whose vectors are projected, as its files say but never normalised; None: there is none.
        projector: None: there is none.
    """

    def __init__(self, decoder: Any, encoder: Encoder | None = None, projector: Projector | None = None) -> None:
        super().__init__()
        self.decoder, self.projector = decoder, projector
        self.encoder = None if encoder is None else encoder.model
        self._encoder_way = None if encoder is None else encoder.way
        if encoder is not None and isinstance(getattr(encoder.model, "pooler", None), torch.nn.Module):
            encoder.model.pooler = None  # a layer behind the states that are read; where files lack it, it is random
        self.eval()

    @property
    def config(self) -> Any:
        """The decoder's."""
        return self.decoder.config

    @property
    def dtype(self) -> torch.dtype:
        """The decoder's, in which it computes."""
        found: torch.dtype = self.decoder.dtype
        return found

    @property
    def device(self) -> torch.device:
        """Where the decoder's input rows are."""
        found: torch.device = self.rows.weight.device
        return found

    @property
    def rows(self) -> Any:
        """The decoder's table of input rows."""
        return self.decoder.get_input_embeddings()

    @property
    def width(self) -> int:
        """The width D of the decoder's input rows."""
        return int(self.rows.weight.shape[1])

    @property
    def causal(self) -> Any:
        """The decoder with its head, out of what PEFT wraps around it."""
        return self.decoder.get_base_model() if hasattr(self.decoder, "get_base_model") else self.decoder

    @property
    def base(self) -> Any:
        """The decoder without its output head; an adapter is within its layers."""
        return self.causal.base_model

    def train(self, mode: bool = True) -> Embedder:
        """Switch to training mode, but for the encoder."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def encode(self, rows: Sequence[Any]) -> Tensor:
        """Return the encoder's vectors (B, encoder width) of texts as its ids, not normalised."""
        assert self.encoder is not None and self._encoder_way is not None
        longest = max(len(row.ids) for row in rows)
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)], mask[number, : len(row.ids)] = torch.tensor(row.ids), 1
        states = self.encoder(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
        return pool_rows(states, [row.first for row in rows], [row.end for row in rows], self._encoder_way.pooling)

    def contextual(self, rows: Sequence[Any]) -> Tensor:
        """Return the contextual input rows (B, D) of texts as the encoder's ids."""
        assert self.projector is not None
        found: Tensor = self.projector(self.encode(rows))
        return found

    def states(
        self,
        layouts: Sequence[Layout],
        contextual: Tensor | None = None,
        *,
        is_bidirectional: bool = False,
        padding: Literal["right", "left"] = "right",
    ) -> Tensor:
        """Return the decoder's states (B, T, D) after its final norm.

        Args:
            layouts: B sequences.
            contextual: input rows (B, D) of their contextual tokens; None where they have none.
            is_bidirectional: let every token see all of its sequence.
            padding: the side on which shorter sequences are filled up.
        """
        longest = max(map(len, layouts))
        starts = [longest - len(layout) if padding == "left" else 0 for layout in layouts]
        ids = torch.zeros((len(layouts), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, (layout, start) in enumerate(zip(layouts, starts, strict=True)):
            ids[number, start : start + len(layout)] = torch.tensor([token or 0 for token in layout.ids])
            mask[number, start : start + len(layout)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        given: dict[str, Any] = {"input_ids": ids}
        if contextual is not None:
            places = [start + (layout.context_index or 0) for layout, start in zip(layouts, starts, strict=True)]
            given = {"inputs_embeds": self._with_context(ids, contextual, places)}
        return self._run(given, mask, is_bidirectional=is_bidirectional)

    def pooled(
        self,
        layouts: Sequence[Layout],
        contextual: Tensor | None = None,
        *,
        mode: str,
        is_bidirectional: bool = False,
        padding: Literal["right", "left"] = "right",
    ) -> Tensor:
        """Return one vector (B, D or 2 D) a sequence, float32, not normalised; see ``states`` and ``pooling.pool``."""
        states = self.states(layouts, contextual, is_bidirectional=is_bidirectional, padding=padding)
        starts = [states.shape[1] - len(layout) if padding == "left" else 0 for layout in layouts]
        return torch.stack(
            [pool(row, layout.moved(start), mode) for row, layout, start in zip(states, layouts, starts, strict=True)]
        )

    def word_logits(self, vectors: Tensor) -> Tensor:
        """Return the logits (..., V), float32, that the decoder's own output head makes of vectors (..., D)."""
        head = self.causal.get_output_embeddings()
        found: Tensor = head(vectors.to(head.weight.dtype))
        return found.float()

    def _with_context(self, ids: Tensor, contextual: Tensor, places: Sequence[int]) -> Tensor:
        rows = self.rows(ids).clone()
        numbers = torch.arange(len(ids), device=ids.device)
        rows[numbers, torch.tensor(places, device=ids.device)] = contextual.to(rows.dtype)
        return rows

    def _run(self, given: dict[str, Any], mask: Tensor, *, is_bidirectional: bool) -> Tensor:
        more: dict[str, Any] = {"use_cache": False}
        if "position_ids" in inspect.signature(self.base.forward).parameters:
            more["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
        if is_bidirectional:
            # Each row sees itself, so that no row of padding has nothing to see.
            seen = mask[:, None, None, :].bool() | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
            hidden = torch.zeros(seen.shape, dtype=self.dtype, device=mask.device)
            mask = hidden.masked_fill(~seen, torch.finfo(self.dtype).min)
        found: Tensor = self.base(**given, attention_mask=mask, **more).last_hidden_state
        return found


@torch.no_grad()
def check_rows(embedder: Embedder, ids: Sequence[int]) -> None:
    """Refuse a decoder that does something else with input rows than with the ids whose rows they are.

    Args:
        embedder: in evaluation mode.
        ids: of some text.

    Raises:
        HarnessError: the states differ, as where rows are scaled, or read a second time, by id.
    """
    given = torch.tensor([list(ids)], device=embedder.device)
    settings: dict[str, Any] = {"attention_mask": torch.ones_like(given), "use_cache": False}
    try:
        by_id = embedder.base(input_ids=given, **settings).last_hidden_state
        by_row = embedder.base(inputs_embeds=embedder.rows(given), **settings).last_hidden_state
    except (TypeError, ValueError) as error:
        raise HarnessError(f"the model takes no input rows, so it can have no contextual token: {error}") from error
    apart = float((by_id - by_row).float().norm() / by_id.float().norm())
    if not apart <= TOLERANCE.get(embedder.dtype, LOW_PRECISION_TOLERANCE):
        raise HarnessError(
            f"the model makes other states of input rows than of the ids they belong to (by {apart:.2g} of their length), so a "
            "contextual token would not be read as a token is; take another model, or a pooling without one"
        )


@torch.no_grad()
def check_bidirectional(embedder: Embedder, ids: Sequence[int]) -> None:
    """Refuse a decoder whose first token does not see the last one when it is told to.

    Raises:
        HarnessError: the mask is not heeded.
    """
    other = [*ids[:-1], (ids[-1] + 1) % len(embedder.rows.weight)]
    layouts = [Layout(tuple(row), None, None, 0, len(row)) for row in (ids, other)]
    try:
        first, second = embedder.states(layouts, is_bidirectional=True)[:, 0]
    except (TypeError, ValueError, RuntimeError) as error:
        raise HarnessError(f"the model takes no mask of its own: {error}; take another pooling") from error
    if torch.equal(first, second):
        raise HarnessError("the model's attention looks back alone whatever mask it is given; take another pooling")
