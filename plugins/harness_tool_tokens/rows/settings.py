"""How tool rows are trained: what an option says of it, checked."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from harness.methods.options import check_least
from harness.names import printable


@dataclass(frozen=True)
class Settings:
    """How rows are trained: Adam without schedule or weight decay.

    Attributes:
        penalty: weight of the distance to the prior, added to the mean cross-entropy.
        penalty_form: ``squared``: penalty * ||W - W0||^2; ``norm``: penalty * ||W - W0||; over all tools together.
        learning_rate: Adam's rate.
        epochs: passes over the rows of text; steps: optimiser steps instead. With neither ``training.EPOCHS`` passes, but
            ``training.LEAST_STEPS`` steps at least.
        batch_size: rows of text per step.
        seed: draws their order, another one for each epoch.
        bias: added to every tool logit in the loss.

    Raises:
        ValueError: no training could use them.
    """

    penalty: float = 0.0
    penalty_form: Literal["squared", "norm", "none"] = "squared"
    learning_rate: float = 1e-3
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 1
    seed: int = 0
    bias: float = 0.0

    def __post_init__(self) -> None:
        """Check them."""
        check_least(self, penalty=0, epochs=0, steps=0, batch_size=1)
        if not 0 < self.learning_rate <= 100:
            raise ValueError(f"learning_rate is {self.learning_rate:g}; it has to be above 0 and at most 100")
        if not math.isfinite(self.penalty) or not math.isfinite(self.bias):
            raise ValueError(f"penalty is {self.penalty:g} and bias {self.bias:g}; both have to be finite")
        if self.penalty_form not in {"squared", "norm", "none"}:
            raise ValueError(f"penalty_form '{self.penalty_form}' is unknown; there is squared, norm, none")
        if self.epochs is not None and self.steps is not None:
            raise ValueError("both epochs and steps are given; leave one out")

    @classmethod
    def of(cls, *, penalty: float | str, steps: int | str | None, **others: Any) -> Settings:
        """Return settings of the method's options: ``penalty`` may be ``norm:0.01``, ``steps`` may be ``10 epochs``."""
        if isinstance(penalty, str):
            others |= {"penalty_form": "norm"}
            penalty = _number(penalty, r"norm:([0-9.]+(?:e-?[0-9]+)?)", "penalty", "a number, 0 or more, or norm:0.01")
        if isinstance(steps, str):
            others |= {"epochs": int(_number(steps, r"([0-9]+) ?epochs?", "steps", "a whole number, or 10 epochs"))}
            steps = None
        return cls(penalty=penalty, steps=steps, **others)


def _number(text: str, form: str, name: str, forms: str) -> float:
    found = re.fullmatch(form, text)
    try:
        return float(found[1] if found else "")
    except ValueError:
        raise ValueError(f"{name} is '{printable(text)}'; give {forms}") from None
