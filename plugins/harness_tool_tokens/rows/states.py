"""The frozen pass: what the tool rows are trained on, computed once per row of text and kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.errors import HarnessError
from harness.methods.hidden_states import Frozen, Piece, Store, read_each, text_key
from harness_tool_tokens.rows.texts import FIRST_TOOL, IGNORED, Encoded

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
    frozen = Frozen(lm)
    store = Store(frozen.digest()) if cache else None
    pieces = _pieces(frozen, [row.token_ids for row in encoded], targets, store)
    places = [(row != IGNORED).nonzero()[:, 0] for row in targets]
    kept = _joined([row[at] for row, at in zip(targets, places, strict=True)], torch.long)
    return States(
        hidden=torch.cat([torch.zeros(0, frozen.width), *(piece["hidden"] for piece in pieces)]),
        log_total=_joined([piece["log_total"] for piece in pieces], torch.float32),
        target_logit=_joined([piece["target_logit"] for piece in pieces], torch.float32),
        best_word=_joined([piece["best_word"] for piece in pieces], torch.float32),
        targets=kept,
        rows=torch.repeat_interleave(
            torch.arange(len(places)), torch.tensor([len(at) for at in places], dtype=torch.long)
        ),
        positions=_joined(places, torch.long),
        weights=torch.where(kept >= 0, 1.0 / share, 1.0),
    )


def _pieces(frozen: Frozen, ids: list[list[int]], targets: list[Tensor], store: Store | None) -> list[Piece]:
    """Return each row's states, from the store or by running the model."""
    places = [(row != IGNORED).nonzero()[:, 0] for row in targets]
    keys = [_key(one, row) for one, row in zip(ids, targets, strict=True)]
    found: dict[str, Piece] = {}  # equal rows are run once
    waiting: dict[str, int] = {}
    for number, key in enumerate(keys):
        piece = store.load(key, len(places[number])) if store and key not in found else None
        if piece is not None:
            found[key] = piece
        elif key not in found:
            waiting[key] = number

    def finish(number: int, hidden: Tensor) -> None:
        at, key = places[number], keys[number]
        due = targets[number][at]
        found[key] = frozen.summary(hidden[at.to(hidden.device)], due.clamp_min(0))
        found[key]["target_logit"][due < 0] = 0.0  # of a tool, which has no word's logit
        if store:
            store.save(key, found[key])

    read_each(frozen, ids, list(waiting.values()), finish)
    return [found[key] for key in keys]


def _key(token_ids: Sequence[int], targets: Tensor) -> str:
    """Return the digest of a row; which tool is due does not matter, only where."""
    return text_key([list(token_ids), targets.clamp_min(FIRST_TOOL).tolist()])


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
