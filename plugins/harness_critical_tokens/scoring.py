"""Scores of response tokens from a positive and a negative adapter on one base, and the file they are kept in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness import HarnessError
from harness.json_lines import read_json_lines, write_json_lines
from harness.methods import adapters
from harness.methods.label_states import LabelStates, label_states
from harness.methods.micro_batches import IGNORED, pad
from harness.methods.preferences import Row, parts_of
from harness.names import printable
from harness.progress import bar
from harness_critical_tokens.contrast import log_scores, loglikelihoods
from harness_critical_tokens.encoding import Encoded

if TYPE_CHECKING:
    from peft import PeftModel

Tensor = torch.Tensor
POSITIVE, NEGATIVE = "positive", "negative"
SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class TokenScores:
    """What was found of the T tokens of a response, in nats.

    ``log_score`` is the contrastive score's logarithm; ``positive``, ``negative`` and ``base`` are log-probabilities, and
    ``log_ratio`` is positive less negative.
    """

    log_score: list[float]
    log_ratio: list[float]
    positive: list[float]
    negative: list[float]
    base: list[float]


@dataclass(frozen=True)
class Scored:
    """A response (``side`` of pair ``pair``) with its T ids, the scores of its tokens, and the contrast they were made with."""

    pair: int
    side: str
    ids: list[int]
    contrast: float
    scores: TokenScores

    def row(self) -> dict[str, Any]:
        """Return it as it stands in the file."""
        return {"pair": self.pair, "side": self.side, "ids": self.ids, "contrast": self.contrast} | asdict(self.scores)


def score_rows(model: PeftModel, rows: Sequence[Row], *, contrast: float) -> list[TokenScores]:
    """Return the scores of each row's labels.

    Both adapters and the bare base read each row once; of logits, some positions are held at a time. The adapter that was on, and
    the model's mode, are as before afterwards.

    Args:
        model: with adapters ``positive`` and ``negative``.
        rows: ids and labels; a prompt that two rows in turn begin with is read once.
        contrast: of contrastive estimation, 0 or more.

    Raises:
        HarnessError: a score is not finite.
    """
    was_training, found = model.training, list[TokenScores]()
    model.eval()
    try:
        with bar(len(rows), "Scoring", unit="text") as progress:
            for part in parts_of(rows, model):
                found += _score_part(model, rows[part], contrast)
                progress.update(part.stop - part.start)
    finally:
        model.train(was_training)
    return found


@torch.no_grad()
def _score_part(model: PeftModel, rows: Sequence[Row], contrast: float) -> list[TokenScores]:
    batch = pad(rows)
    states: dict[str | None, LabelStates] = {}
    for name in (POSITIVE, NEGATIVE, None):
        with adapters.using(model, name):
            states[name] = label_states(model, batch)
    columns = torch.cat([_columns(model, states, part, contrast) for part in states[None].parts()], 1).double().cpu()
    if not bool(torch.isfinite(columns).all()):
        raise HarnessError("scores of tokens are not finite; load the model with dtype=float32")
    counts = (batch.labels[:, 1:] != IGNORED).sum(1).tolist()
    return [TokenScores(*of_row.tolist()) for of_row in columns.split(counts, dim=1)]


def _columns(model: PeftModel, states: dict[str | None, LabelStates], part: slice, contrast: float) -> Tensor:
    """Return log score, log ratio and the three log-probabilities (5, n) of some positions."""
    logits = {}
    for name, of_name in states.items():
        with adapters.using(model, name):  # the head may have an adapter, too
            logits[name] = of_name.logits(part)
    targets = states[None].targets[part]
    positive, negative, base = (loglikelihoods(logits[name], targets) for name in (POSITIVE, NEGATIVE, None))
    score = log_scores(logits[POSITIVE], logits[NEGATIVE], targets, contrast=contrast)
    return torch.stack([score, positive - negative, positive, negative, base])


def score_pairs(
    model: PeftModel, numbers: Sequence[int], encoded: Sequence[tuple[Encoded, Encoded]], *, contrast: float
) -> list[Scored]:
    """Return the scores of both responses of each pair, chosen before rejected.

    Args:
        model: as for ``score_rows``.
        numbers: the pairs', in their file.
        encoded: chosen and rejected response of each.
        contrast: as for ``score_rows``.
    """
    responses = [response for pair in encoded for response in pair]
    found = score_rows(model, [(one.token_ids, one.labels) for one in responses], contrast=contrast)
    return [
        Scored(numbers[place // 2], SIDES[place % 2], one.response_ids, contrast, scores)
        for place, (one, scores) in enumerate(zip(responses, found, strict=True))
    ]


def write_scores(path: Path, scored: Sequence[Scored]) -> None:
    """Write a line for each response, all of them or none."""
    write_json_lines(path, (one.row() for one in scored))


def read_scores(path: Path) -> dict[tuple[int, str], Scored]:
    """Return the responses of a file that ``write_scores`` wrote, by pair and side.

    Raises:
        HarnessError: a line lacks a key, its lists differ in length, or a score is no finite number.
    """
    names = tuple(TokenScores.__dataclass_fields__)
    keys: dict[str, Any] = {"pair": int, "side": str, "ids": list, "contrast": (int, float)} | dict.fromkeys(
        names, list
    )
    found = {}
    for number, row in enumerate(read_json_lines(path, keys), start=1):
        if {len(row[name]) for name in names} != {len(row["ids"])}:
            raise HarnessError(
                f"line {number} of {printable(path)} has lists of different lengths; score the pairs again"
            )
        if not all(_is_finite(value) for name in names for value in row[name]):
            raise HarnessError(
                f"line {number} of {printable(path)} has a score that is no finite number; score the pairs again"
            )
        scores = TokenScores(**{name: row[name] for name in names})
        found[row["pair"], row["side"]] = Scored(row["pair"], row["side"], row["ids"], row["contrast"], scores)
    return found


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_scores(
    found: dict[tuple[int, str], Scored],
    numbers: Sequence[int],
    encoded: Sequence[tuple[Encoded, Encoded]],
    *,
    contrast: float,
) -> list[Scored]:
    """Return the scores of these pairs, in their order, where they are of the same ids and the same contrast.

    Raises:
        HarnessError: a pair was not scored, with another tokenizer, or with another contrast.
    """
    wanted = []
    for number, pair in zip(numbers, encoded, strict=True):
        for side, response in zip(SIDES, pair, strict=True):
            one = found.get((number, side))
            if one is None:
                raise HarnessError(
                    f"scores_file has no score of the {side} response of pair {number}; score this pairs_file"
                )
            if one.ids != response.response_ids:
                raise HarnessError(
                    f"scores_file has other tokens for the {side} response of pair {number}; it was made from another pairs_file "
                    "or with another tokenizer or chat option"
                )
            if one.contrast != contrast:
                raise HarnessError(
                    f"scores_file was made with contrast={one.contrast:g}, and contrast is {contrast:g}; give one"
                )
            wanted.append(one)
    return wanted
