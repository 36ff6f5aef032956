"""Between which numbers a metric lies, by its name."""

from __future__ import annotations

INFINITE = float("inf")
SHARE, PERCENT = (0.0, 1.0), (0.0, 100.0)
SHARES = frozenset(
    {
        "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "em", "f1", "precision", "recall", "contains", "mc1",
        "mc2", "ndcg_at_10", "map", "average_precision", "mrr_at_10", "reciprocal_rank_at_10", "recall_at_10", "recall_at_100",
        "accuracy", "prompt_level_strict_acc", "prompt_level_loose_acc", "inst_level_strict_acc", "inst_level_loose_acc",
    }
)  # fmt: skip
RANGES = {
    "mcc": (-1.0, 1.0),
    "brier_score": (0.0, 2.0),
    "perplexity": (1.0, INFINITE),
    "word_perplexity": (1.0, INFINITE),
    "byte_perplexity": (1.0, INFINITE),
    "bits_per_byte": (0.0, INFINITE),
    "bleu": PERCENT,
    "chrf": PERCENT,
    "chrf++": PERCENT,
    "ter": (0.0, INFINITE),
    "wer": (0.0, INFINITE),
    "cer": (0.0, INFINITE),
}
# Whatever the metric is called.
OF_AGGREGATIONS = {"pearson": (-1.0, 1.0), "spearman": (-1.0, 1.0), "v_measure": SHARE}


def bounds(name: str, aggregation: str | None = None) -> tuple[float, float] | None:
    """Return the smallest and the largest value a metric can have, None where neither name nor aggregation tells."""
    return OF_AGGREGATIONS.get(aggregation or "") or (SHARE if name in SHARES else RANGES.get(name))
