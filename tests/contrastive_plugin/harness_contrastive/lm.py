"""An LM whose every next token, in scores and in texts, is judged by the contrast."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from harness.methods.hidden_states import Frozen
from harness.models.causal import CausalLM
from harness.models.head import reading
from harness.models.layers import readers
from harness_contrastive.contrast import contrast


class ContrastiveLM(CausalLM):
    """A model against one of its early layers, which is read by the same output head."""

    def __init__(self, model: Any, tokenizer: Any, *, layer: int, alpha: float, **settings: Any) -> None:
        """Wrap a model as ``CausalLM`` does; ``layer`` and ``alpha`` are the options of the method."""
        super().__init__(model, tokenizer, **settings)
        self.settings |= {"layer": layer, "alpha": alpha}  # for replace
        self.layer, self.alpha = layer, alpha
        self.plain = Frozen(CausalLM(model, tokenizer, **settings))
        self.plain.learn_finish(tokenizer.encode("The ferry left the harbour at seven.", add_special_tokens=False))

    def _model_call(self, inps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with self._reading() as read:
            final = super()._model_call(inps, *args, **kwargs)
        return self._contrast(final, read[0])

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **settings: Any) -> Tensor:
        with self._reading() as read:

            def judge(_: Tensor, final: Tensor) -> Tensor:
                return self._contrast(final, read[0][:, -1])

            return super()._model_generate(context, max_length, stop, logits_processor=[judge], **settings)

    @contextmanager
    def _reading(self) -> Iterator[list[Tensor]]:
        """Within it the list holds what the early layer made, (B, T, D) of the last forward pass."""
        read: list[Tensor] = []

        def see(hidden: Tensor) -> Tensor:
            read[:] = [hidden]
            return hidden

        with reading(readers(self.model)[self.layer], see, called=f"part {self.layer}"):
            yield read

    def _contrast(self, final: Tensor, hidden: Tensor) -> Tensor:
        early = torch.cat([logits for _, logits in self.plain.logits_in_parts(hidden.flatten(0, -2))])
        return contrast(final.to(early.dtype), early.view_as(final), alpha=self.alpha)
