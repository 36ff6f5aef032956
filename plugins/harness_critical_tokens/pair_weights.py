"""The weights of a training set's pairs: scores found for them or read, and what they make of each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import HarnessError
from harness.progress import say
from harness_critical_tokens.checks import NEEDS_ADAPTERS
from harness_critical_tokens.encoded_pairs import EncodedPairs, encode_pairs
from harness_critical_tokens.scored_pairs import ScorePlan, make_scores
from harness_critical_tokens.scoring import Scored, TokenScores, check_scores, read_scores
from harness_critical_tokens.weighting import (
    ScoreName,
    normalised_weights,
    of_scores,
    rejected_weights,
    weight_figures,
)

if TYPE_CHECKING:
    from harness.models.causal import CausalLM

# How far a log-probability kept in a scores file may be from the reference's (nats): 16-bit rounding.
MOST_APART = 0.25
Numbers = list[float]


@dataclass(frozen=True)
class Weighing:
    """Which weights, see the options of ``cdpo``; ``scores_file`` is read instead of scoring."""

    score: ScoreName
    normalise: str
    ratio_scale: float
    weighs_chosen: bool
    scores_file: Path | None

    @property
    def needs_adapters(self) -> bool:
        """Whether weights are made of more than the base's own probabilities."""
        return self.score in NEEDS_ADAPTERS or self.weighs_chosen


def scores_for(
    lm: CausalLM, plan: ScorePlan, weighing: Weighing, *, seed: int, workdir: Path
) -> tuple[EncodedPairs, list[Scored] | None, dict[str, Any]]:
    """Return the pairs as tokens, the scores of their responses where weights need them, and what was done for these.

    Raises:
        HarnessError: no pair can be used, or the scores that were given are not theirs.
    """
    if weighing.needs_adapters and weighing.scores_file is None:
        made = make_scores(lm, plan, seed=seed, workdir=workdir)
        return made.encoded, made.scored, made.report | made.figures(ratio_scale=weighing.ratio_scale, seed=seed)
    encoded = encode_pairs(lm, plan.file, max_length=plan.max_length, is_chat=plan.is_chat)
    scored = None
    if weighing.needs_adapters and weighing.scores_file is not None:
        known = read_scores(weighing.scores_file)
        scored = check_scores(known, encoded.numbers, encoded.responses, contrast=plan.contrast)
    return encoded, scored, {"pairs": encoded.report}


def check_base(scored: Sequence[Scored], references: Sequence[tuple[Numbers, Numbers]]) -> None:
    """Raise ``HarnessError`` where scores were made on another model than the one that is the reference."""
    for one, reference in zip(scored, (side for pair in references for side in pair), strict=True):
        apart = max(abs(kept - found) for kept, found in zip(one.scores.base, reference, strict=True))
        if apart > MOST_APART:
            raise HarnessError(
                f"the scores of pair {one.pair} were made on another model: a token's log-probability by the base is {apart:.2f} "
                "nats from what this model says; score the pairs with this model"
            )


def weigh(
    encoded: EncodedPairs,
    scored: Sequence[Scored] | None,
    references: Sequence[tuple[Numbers, Numbers]],
    weighing: Weighing,
    *,
    seed: int,
) -> tuple[list[tuple[Numbers, Numbers]], dict[str, Any]]:
    """Return the weights of chosen and rejected tokens of each pair, and figures of the rejected ones.

    Args:
        encoded: the pairs.
        scored: scores of their responses, None where the weights need none.
        references: log-probabilities of their tokens by the base.
        weighing: which weights.
        seed: of permutations.
    """
    weights: list[tuple[Numbers, Numbers]] = []
    for number, (pair, (chosen, rejected)) in enumerate(zip(encoded.pairs, encoded.responses, strict=True)):
        scores = _base_alone(references[number][1]) if scored is None else scored[2 * number + 1].scores
        raw = rejected_weights(weighing.score, scores, pair, rejected, ratio_scale=weighing.ratio_scale, seed=seed)
        ours = [1.0] * len(chosen.offsets)
        if weighing.weighs_chosen and scored is not None:
            ours = [1 - weight for weight in of_scores("contrastive", scored[2 * number].scores, ratio_scale=1.0)]
        weights.append((ours, normalised_weights(raw, weighing.normalise)))
    figures = weight_figures([theirs for _, theirs in weights])
    if not figures["mean_weight"]:
        say("all weights are 0, so nothing pushes the rejected responses down; only the chosen ones move")
    return weights, {"training_weights": figures}


def _base_alone(reference: Numbers) -> TokenScores:
    return TokenScores(log_score=[], log_ratio=[], positive=[], negative=[], base=reference)
