"""A temperature as a change of weights: the last norm scales the hidden states, and so the logits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch


@dataclass(frozen=True)
class Temperature:
    """Divide all logits by a temperature.

    Options:
        temperature: above 0; 1 would leave the model as it is.
    """

    name: ClassVar[str] = "temperature"
    temperature: float = 2.0

    def __post_init__(self) -> None:
        """Refuse a temperature that no logit can be divided by."""
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature:g}; it has to be above 0")

    def apply(self, lm: Any, *, seed: int, workdir: Path) -> Any:
        """Scale the last norm and return the same LM."""
        with torch.no_grad():
            lm.model.model.norm.weight.div_(self.temperature)
        (workdir / "report.json").write_text(json.dumps({"scale": 1 / self.temperature}), encoding="utf-8")
        return lm
