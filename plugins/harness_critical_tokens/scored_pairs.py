"""From pairs to scored tokens: adapters trained or loaded, every response scored, the base given back as it was."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import HarnessError
from harness.folders import write_atomic
from harness.json_lines import read_json
from harness.methods import adapters
from harness.models.identity import tensor_fingerprints
from harness.names import printable
from harness_critical_tokens.checks import SCORES
from harness_critical_tokens.contrast_adapters import ContrastSettings, loaded_adapters, trained_adapters
from harness_critical_tokens.encoded_pairs import EncodedPairs, encode_pairs
from harness_critical_tokens.identification import identification
from harness_critical_tokens.pairs_file import PairsFile
from harness_critical_tokens.scoring import Scored, score_pairs, write_scores
from harness_critical_tokens.weighting import of_scores, weight_figures

if TYPE_CHECKING:
    from harness.models.causal import CausalLM

BASE_FILE = "base.json"
PROBE_TEXT = "The ferry left the harbour at seven, as it did every morning, with 12 crates of pears and 3 of plums."


@dataclass(frozen=True)
class ScorePlan:
    """Which pairs are scored, by what adapters.

    ``train_file`` has the pairs that adapters are trained on as ``settings`` say; ``adapters`` is a folder of trained ones.
    """

    file: PairsFile
    train_file: PairsFile
    settings: ContrastSettings
    adapters: Path | None
    contrast: float
    max_length: int | None
    is_chat: bool

    @classmethod
    def of(cls, options: Any, *, file: PairsFile, train_file: PairsFile, settings: ContrastSettings) -> ScorePlan:
        """Return what the options of a method say."""
        return cls(
            file, train_file, settings, options.adapters, options.contrast, options.max_length, is_chat=options.chat
        )


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs as tokens, the scores of their responses (chosen before rejected), and what was done for them."""

    encoded: EncodedPairs
    scored: list[Scored]
    report: dict[str, Any]

    def figures(self, *, ratio_scale: float, seed: int) -> dict[str, Any]:
        """Return how weights are spread over rejected tokens, and how well they find the critical one where that is known."""
        scores = [one.scores for one in self.scored[1::2]]
        weights = {
            name: weight_figures([of_scores(name, each, ratio_scale=ratio_scale) for each in scores])
            for name in ("contrastive", "log_ratio", "positive", "probability")
        }
        rejected = [pair[1] for pair in self.encoded.responses]
        found = identification(self.encoded.pairs, rejected, scores, ratio_scale=ratio_scale, seed=seed)
        return {"weights": weights} | ({} if found is None else {"identification": found})


def weights_of(lm: Any, method: str) -> Any:
    """Return the model of an LM. Raises ``HarnessError`` where it has none."""
    if getattr(lm, "model", None) is None:
        raise HarnessError(f"method '{method}' needs a model with weights, which {type(lm).__name__} has not")
    return lm.model


def make_scores(lm: CausalLM, plan: ScorePlan, *, seed: int, workdir: Path) -> ScoredPairs:
    """Score the pairs of a plan, and write ``scores.jsonl``; the LM's model is as it was before afterwards.

    Args:
        lm: the untouched LM.
        plan: what to score, and by what.
        seed: of training.
        workdir: gets the file, and the adapters where these are trained.

    Raises:
        HarnessError: no pair can be used, or adapters do not fit the model.
    """
    started = time.monotonic()
    encoded = encode_pairs(lm, plan.file, max_length=plan.max_length, is_chat=plan.is_chat)
    base: Any = lm.model
    before, known = adapters.probe_loss(base, probe_ids(lm)), tensors_digest(base)
    if plan.adapters is None:
        same = plan.train_file is plan.file
        rows = encoded if same else encode_pairs(lm, plan.train_file, max_length=plan.max_length, is_chat=plan.is_chat)
        model, training = trained_adapters(base, rows.responses, plan.settings, seed=seed, workdir=workdir)
        write_atomic(workdir / BASE_FILE, json.dumps({"tensors": known}))
    else:
        rows, training = encoded, {}
        _check_base(plan.adapters, known)
        model = loaded_adapters(base, plan.adapters)
    check_off(model, probe_ids(lm), before)
    trained = time.monotonic()
    scored = score_pairs(model, encoded.numbers, encoded.responses, contrast=plan.contrast)
    write_scores(workdir / SCORES, scored)
    adapters.without_adapters(model)
    report = {
        "pairs": encoded.report,
        "training_pairs": rows.report,
        "training": training,
        "tokens_trained": sum(stage["tokens_trained"] for stage in training.values()),
        "seconds": {"adapters": round(trained - started, 1), "scores": round(time.monotonic() - trained, 1)},
    }
    return ScoredPairs(encoded, scored, report)


def check_off(model: Any, ids: list[int], before: float) -> None:
    """Raise ``HarnessError`` where the model with its adapters off is not its base to the bit, or gives no numbers."""
    if not math.isfinite(before):
        raise HarnessError(
            f"the model's loss on a probe text is {before}; load it with dtype=float32, or take another model"
        )
    with adapters.using(model, None):
        after = adapters.probe_loss(model, ids)
    if after != before:
        raise HarnessError(
            f"with its adapters off the model is not its base (a probe text's loss is {after!r} instead of {before!r}), so it "
            "cannot be its own reference; adapt other layers"
        )


def probe_ids(lm: CausalLM) -> list[int]:
    """Return the ids of the text by which merging, and adapters that are off, are checked."""
    ids: list[int] = lm.tokenizer.encode(PROBE_TEXT, add_special_tokens=False)
    return ids


def tensors_digest(model: Any) -> str:
    """Return a digest of a model's tensors, by which bases are told apart."""
    return hashlib.sha256(json.dumps(sorted(tensor_fingerprints(model).items())).encode()).hexdigest()


def _check_base(folder: Path, known: str) -> None:
    """Raise ``HarnessError`` where the adapters of a folder were trained on another base than ``known``."""
    path = folder / BASE_FILE
    if not path.is_file():
        raise HarnessError(
            f"'{printable(folder)}' has no {BASE_FILE}, which says what its adapters were trained on; give the folder that a run "
            "of score or cdpo left as artefacts/"
        )
    found = read_json(path)
    if not isinstance(found, dict) or found.get("tensors") != known:
        raise HarnessError(
            f"the adapters in '{printable(folder)}' were trained on another base; score with the model they were trained on, in "
            "the same dtype and quantisation"
        )
