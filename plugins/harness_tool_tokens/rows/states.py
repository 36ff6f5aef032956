"""The frozen pass: what the tool rows are trained on, computed once per row of text and kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.errors import HarnessError
from harness.methods.hidden_states import Frozen, states_of
from harness_tool_tokens.rows.texts import IGNORED, Encoded

if TYPE_CHECKING:
    from harness.models.causal import CausalLM

Tensor = torch.Tensor


@dataclass
class States:
    """N counted positions of all rows, one row after the other, on the CPU.

    Attributes:
        hidden: (N, D) float32, what the output head is given.
        log_total: (N,) float32, log-sum-exp of the word logits.
        target_logit: (N,) float32, the logit of the word that is due; 0 where a tool is.
        best_word: (N,) float32, the largest word logit.
        targets: (N,) long, as in ``Encoded``, never ``IGNORED``.
        rows: (N,) long, the row's number; positions: (N,) long, the place in the row.
        weights: (N,) float32, 1 over the share of such positions that was kept.
    """

    hidden: Tensor
    log_total: Tensor
    target_logit: Tensor
    best_word: Tensor
    targets: Tensor
    rows: Tensor
    positions: Tensor
    weights: Tensor

    def __len__(self) -> int:
        """Return N."""
        return len(self.targets)


@torch.no_grad()  # not inference mode, whose tensors cannot be trained on
def frozen_states(
    lm: CausalLM, encoded: Sequence[Encoded], *, word_positions: int | None = None, seed: int = 0, cache: bool = True
) -> States:
    """Run the model over rows, once for each row and model, and return what training needs.

    Args:
        word_positions: keep a random sample of this many word positions in all, of higher weight; None keeps all.
            Positions where a tool is due are always kept.
        seed: draws the sample.
        cache: keep each row's states in the cache folder, and use those that are there.

    Raises:
        HarnessError: the model's output head cannot be found or used apart, or its logits are not numbers.
    """
    targets = [torch.tensor(row.targets, dtype=torch.long) for row in encoded]
    share = _sample(targets, word_positions, seed)
    places = [(row != IGNORED).nonzero()[:, 0] for row in targets]
    due = [row[at] for row, at in zip(targets, places, strict=True)]
    pieces = states_of(
        lm,
        [row.token_ids for row in encoded],
        positions=[at.tolist() for at in places],
        due=[one.clamp_min(-1).tolist() for one in due],  # which tool is due does not matter
        cache=cache,
    )
    kept = _joined(due, torch.long)
    return States(
        hidden=torch.cat([torch.zeros(0, Frozen(lm).width), *(piece["hidden"] for piece in pieces)]),
        log_total=_joined([piece["log_total"] for piece in pieces], torch.float32),
        target_logit=_joined([piece["target_logit"].nan_to_num(0.0) for piece in pieces], torch.float32),
        best_word=_joined([piece["best_word"] for piece in pieces], torch.float32),
        targets=kept,
        rows=torch.repeat_interleave(
            torch.arange(len(places)), torch.tensor([len(at) for at in places], dtype=torch.long)
        ),
        positions=_joined(places, torch.long),
        weights=torch.where(kept >= 0, 1.0 / share, 1.0),
    )


def _sample(targets: list[Tensor], word_positions: int | None, seed: int) -> float:
    """Ignore all but a sample of the word positions, in place, and return the share of them that is kept."""
    everything = _joined(targets, torch.long)
    words = (everything >= 0).nonzero()[:, 0]
    if word_positions is None or word_positions >= len(words):
        return 1.0
    if word_positions < 1:
        raise HarnessError(
            f"{word_positions} word positions were asked for; ask for one or more, or for positions=tools"
        )
    drawn = torch.randperm(len(words), generator=torch.Generator().manual_seed(seed))
    everything[words[drawn[word_positions:]]] = IGNORED
    for row, kept in zip(targets, everything.split([len(row) for row in targets]), strict=True):
        row.copy_(kept)
    return word_positions / len(words)


def _joined(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([tensor.to(dtype) for tensor in tensors]) if tensors else torch.zeros(0, dtype=dtype)
