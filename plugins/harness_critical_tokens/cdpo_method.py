"""cDPO as a method: preference learning in which each token of the rejected solution counts by how much it ruins it."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness import HarnessError
from harness.folders import new_folder, write_atomic
from harness.methods.options import check_least
from harness_critical_tokens.checks import (
    NEEDS_ADAPTERS,
    SCORES,
    ScoringOptions,
    check_positive,
    check_scoring,
    digest_of_inputs,
)
from harness_critical_tokens.pairs_file import PairsFile, read_pairs
from harness_critical_tokens.report.keeping import keep_page

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness.models.causal import CausalLM
    from harness_critical_tokens.pair_weights import Weighing
    from harness_critical_tokens.policy import PolicySettings
    from harness_critical_tokens.scored_pairs import ScorePlan

POLICY = "policy"


@dataclass(frozen=True)
class CDPO(ScoringOptions):
    """Direct preference optimisation with a weight for each token of the rejected solution (cDPO; Lin et al., 2024).

    Weights are made once, of a positive and a negative adapter on the same base (method score); the reference is the base with
    its adapters off. The policy's adapter is merged into floating-point weights and kept active on quantised ones.

    Options:
        pairs_file: .jsonl with prompt, chosen and rejected; needed unless steps is 0.
        score: what the weights are made of. contrastive is 1 - s (the paper's), log_ratio counts how much keener the negative
            adapter is, none is DPO; controls: permuted and permuted_log_ratio (the same weights in another order),
            first_difference (where rejected leaves chosen), probability (1 - base), positive (1 - p), given (the pairs' own
            weights, a list of [first character, end, weight]).
        weight_normalisation: none, or mean_one, so that the weights of a response average 1 and all scores push equally hard.
        ratio_scale: nats of log ratio at which log_ratio is 1.
        chosen_weights: ones, or the scores s of the chosen tokens.
        beta: of DPO, more than 0.
        sft_alpha: weight of the cross-entropy of the chosen solution; 1 with score=none is RPO.
        aggregate: sum over the tokens of a solution (sequence), or a loss at every position as released (positions).
        steps: optimiser steps; 0 leaves the weights alone.
        learning_rate: peak of AdamW's rate.
        warmup_steps: steps to the peak; by default a tenth of all.
        batch_size: pairs per step.
        rank: of the policy's adapter.
        alpha: of the policy's adapter; the update is scaled by alpha / rank.
        target_modules: linear layers to adapt, as all-linear or names joined by +.
        scores_file: scores.jsonl of an earlier run of score on the same pairs, instead of training adapters.
        most_fall: end training when the chosen solutions of a step have got less likely by more than so many nats a token than
            by the reference; by default never.
    """

    name: ClassVar[str] = "cdpo"

    pairs_file: Path | None = None
    score: Literal[
        "contrastive", "log_ratio", "none", "permuted", "permuted_log_ratio", "first_difference", "probability", "positive",
        "given",
    ] = "contrastive"  # fmt: skip
    weight_normalisation: Literal["none", "mean_one"] = "none"
    ratio_scale: float = 4.0
    chosen_weights: Literal["ones", "scores"] = "ones"
    beta: float = 0.1
    sft_alpha: float = 0.0
    aggregate: Literal["sequence", "positions"] = "sequence"
    steps: int = 300
    learning_rate: float = 4e-5
    warmup_steps: int | None = None
    batch_size: int = 8
    rank: int = 16
    alpha: float = 32.0
    target_modules: tuple[str, ...] = ("all-linear",)
    scores_file: Path | None = None
    most_fall: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        check_scoring(self)
        check_least(self, steps=0, warmup_steps=0, batch_size=1, rank=1, sft_alpha=0)
        check_positive(self, "beta", "learning_rate", "alpha", *(() if self.most_fall is None else ("most_fall",)))
        if not self.target_modules:
            raise ValueError("target_modules is empty; name layers, or all-linear")
        if self.steps and self.pairs_file is None:
            raise ValueError("pairs_file is missing; it is needed to train, and steps=0 leaves the weights alone")
        sources = {"scores_file": self.scores_file, "train_file": self.train_file, "adapters": self.adapters}
        given = [name for name, path in sources.items() if path is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} are both given; scores are read, or made by adapters")
        if given and self.score not in NEEDS_ADAPTERS and self.chosen_weights == "ones":
            raise ValueError(f"score={self.score} uses no scores of adapters; leave {given[0]} out")

    @property
    def leaves_model_unchanged(self) -> bool:
        """Whether these options train nothing."""
        return self.steps == 0

    def fingerprint(self) -> str:
        """Read the pairs, and return the digest of all inputs.

        Raises:
            HarnessError: one of them cannot be used.
        """
        if self.pairs_file is None:
            return digest_of_inputs()
        return digest_of_inputs(self._file.digest, self._train_file.digest, self.scores_file, self.adapters)

    def apply(self, lm: LM, *, seed: int, workdir: Path) -> LM:
        """Make weights, train the policy, or take the finished one in ``workdir``, and return the LM with it.

        Args:
            lm: a ``CausalLM``; with ``steps=0`` any.
            seed: seeds adapters' first weights, the order of pairs and permutations.
            workdir: holds ``policy/``, ``training.json``, ``report.json`` and ``report.html`` afterwards, and what ``score``
                leaves.

        Raises:
            HarnessError: the LM has no weights to train, a pair does not fit it, or training broke down.
        """
        if self.steps == 0:
            write_atomic(workdir / "report.json", json.dumps({"steps": 0}))
            return lm
        from harness_critical_tokens.scored_pairs import weights_of

        weights_of(lm, self.name)
        if (workdir / POLICY).is_dir():
            return self._with_finished_policy(lm, workdir)
        return self._train(lm, seed=seed, workdir=workdir)

    @cached_property
    def _file(self) -> PairsFile:
        assert self.pairs_file is not None
        return read_pairs(self.pairs_file)

    @cached_property
    def _train_file(self) -> PairsFile:
        return self._file if self.train_file is None else read_pairs(self.train_file)

    @property
    def _plan(self) -> ScorePlan:
        from harness_critical_tokens.contrast_adapters import ContrastSettings
        from harness_critical_tokens.scored_pairs import ScorePlan

        return ScorePlan.of(self, file=self._file, train_file=self._train_file, settings=ContrastSettings.of(self))

    @property
    def _policy_settings(self) -> PolicySettings:
        from harness_critical_tokens.policy import PolicySettings

        return PolicySettings(
            beta=self.beta,
            sft_alpha=self.sft_alpha,
            aggregate=self.aggregate,
            steps=self.steps,
            learning_rate=self.learning_rate,
            warmup_steps=math.ceil(0.1 * self.steps) if self.warmup_steps is None else self.warmup_steps,
            batch_size=self.batch_size,
            most_fall=self.most_fall,
        )

    @property
    def _weighing(self) -> Weighing:
        from harness_critical_tokens.pair_weights import Weighing

        return Weighing(
            score=self.score,
            normalise=self.weight_normalisation,
            ratio_scale=self.ratio_scale,
            weighs_chosen=self.chosen_weights == "scores",
            scores_file=self.scores_file,
        )

    def _train(self, lm: Any, *, seed: int, workdir: Path) -> CausalLM:
        from harness.methods import adapters
        from harness_critical_tokens import pair_weights, policy, scored_pairs, scoring

        started = time.monotonic()
        ids = scored_pairs.probe_ids(lm)
        before = adapters.probe_loss(lm.model, ids)
        encoded, scored, report = pair_weights.scores_for(lm, self._plan, self._weighing, seed=seed, workdir=workdir)
        model = adapters.add_adapter(
            lm.model, rank=self.rank, alpha=self.alpha, target_modules=self.target_modules, seed=seed, name=POLICY
        )
        scored_pairs.check_off(model, ids, before)
        asked = time.monotonic()
        references = policy.reference_loglikelihoods(model, encoded.responses)
        if scored is not None:
            pair_weights.check_base(scored, references)
        weights, figures = pair_weights.weigh(encoded, scored, references, self._weighing, seed=seed)
        reference_seconds = time.monotonic() - asked
        pairs = policy.WeightedPairs(encoded.responses, weights, references)
        log, curve = policy.train_policy(model, pairs, self._policy_settings, seed=seed)
        with new_folder(workdir / POLICY) as folder:
            adapters.save_adapter(model, folder, name=POLICY)
        handed_on, probe = adapters.hand_on(model, probe_ids=ids, before=before)
        write_atomic(workdir / "training.json", json.dumps(curve.columns() | {"loss": log.losses}, allow_nan=False))
        report |= figures | {"policy": log.report() | curve.report(), "probe": probe.report()}
        report["policy"]["ended_early"] = len(log.losses) < self.steps
        curve.tell_of_fall()
        report["tokens_trained"] = report.get("tokens_trained", 0) + log.tokens
        report["peak_bytes"] = policy.peak_bytes(next(handed_on.parameters()).device)
        seconds = {"reference": reference_seconds, "policy": log.seconds, "all": time.monotonic() - started}
        report["seconds"] = report.get("seconds", {}) | {name: round(part, 1) for name, part in seconds.items()}
        write_atomic(workdir / "report.json", json.dumps(policy.listed(report), indent=1, allow_nan=False))
        if scored is not None:
            scoring.write_scores(workdir / SCORES, scored)
        keep_page(workdir, self, lm, encoded, seed=seed)
        lm_after: CausalLM = lm.replace(model=handed_on)
        return lm_after

    def _with_finished_policy(self, lm: Any, workdir: Path) -> CausalLM:
        from harness.methods import adapters
        from harness_critical_tokens.scored_pairs import probe_ids

        known = json.loads((workdir / "report.json").read_text(encoding="utf-8"))["probe"]
        model = adapters.load_adapter(lm.model, workdir / POLICY, name=POLICY)
        handed_on, probe = adapters.hand_on(model, probe_ids=probe_ids(lm), before=known["before"])
        if not math.isclose(probe.after, known["after"], rel_tol=1e-2):
            raise HarnessError(
                f"the adapter kept from an earlier run scores {probe.after:.4f} on the probe text where it scored "
                f"{known['after']:.4f}; train it anew with --no-cache"
            )
        lm_after: CausalLM = lm.replace(model=handed_on)
        return lm_after
