"""What a method changed in an LM: tensors, tokenizer, or what it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROBE_TEXT = "A harness is measured by what it lets through."


@dataclass(frozen=True)
class LMState:
    """Fingerprints and sizes of an LM's tensors by name, its tokenizer's digest, and its logits on a fixed text."""

    tensors: Mapping[str, tuple[tuple[int, ...], int]]
    tokenizer: str | None
    logits: tuple[int, ...] | None

    @classmethod
    def of(cls, lm: Any) -> LMState:
        from harness.models.identity import tensor_fingerprints, tokenizer_digest

        model, tokenizer = lm.model, lm.tokenizer
        tensors: dict[str, tuple[tuple[int, ...], int]] = {}
        logits = None
        if model is not None:
            numels = {name: tensor.numel() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
            tensors = {name: (print_, numels[name]) for name, print_ in tensor_fingerprints(model).items()}
            logits = _probe_logits(model, tokenizer)
        return cls(tensors, tokenizer_digest(tokenizer) if tokenizer is not None else None, logits)

    def digest(self) -> str:
        """Return one digest of all of it."""
        return hashlib.sha256(repr([*sorted(self.tensors.items()), self.tokenizer]).encode()).hexdigest()[:16]

    def weights_changed_since(self, before: LMState) -> int:
        """Return how many weights are new or other than before; -1 when only the tokenizer is, 0 when nothing.

        A tensor under a new name is new unless its content was there before (an adapter renames what it wraps). Tensors
        that were only added count when they move the logits of a fixed text.
        """
        known = {print_ for print_, _ in before.tensors.values()}
        changed = sum(
            numel
            for name, (print_, numel) in self.tensors.items()
            if (print_ != before.tensors[name][0] if name in before.tensors else print_ not in known)
        )
        left = {print_ for print_, _ in self.tensors.values()}
        only_added = known <= left and not any(
            name in before.tensors and print_ != before.tensors[name][0] for name, (print_, _) in self.tensors.items()
        )
        if changed and only_added and self.logits == before.logits and self.tokenizer == before.tokenizer:
            return 0
        return changed or (-1 if self.tokenizer != before.tokenizer or not known <= left else 0)


def _probe_logits(model: Any, tokenizer: Any) -> tuple[int, ...] | None:
    import torch

    from harness.models.identity import fingerprint_of

    ids = tokenizer.encode(PROBE_TEXT, add_special_tokens=False) if tokenizer is not None else []
    rows = model.get_input_embeddings().weight.shape[0] if hasattr(model, "get_input_embeddings") else 0
    ids = [token for token in ids if token < rows]
    if not ids:
        return None
    with torch.no_grad():
        return fingerprint_of(model(torch.tensor([ids], device=model.device)).logits)
