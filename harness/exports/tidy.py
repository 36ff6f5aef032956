"""A board as rows of plain values: one a score, seeds averaged, with interval, rank and difference to the baseline."""

from __future__ import annotations

from typing import Any

from harness.board.tables import Board, Metric, Row, Score, Table
from harness.names import printable
from harness.records.frames import asked_with, options_text
from harness.records.grouping import weights_label
from harness.records.labels import model_label


def score_rows(board: Board) -> list[dict[str, Any]]:
    """Return one row a score of a board, tables in order and rows as they stand there.

    ``stderr`` is over documents, ``deviation`` between seeds; ``low`` and ``high`` bound a 95 % interval found by
    ``interval``, ``difference_low`` and ``difference_high`` that of the difference to the baseline, by itself as its
    ``difference_p`` is; ``difference_p_holm`` is adjusted over the rows of its table, and gives the verdict. ``unranked`` says
    why a score has no rank.
    """
    return [
        _row(table, row, metric, score)
        for table in board.tables
        for metric in table.metrics
        for row in table.rows
        if (score := row.scores.get((metric.name, metric.filter))) is not None
    ]


def _row(table: Table, row: Row, metric: Metric, score: Score) -> dict[str, Any]:
    first, difference, interval = row.first, score.difference, score.interval
    return {
        "model": model_label(first),
        "weights": weights_label(first),
        "plugin": first.plugin.name,
        "code": row.code,
        "method": row.label,
        "options": options_text(first),
        "seeds": len(score.by_seed),
        "task": first.task.name,
        "task_version": first.task.version,
        "is_group": first.task.group,
        "metric": metric.name,
        "filter": metric.filter,
        "higher_is_better": metric.higher_is_better,
        "value": score.value,
        "stderr": score.stderr,
        "deviation": score.deviation,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "interval": interval.method if interval else None,
        "difference": difference.value if difference else None,
        "difference_low": difference.low if difference else None,
        "difference_high": difference.high if difference else None,
        "difference_p": difference.p if difference else None,
        "difference_p_holm": difference.p_holm if difference else None,
        "difference_is_identical": difference.is_identical if difference else None,
        "difference_is_paired": difference.is_paired if difference else None,
        "verdict": difference.verdict if difference else "",
        "rank": score.rank,
        "rank_is_shared": score.is_tied if score.rank else None,
        "unranked": printable(score.unranked),
        "notes": "; ".join(map(printable, score.notes)),
        "documents": first.counts.docs if first.states("counts.docs") else None,
        "shots": first.settings.num_fewshot or 0,
        "limit": first.settings.limit,
        **asked_with(first),
        "documents_digest": first.task.docs_digest,
        "prompts_digest": first.task.prompts_digest,
        "model_digest": first.model.digest,
        "is_partial": table.is_partial,
        "seconds": row.seconds if first.states("cost") else None,
        "peak_bytes": row.peak_bytes,
    }
