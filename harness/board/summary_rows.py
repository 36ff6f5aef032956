"""A board's summary as plain values, for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.board.summary import Block, Standing, summarise
from harness.board.tables import Board


def summary_rows(board: Board, retention: Sequence[str]) -> list[dict[str, Any]]:
    """Return one object a block: its tasks, the models with their rows in order, and what has no mean rank and why.

    ``place``, ``mean_rank``, ``won``, ``lost``, ``tied``, ``retained`` and the differences' ``verdict`` are those of the summary
    that people read, in full precision.
    """
    return [_finite(_block(block)) for block in summarise(board, retention=retention)]


def _finite(value: Any) -> Any:
    """Return plain values with None for numbers beyond the largest float, which JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _block(block: Block) -> dict[str, Any]:
    tasks = [
        {
            "task": column.task,
            "metric": column.metric.name,
            "filter": column.metric.filter,
            "higher_is_better": column.metric.higher_is_better,
            "is_ranked": n in block.ranked,
            "is_for_retention": n in block.retained,
            "is_partial": column.table.is_partial,
        }
        for n, column in enumerate(block.columns)
    ]
    models = [{"model": model, "rows": [_row(one) for one in standings]} for model, standings in block.models.items()]
    return {"tasks": tasks, "models": models, "notes": list(block.notes), "machines": list(block.machines)}


def _row(one: Standing) -> dict[str, Any]:
    first, rank = one.first, one.rank
    return {
        "model": one.key.model,
        "method": one.method,
        "plugin": first.plugin.name,
        "options": first.method.options,
        "is_baseline": not one.key.method,
        "seeds": max(len(score.by_seed) for score in one.scores.values()),
        "place": rank.place if rank else None,
        "place_is_shared": rank.is_tied if rank else None,
        "mean_rank": rank.mean if rank else None,
        "mean_rank_low": rank.low if rank else None,
        "mean_rank_high": rank.high if rank else None,
        "won": one.wins,
        "lost": one.losses,
        "tied": one.ties,
        "retained": asdict(one.retention) if one.retention else None,
        "seconds_a_document": one.seconds_a_document,
        **asdict(one.cost),
        # By the place of the task among those of the block.
        "scores": {
            str(n): {
                "value": score.value,
                "stderr": score.stderr,
                "unranked": score.unranked,
                "difference": _difference(one.differences.get(n)),
                "less_full_precision": _difference(one.against_full.get(n)),
            }
            for n, score in one.scores.items()
        },
    }


def _difference(difference: Any) -> dict[str, Any] | None:
    return None if difference is None else asdict(difference)
