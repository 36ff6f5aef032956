"""A board to Markdown: one table for each task and model, methods as rows, metrics as columns."""

from __future__ import annotations

from collections.abc import Sequence

from harness.board.board import Board, Metric, Row, Score, Table, build
from harness.board.omissions import omission_sentences
from harness.records.grouping import facts
from harness.records.intervals import NORMAL
from harness.records.labels import NOTED, options_that_differ
from harness.records.markdown import cell
from harness.records.record import Record

MARKS = {"better": " ▲", "worse": " ▼"}
LEGEND = (
    "± is the standard error over documents, sd the deviation between seeds. ▲ and ▼: better and worse than the baseline"
    " of the same table (95 %, Holm's correction over its rows)."
)
INTERVAL_LEGEND = (
    "[ ] is a 95 % interval, where documents are too few, or too few of them right or wrong, for a standard error to tell:"
    " Clopper-Pearson's of right and wrong, a studentised bootstrap's or Student's of others."
)


CONTRADICTED = " ✗"
CONTRADICTED_LEGEND = (
    "✗: contradicted by its samples, its tasks or its counts, as `harness verify` says; such a score tells nothing."
)


def render(records: Sequence[Record]) -> str:
    """Return the leaderboard of ``records``: tables by task and model, methods as rows, metrics as columns.

    Records of one method with the same options stand in one row, averaged over seeds. Values are compared only within
    a table: records whose model, task version, documents, shots, limit or prompts differ get tables of their own. Of
    two records with the same key the later one in ``records`` counts.
    """
    return render_board(build(records))


def render_board(board: Board, *, note: str = "") -> str:
    """Return the leaderboard as Markdown."""
    lines = ["# Leaderboard", "", *([note, ""] if note else [])]
    if not board.tables:
        lines += ["No records yet.", ""]
    for table in board.tables:
        lines += _tables(table)
    has_errors = any(score.stderr is not None for score in board.scores())
    lines += [LEGEND, ""] if has_errors else []
    exact = any(score.interval is not None and score.interval.method != NORMAL for score in board.scores())
    lines += [INTERVAL_LEGEND, ""] if exact else []
    lines += [CONTRADICTED_LEGEND, ""] if board.omissions.contradicted else []
    said = omission_sentences(board.omissions)
    if said:
        lines += ["**Left out**", "", *(f"* {cell(sentence)}" for sentence in said), ""]
    return "\n".join(lines)


def _tables(table: Table) -> list[str]:
    """Return one table of Markdown for each model."""
    by_board: dict[str, list[Row]] = {}
    for row in table.rows:
        by_board.setdefault(row.board, []).append(row)
    return [line for rows in by_board.values() for line in _table(table, rows)]


def _table(table: Table, rows: Sequence[Row]) -> list[str]:
    first = rows[0].first
    methods = [row for row in rows if not row.first.is_baseline]
    differing = options_that_differ([row.first for row in methods])
    metrics = [metric for metric in table.metrics if any((metric.name, metric.filter) in row.scores for row in rows)]
    with_code = len({row.code for row in methods}) > 1
    header = [
        "method",
        *(["code"] if with_code else []),
        *map(cell, differing),
        "seeds",
        *(_metric_title(metric) for metric in metrics),
    ]
    lines = [f"## {cell(first.task.name)} · {cell(first.model.name)}", "", _facts(first), ""]
    if table.is_partial:
        lines += ["Part of the task: not to be ranked with results on all of it.", ""]
    lines += [f"Note: {cell(note)}." for note in table.notes] + ([""] if table.notes else [])
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(_row(row, differing, metrics, with_code=with_code)) + " |" for row in rows]
    below = [*_unranked(rows, metrics), *_noted(rows, metrics)]
    return [*lines, *(["", *below] if below else []), ""]


def _row(row: Row, differing: Sequence[str], metrics: Sequence[Metric], *, with_code: bool) -> list[str]:
    first, name = row.first, cell(row.label)
    options = ["" if first.is_baseline else cell(first.method.options.get(option, "")) for option in differing]
    if with_code:
        options.insert(0, "" if first.is_baseline else cell(row.code))
    if row.is_contradicted:
        name += CONTRADICTED
    cells = [f"**{name}**" if first.is_baseline and not row.is_contradicted else name, *options, str(len(row.sources))]
    return cells + [_value(row.scores.get((metric.name, metric.filter))) for metric in metrics]


def _value(score: Score | None) -> str:
    """Return the mean over seeds ± the standard error over documents, the deviation between seeds, and the verdict."""
    if score is None:
        return ""
    text = "none" if score.value is None else f"{score.value:.4f}"
    if score.is_contradicted:
        return f"*{text}*{CONTRADICTED}"
    if score.interval is not None and score.interval.method != NORMAL:
        text += f" [{score.interval.low:.4f}, {score.interval.high:.4f}]"
    elif score.stderr:
        text += f" ± {score.stderr:.4f}"
    if score.deviation is not None:
        text += f" (sd {score.deviation:.4f})"
    if score.notes:
        text += f" {NOTED}"
    if score.unranked:
        return f"*{text}*"
    return text + (MARKS.get(score.difference.verdict, "") if score.difference else "")


def _unranked(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[str]:
    """Return a line for each reason why scores of a table, in italics there, take no rank."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for metric in metrics:
            score = row.scores.get((metric.name, metric.filter))
            if score is not None and score.unranked:
                reasons.setdefault(f"{cell(row.label)}: {cell(score.unranked)}", []).append(cell(metric.title))
    return [f"* Not ranked, {reason} ({', '.join(titles)})" for reason, titles in reasons.items()]


def _noted(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[str]:
    """Return a line for each note on scores of a table, which bear a mark there."""
    noted: dict[str, list[str]] = {}
    for row in rows:
        for metric in metrics:
            score = row.scores.get((metric.name, metric.filter))
            for note in score.notes if score is not None else ():
                noted.setdefault(f"{cell(row.label)}: {cell(note)}", []).append(cell(metric.title))
    return [f"* {NOTED} {note} ({', '.join(dict.fromkeys(titles))})" for note, titles in noted.items()]


def _facts(record: Record) -> str:
    """Return what all records of a board share, in one line."""
    return cell(", ".join(facts(record))) + "."


def _metric_title(metric: Metric) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better]
    return cell(metric.title) + arrow
