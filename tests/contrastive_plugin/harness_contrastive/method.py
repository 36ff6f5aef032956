"""The method: its options, and the LM they make."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness import HarnessError
from harness.models.causal import CausalLM
from harness.models.layers import readers
from harness_contrastive.lm import ContrastiveLM


@dataclass(frozen=True)
class ContrastLayers:
    """Choose tokens by what the last layer adds to an early one (DoLa, Chuang et al., 2024, with one fixed layer).

    Options:
        layer: the early layer: so many layers have been passed, 0 to all of them.
        alpha: of the best token's probability, the share a token needs to be kept; above 0, at most 1.
    """

    name: ClassVar[str] = "contrast_layers"
    leaves_model_unchanged: ClassVar[bool] = True
    layer: int = 1
    alpha: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what no model has."""
        if self.layer < 0 or not 0 < self.alpha <= 1:
            raise ValueError(f"layer {self.layer} has to be 0 or more, alpha {self.alpha:g} above 0 and at most 1")

    def apply(self, lm: Any, *, seed: int, workdir: Path) -> CausalLM:
        """Return an LM that answers by the contrast; the model stays as it is."""
        against = self.against(lm)
        (workdir / "report.json").write_text(json.dumps({"layers": len(readers(lm.model)) - 1}), encoding="utf-8")
        return against

    def against(self, lm: Any) -> ContrastiveLM:
        """Return ``lm`` against its early layer."""
        if not isinstance(lm, CausalLM):
            raise HarnessError("contrast_layers needs the layers of a model; load weights with --model hf")
        if self.layer >= len(readers(lm.model)):
            raise HarnessError(f"there is no layer {self.layer}; give 0 to {len(readers(lm.model)) - 1}")
        return ContrastiveLM(lm.model, lm.tokenizer, layer=self.layer, alpha=self.alpha, **lm.settings)
