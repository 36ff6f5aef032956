"""What lm-eval's metrics are called elsewhere, and between which numbers their values lie."""

from __future__ import annotations

from dataclasses import dataclass

INFINITE = float("inf")
SHARE = (0.0, 1.0)
# Names of metrics that lie between 0 and 1, and what other collections call them.
_SHARES = {
    "acc": "accuracy",
    "acc_norm": "lm_eval.acc_norm",
    "acc_bytes": "lm_eval.acc_bytes",
    "acc_mutual_info": "lm_eval.acc_mutual_info",
    "exact_match": "exact-match",
    "em": "exact-match",
    "f1": "f1",
    "precision": "precision",
    "recall": "recall",
    "contains": "lm_eval.contains",
    "mc1": "lm_eval.mc1",
    "mc2": "lm_eval.mc2",
    "prompt_level_strict_acc": "lm_eval.prompt_level_strict_acc",
    "prompt_level_loose_acc": "lm_eval.prompt_level_loose_acc",
    "inst_level_strict_acc": "lm_eval.inst_level_strict_acc",
    "inst_level_loose_acc": "lm_eval.inst_level_loose_acc",
}
_RANGES = {
    "mcc": (-1.0, 1.0),
    "brier_score": (0.0, 2.0),
    "perplexity": (1.0, INFINITE),
    "word_perplexity": (1.0, INFINITE),
    "byte_perplexity": (1.0, INFINITE),
    "bits_per_byte": (0.0, INFINITE),
    "bleu": (0.0, 100.0),
    "chrf": (0.0, 100.0),
    "ter": (0.0, INFINITE),
    "wer": (0.0, INFINITE),
    "cer": (0.0, INFINITE),
}
_IDS = {"perplexity": "perplexity", "bleu": "bleu", "wer": "wer", "cer": "cer"}
_KINDS = {"acc": "accuracy", "exact_match": "accuracy", "em": "accuracy", "f1": "f1"} | {
    name: "perplexity" for name in _RANGES if name.endswith("perplexity")
}
# How lm-eval computes the standard error follows from the aggregation.
_ANALYTIC = frozenset({"mean", "acc_all"})
_BOOTSTRAPPED = frozenset(
    {"bleu", "chrf", "f1", "f1_score", "mcc", "matthews_corrcoef", "median", "nanmean", "perplexity", "ter"}
)


@dataclass(frozen=True)
class Meaning:
    """A metric as others know it; ``is_known``: the bounds follow from its definition, else they are infinite."""

    identifier: str
    low: float
    high: float
    is_known: bool
    kind: str | None = None

    @property
    def unit(self) -> str | None:
        """Unit of the value, None when the name does not tell."""
        if (self.low, self.high) == SHARE:
            return "proportion"
        return "percent" if (self.low, self.high) == (0.0, 100.0) else None


def meaning(name: str, value: float) -> Meaning:
    """Return what ``name`` means; a value out of the bounds says that this task means something else by it."""
    bounds = SHARE if name in _SHARES else _RANGES.get(name)
    identifier = _SHARES.get(name) or _IDS.get(name) or f"lm_eval.{name}"
    if bounds is None or not bounds[0] <= value <= bounds[1]:
        return Meaning(f"lm_eval.{name}", -INFINITE, INFINITE, is_known=False)
    return Meaning(identifier, *bounds, is_known=True, kind=_KINDS.get(name))


def is_share(name: str) -> bool:
    """Return whether the metric is 0 or 1, or between, for each document."""
    return name in _SHARES


def error_method(aggregation: str | None) -> str | None:
    """Return how lm-eval computed a standard error: ``analytic``, ``bootstrap``, None when it is not known."""
    if aggregation in _ANALYTIC:
        return "analytic"
    return "bootstrap" if aggregation in _BOOTSTRAPPED else None
