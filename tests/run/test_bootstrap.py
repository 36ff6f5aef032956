"""Bootstrapped standard errors are lm-eval's to the last digit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from lm_eval.api import metrics
from lm_eval.api.registry import AGGREGATION_REGISTRY

from harness.run import bootstrap

NUMBERS = random.Random(5)
PAIRS = [(NUMBERS.randint(0, 1), NUMBERS.randint(0, 1)) for _ in range(23)]
VALUES: dict[str, list[tuple[str, Sequence[Any]]]] = {
    "numbers": [("median", [3, 1, 2, 5]), ("nanmean", [NUMBERS.random() for _ in range(1300)])],
    "undefined": [("nanmean", [1.0, float("nan"), 2.5])],
    "logarithms": [("perplexity", [-NUMBERS.random() * 9 for _ in range(301)])],
    "pairs": [("f1", PAIRS), ("matthews_corrcoef", PAIRS), ("f1", [(0, 0), (0, 0)]), ("f1", [(1, 1), (1, 1), (1, 0)])],
    "several classes": [("matthews_corrcoef", [(n % 3, (n * n) % 4) for n in range(17)])],
    "texts": [
        ("bleu", [("a b c d e", "a b c d f"), ("so it is said", "so it is")]),
        ("ter", [("a b", "a c"), ("d", "d")]),
    ],
}


@pytest.mark.filterwarnings("ignore::UserWarning:sklearn", "ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", VALUES)
def test_the_error_is_lm_evals_number_for_number(kind: str) -> None:
    for name, values in VALUES[kind]:
        metric, iterations = AGGREGATION_REGISTRY[name], 20 if kind in {"pairs", "several classes", "texts"} else 2000
        expected = metrics.sample_stddev(drawn(metric, values, iterations))
        found = bootstrap.standard_error(name, metric, values, iterations)
        assert found == expected or (found != found and expected != expected), name


def drawn(metric: Any, values: Sequence[Any], iterations: int) -> list[float]:
    """Return what lm-eval's pool is given back: its own worker, called here."""
    draws = min(bootstrap.CHUNK, iterations)
    work = metrics._bootstrap_internal(metric, draws)
    return [score for chunk in range(iterations // draws) for score in work((chunk, values))]


def test_every_bootstrapped_metric_of_lm_eval_is_known() -> None:
    closed = {metrics.mean, metrics.acc_all}
    bootstrapped = {
        name
        for name, function in dict(AGGREGATION_REGISTRY).items()
        if function not in closed and metrics.stderr_for_metric(function, 100) is not None
    }
    assert bootstrapped == bootstrap.names()
