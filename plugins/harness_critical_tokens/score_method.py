"""Contrastive scores as a method: a positive and a negative adapter on one base say which tokens ruin a solution."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from harness.folders import write_atomic
from harness_critical_tokens.checks import SCORES, ScoringOptions, check_scoring, digest_of_inputs
from harness_critical_tokens.pairs_file import PairsFile, read_pairs
from harness_critical_tokens.report.keeping import keep_page

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness_critical_tokens.scored_pairs import ScorePlan


@dataclass(frozen=True)
class Score(ScoringOptions):
    """Score each token of right and wrong solutions by two adapters, one trained on each (Lin et al., 2024).

    The model that is evaluated stays as it is; adapters and scores are artefacts of the run.

    Options:
        pairs_file: .jsonl with prompt, chosen and rejected, whose tokens are scored; where rows have first_wrong_char, the report
            says how well each score finds the token that covers it.
        ratio_scale: nats of log ratio at which the weight that is made of it reaches 1.
    """

    name: ClassVar[str] = "score"
    leaves_model_unchanged: ClassVar[bool] = True

    pairs_file: Path
    ratio_scale: float = 4.0

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        check_scoring(self)
        if self.adapters is not None and self.train_file is not None:
            raise ValueError("adapters and train_file are both given; adapters are loaded or trained")

    def fingerprint(self) -> str:
        """Read the pairs, and return the digest of all inputs.

        Raises:
            HarnessError: one of them cannot be used.
        """
        return digest_of_inputs(self._file.digest, self._train_file.digest, self.adapters)

    def apply(self, lm: LM, *, seed: int, workdir: Path) -> LM:
        """Train the adapters or load them, write ``scores.jsonl``, ``report.json`` and the page, and return the LM as it was.

        Args:
            lm: a ``CausalLM``.
            seed: seeds the adapters' first weights and the order of responses.
            workdir: holds ``positive/``, ``negative/``, ``scores.jsonl``, ``report.json`` and ``report.html`` afterwards.

        Raises:
            HarnessError: the LM has no weights, a pair or an adapter does not fit it, or training broke down.
        """
        if (workdir / SCORES).is_file() and (workdir / "report.json").is_file():
            return lm
        from harness_critical_tokens.scored_pairs import make_scores, weights_of

        weights_of(lm, self.name)
        found = make_scores(lm, self._plan, seed=seed, workdir=workdir)
        report = found.report | found.figures(ratio_scale=self.ratio_scale, seed=seed)
        write_atomic(workdir / "report.json", json.dumps(report, indent=1, allow_nan=False))
        keep_page(workdir, self, lm, found.encoded, seed=seed)
        return lm

    @property
    def _plan(self) -> ScorePlan:
        from harness_critical_tokens.contrast_adapters import ContrastSettings
        from harness_critical_tokens.scored_pairs import ScorePlan

        return ScorePlan.of(self, file=self._file, train_file=self._train_file, settings=ContrastSettings.of(self))

    @cached_property
    def _file(self) -> PairsFile:
        return read_pairs(self.pairs_file)

    @cached_property
    def _train_file(self) -> PairsFile:
        return self._file if self.train_file is None else read_pairs(self.train_file)
