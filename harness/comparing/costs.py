"""What the sides of a comparison took: seconds, memory, tokens trained."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.comparing.selectors import Sourced


@dataclass(frozen=True, slots=True)
class Cost:
    """What a seed of a side took, on average over its seeds; evaluating, all compared tasks together. Bytes are peaks."""

    apply_seconds: float
    evaluate_seconds: float
    apply_peak_bytes: int | None
    evaluate_peak_bytes: int | None
    tokens_trained: float | None


def cost_of(used: Sequence[Sourced]) -> Cost:
    """Return what the records of a side took. Records of one task and run hold the same cost, which counts once."""
    runs: dict[str, dict[str, Sourced]] = {}
    for sourced in used:
        record = sourced.record
        if not record.task.group:
            runs.setdefault(str(record.run or (record.created, record.seeds)), {})[record.task.name] = sourced
    each = [[sourced.record for sourced in tasks.values()] for tasks in runs.values()]
    costs = [[record.cost for record in records] for records in each]
    # Before runs had a name, each record held the seconds of the whole run.
    evaluated = [
        sum(cost.evaluate_seconds for cost in run) if records[0].run else max(cost.evaluate_seconds for cost in run)
        for records, run in zip(each, costs, strict=True)
    ]
    flat = [cost for run in costs for cost in run]
    trained = [run[0].tokens_trained for run in costs if run[0].tokens_trained is not None]
    return Cost(
        apply_seconds=statistics.fmean(run[0].apply_seconds for run in costs) if costs else 0.0,
        evaluate_seconds=statistics.fmean(evaluated) if evaluated else 0.0,
        apply_peak_bytes=max((cost.apply_peak_bytes or 0 for cost in flat), default=0) or None,
        evaluate_peak_bytes=max((cost.evaluate_peak_bytes or 0 for cost in flat), default=0) or None,
        tokens_trained=statistics.fmean(trained) if trained else None,
    )
