"""What lm-eval's metrics are called elsewhere, and between which numbers their values lie."""

from __future__ import annotations

from dataclasses import dataclass

from harness.records.bounds import INFINITE, RANGES, SHARE, SHARES, bounds

# What other collections call metrics that lie between 0 and 1.
_NAMES = {
    "acc": "accuracy",
    "exact_match": "exact-match",
    "em": "exact-match",
    "f1": "f1",
    "precision": "precision",
    "recall": "recall",
}
_IDS = {"perplexity": "perplexity", "bleu": "bleu", "wer": "wer", "cer": "cer"}
_KINDS = {"acc": "accuracy", "exact_match": "accuracy", "em": "accuracy", "f1": "f1"} | {
    name: "perplexity" for name in RANGES if name.endswith("perplexity")
}
# How lm-eval computes the standard error follows from the aggregation.
_ANALYTIC = frozenset({"mean", "acc_all"})
_BOOTSTRAPPED = frozenset(
    {"bleu", "chrf", "f1", "f1_score", "mcc", "matthews_corrcoef", "median", "nanmean", "perplexity", "ter"}
    | {"pearson", "spearman", "v_measure", "ratio_of_sums"}
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
    known = bounds(name)
    identifier = _NAMES.get(name) or _IDS.get(name) or f"lm_eval.{name}"
    if known is None or not known[0] <= value <= known[1]:
        return Meaning(f"lm_eval.{name}", -INFINITE, INFINITE, is_known=False)
    return Meaning(identifier, *known, is_known=True, kind=_KINDS.get(name))


def is_share(name: str) -> bool:
    """Return whether the metric is 0 or 1, or between, for each document."""
    return name in SHARES


def error_method(aggregation: str | None) -> str | None:
    """Return how lm-eval computed a standard error: ``analytic``, ``bootstrap``, None when it is not known."""
    if aggregation in _ANALYTIC:
        return "analytic"
    return "bootstrap" if aggregation in _BOOTSTRAPPED else None
