"""Metrics over all documents of a task, by names that ``verify`` and ``compare`` know.

A task file says ``aggregation: spearman`` for such a metric, a subclass of ``OwnDocsTask`` names it in ``aggregations``;
what the task returns for a document is then what the aggregation takes: two numbers for those that the harness has.
A plugin adds its own in the module that its entry point names::

    whole_set.add("colours.coverage", lambda values: len(set(values)) / len(values))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.errors import HarnessError
from harness.names import printable, suggestion
from harness.records.aggregation import AGGREGATIONS, add

__all__ = ["add", "function", "tell_lm_eval"]


def function(name: str) -> Callable[[Sequence[Any]], float]:
    """Return the function that makes one score of the values of all documents, as a task's ``aggregation`` gives it.

    Raises:
        HarnessError: nobody knows the name.
    """
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    tell_lm_eval()
    if name not in AGGREGATION_REGISTRY:
        known = sorted(AGGREGATION_REGISTRY)
        raise HarnessError(f"no aggregation '{printable(name)}'; {suggestion(name, known, most=len(known))}")
    found: Callable[[Sequence[Any]], float] = AGGREGATION_REGISTRY[name]
    return found


def tell_lm_eval() -> None:
    """Tell lm-eval the aggregations that it lacks, so that task files may name them."""
    import lm_eval.api.metrics  # noqa: F401  (fills the registry)
    from lm_eval.api.registry import AGGREGATION_REGISTRY, register_aggregation

    for name, entry in AGGREGATIONS.items():
        if entry.score is not None and name not in AGGREGATION_REGISTRY:
            register_aggregation(name)(_by_name(name))


def _by_name(name: str) -> Callable[[Sequence[Any]], float]:
    """Return one function for a name, however often a plugin's module is loaded: records are named by it."""

    def score(values: Sequence[Any]) -> float:
        made = AGGREGATIONS[name].score
        assert made is not None
        return float(made(values))

    return score
