"""Training the policy of cDPO: the reference asked once, both responses of a pair in one pass, weights that do not change."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.methods import adapters, training
from harness.methods.preferences import Side, kept_loglikelihoods, shuffled, sides
from harness_critical_tokens.curve import Curve
from harness_critical_tokens.encoded_pairs import labelled_rows
from harness_critical_tokens.encoding import Encoded
from harness_critical_tokens.loss import Responses, margins, pair_losses

if TYPE_CHECKING:
    from peft import PeftModel

Tensor = torch.Tensor
REFERENCE, WEIGHT, PLACE = "reference", "weight", "place"


@dataclass(frozen=True)
class PolicySettings:
    """The objective and how it is trained; see the options of ``cdpo``."""

    beta: float
    sft_alpha: float
    aggregate: str
    steps: int
    learning_rate: float
    warmup_steps: int
    batch_size: int
    most_fall: float | None = None


@dataclass(frozen=True)
class WeightedPairs:
    """Pairs to train on, with the weights of the tokens of their responses and what the reference says of them (nats)."""

    responses: Sequence[tuple[Encoded, Encoded]]
    weights: Sequence[tuple[list[float], list[float]]]
    references: Sequence[tuple[list[float], list[float]]]

    def batch(self, numbers: Sequence[int]) -> training.Batch:
        """Return some pairs as one batch, chosen above rejected, weights and reference beside their tokens."""
        rows, extras = [], {REFERENCE: [], WEIGHT: [], PLACE: []}  # type: ignore[var-annotated]
        for place, number in enumerate(numbers):
            for response, weights, reference in zip(
                self.responses[number], self.weights[number], self.references[number], strict=True
            ):
                before = [0.0] * response.response_start
                rows.append((response.token_ids, response.labels))
                extras[REFERENCE].append([*before, *reference])
                extras[WEIGHT].append([*before, *weights])
                extras[PLACE].append([float(place)] * len(response.token_ids))
        return training.pad(rows, extras)


def reference_loglikelihoods(
    model: PeftModel, responses: Sequence[tuple[Encoded, Encoded]]
) -> list[tuple[list[float], list[float]]]:
    """Return the log-probability (nats) of each response token by the model with its adapters off."""
    with adapters.using(model, None):
        found = kept_loglikelihoods(model, labelled_rows(responses), label="Reading pairs (reference)")
    return list(zip(found[0::2], found[1::2], strict=True))


def train_policy(
    model: PeftModel, pairs: WeightedPairs, settings: PolicySettings, *, seed: int
) -> tuple[training.TrainingLog, Curve]:
    """Train the adapter that is on, and return what the loop and the pairs did.

    Args:
        model: with the policy's adapter on and in training.
        pairs: of which each step takes some, every pair once in an epoch.
        settings: the objective and how it is trained.
        seed: of the order of pairs.

    Raises:
        HarnessError: the loss is no longer finite, or memory ran out.
    """
    curve = Curve()

    def batches() -> Iterator[training.Batch]:
        for numbers in shuffled(len(pairs.responses), settings.batch_size, seed=seed):
            curve.end_step()
            if settings.most_fall is not None and curve.fall() > settings.most_fall:
                return
            yield pairs.batch(numbers)

    def loss(policy: torch.nn.Module, batch: training.Batch) -> Tensor:
        chosen, rejected = responses(policy, batch)
        value = pair_losses(
            chosen, rejected, beta=settings.beta, sft_alpha=settings.sft_alpha, aggregate=settings.aggregate
        )
        with torch.no_grad():
            places = batch.extras[PLACE][0::2, 0]
            curve.add(
                places,
                margins(chosen, rejected, beta=settings.beta),
                _totals(chosen),
                _totals(rejected),
                chosen.counted.sum(-1),
            )
        return value.mean()

    log = training.train(
        model,
        batches(),
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        label="Training (policy)",
        loss=loss,
        mean_of="pairs",
    )
    curve.end_step()
    return log, curve


def responses(model: torch.nn.Module, batch: training.Batch) -> tuple[Responses, Responses]:
    """Return both sides of a batch that ``WeightedPairs`` made, with what the model says of their tokens now."""
    chosen, rejected = (_responses(side) for side in sides(model, batch))
    return chosen, rejected


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that this process has held: on a CUDA device that device's, else its own."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _responses(side: Side) -> Responses:
    dtype = side.loglikelihoods.dtype
    return Responses(side.loglikelihoods, side.extras[REFERENCE].to(dtype), side.extras[WEIGHT].to(dtype), side.is_due)


def _totals(side: Responses) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each whole response by the policy and by the reference, (P,) each."""
    both = (torch.where(side.counted, of, 0).sum(-1) for of in (side.loglikelihoods, side.reference))
    now, before = both
    return now, before


def listed(report: Any) -> Any:
    """Return a report's numbers in six digits."""
    if isinstance(report, float):
        return float(f"{report:.6g}")
    return {name: listed(part) for name, part in report.items()} if isinstance(report, dict) else report
