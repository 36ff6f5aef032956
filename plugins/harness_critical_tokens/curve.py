"""What happens to pairs while a policy is trained: margins and log-probabilities of both sides, step by step."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.progress import say

Tensor = torch.Tensor
MOST_FALL = 0.2
"""Nats a token: a line says so when chosen solutions got less likely by more, that is, each of their tokens by 18 %."""


@dataclass
class Curve:
    """For each step: mean margin, share of pairs with one above 0, mean change of chosen and rejected responses (nats).

    ``add`` may be told of a pair again, as when a step is taken again: the last word counts.
    """

    steps: list[dict[str, float]] = field(default_factory=list)
    _now: dict[int, tuple[float, ...]] = field(default_factory=dict)
    _falls: list[float] = field(default_factory=list)

    def add(
        self,
        pairs: Tensor,
        margins: Tensor,
        chosen: tuple[Tensor, Tensor],
        rejected: tuple[Tensor, Tensor],
        chosen_tokens: Tensor,
    ) -> None:
        """Take down some pairs of the step.

        Args:
            pairs: (P,) places in the step.
            margins: (P,).
            chosen: log-probabilities of whole responses, now and by the reference, (P,) each.
            rejected: the same.
            chosen_tokens: how many tokens the chosen responses have, (P,).
        """
        columns = [margins, *chosen, *rejected, chosen_tokens.to(margins)]
        table = torch.stack(columns, 1).detach().double().tolist()
        self._now |= {int(pair): tuple(row) for pair, row in zip(pairs.tolist(), table, strict=True)}

    def end_step(self) -> None:
        """Make a step of what was taken down since the last one."""
        rows = list(self._now.values())
        self._now = {}
        if rows:
            margins, chosen, chosen_before, rejected, rejected_before, tokens = zip(*rows, strict=True)
            self._falls.append((sum(chosen_before) - sum(chosen)) / max(1.0, sum(tokens)))
            self.steps.append({
                "margin": _mean(margins),
                "margin_above_0": _mean([float(margin > 0) for margin in margins]),
                "chosen": _mean(chosen),
                "chosen_change": _mean(chosen) - _mean(chosen_before),
                "rejected": _mean(rejected),
                "rejected_change": _mean(rejected) - _mean(rejected_before),
            })  # fmt: skip

    def fall(self) -> float:
        """Return by how much chosen responses were less likely in the last step than by the reference (nats a token)."""
        return self._falls[-1] if self._falls else 0.0

    def tell_of_fall(self) -> None:
        """Say so where chosen responses got less likely by more than ``MOST_FALL``, over the last tenth of the steps."""
        tail = self._falls[-max(1, len(self._falls) // 10) :]
        if tail and statistics.fmean(tail) > MOST_FALL:
            say(
                f"the chosen solutions got less likely, too, by {statistics.fmean(tail):.2g} nats a token, over {MOST_FALL:g}: "
                "look at what the model writes; sft_alpha holds them up, fewer steps or a lower learning_rate move them less"
            )

    def report(self) -> dict[str, Any]:
        """Return each figure's mean over the first and over the last tenth of the steps."""
        tail = max(1, len(self.steps) // 10)
        return {
            f"{name}_{end}": round(_mean([step[name] for step in steps]), 4)
            for end, steps in (("first", self.steps[:tail]), ("last", self.steps[-tail:]))
            for name in (self.steps[0] if self.steps else {})
        }

    def columns(self) -> dict[str, list[float]]:
        """Return each figure's values by step, in five digits."""
        names = self.steps[0] if self.steps else {}
        return {name: [float(f"{step[name]:.5g}") for step in self.steps] for name in names}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
