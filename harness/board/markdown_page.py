"""A board to Markdown: its summary, then one table for each task and model, methods as rows, metrics as columns."""

from __future__ import annotations

import html
from collections.abc import Sequence

from harness.board import summary_grid
from harness.board.board import build
from harness.board.omissions import omission_sentences
from harness.board.settings import Settings
from harness.board.tables import Board, Metric, Row, Score, Table
from harness.foreign.contents import MAIN_SCORE
from harness.names import counted, printable
from harness.records.grouping import facts
from harness.records.intervals import NORMAL
from harness.records.labels import NOTED, model_label, options_that_differ
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
RANK_LEGEND = (
    "rank: 1 + how many rows of the table are shown to be better (95 %, corrected over all pairs of rows); = stands before a rank"
    " that several share: they cannot be told apart."
)
CONTRADICTED_LEGEND = (
    "✗: contradicted by its samples, its tasks or its counts, as `harness verify` says; such a score tells nothing."
)


PLAIN, FOLDED = "plain", "folded"


def render(records: Sequence[Record]) -> str:
    """Return the tables of ``records`` by task and model, methods as rows, metrics as columns.

    Records of one method with the same options stand in one row, averaged over seeds. Values are compared only within
    a table: records whose model, task version, documents, shots, limit or prompts differ get tables of their own. Of
    two records with the same key the later one in ``records`` counts.
    """
    return render_board(build(records), with_summary=False)


def render_board(
    board: Board,
    *,
    note: str = "",
    settings: Settings | None = None,
    with_summary: bool = True,
    tables: str = PLAIN,
    hint: str = "",
) -> str:
    """Return the leaderboard as Markdown.

    Args:
        note: stands below the title.
        settings: the board's own words.
        with_summary: let the summary over all tasks stand first.
        tables: ``PLAIN``, or ``FOLDED`` so that a click opens each; empty for none.
        hint: stands in the place of tables.
    """
    settings = settings or Settings()
    lines = [f"# {cell(settings.title)}", "", *_words(settings, note)]
    if not board.tables:
        lines += ["No records yet.", ""]
    if with_summary:
        lines += _summary(board, settings)
    if tables:
        lines += ["## Tasks", ""] if with_summary and board.tables else []
        lines += [line for table in board.tables for line in _shown(table, settings, is_folded=tables == FOLDED)]
        lines += [RANK_LEGEND, ""] if any(", rank " in line for line in lines) else []
        lines += _legend(board)
    lines += [hint, ""] if hint and board.tables else []
    said = omission_sentences(board.omissions)
    if said:
        lines += ["**Left out**", "", *(f"* {cell(sentence)}" for sentence in said), ""]
    return "\n".join(lines)


def _words(settings: Settings, note: str) -> list[str]:
    links = " · ".join(f"[{cell(name)}]({address})" for name, address in settings.links.items())
    said = [*([cell(settings.about)] if settings.about else []), *([links] if links else []), *([note] if note else [])]
    return [line for sentence in said for line in (sentence, "")]


def _legend(board: Board) -> list[str]:
    has_errors = any(score.stderr is not None for score in board.scores())
    lines = [LEGEND, ""] if has_errors else []
    exact = any(score.interval is not None and score.interval.method != NORMAL for score in board.scores())
    lines += [INTERVAL_LEGEND, ""] if exact else []
    return lines + ([CONTRADICTED_LEGEND, ""] if board.omissions.contradicted else [])


def _summary(board: Board, settings: Settings) -> list[str]:
    found = summary_grid.summary(board, settings)
    if not found.grids:
        return []
    lines = ["## Summary", ""]
    for grid in found.grids:
        lines += [f"### {cell(grid.title)}", ""]
        lines += ["| " + " | ".join(cell(head.text) for head in grid.heads) + " |", "|" + "---|" * len(grid.heads)]
        for cells, is_baseline in zip(grid.rows, grid.is_baseline, strict=True):
            name, *others = cells
            named = f"**{cell(name.text)}**" if is_baseline else cell(name.text)
            lines.append("| " + " | ".join([named, *map(_summary_cell, others)]) + " |")
        lines += ["", *(f"* {cell(note)}" for note in grid.notes), *([""] if grid.notes else [])]
    return [*lines, *(f"* {cell(sentence)}" for sentence in found.legend), ""]


def _summary_cell(one: summary_grid.Cell) -> str:
    text = f"**{cell(one.text)}**" if one.is_best else cell(one.text)
    text = f"*{text}*" if one.kind == "unranked" and one.text else text
    return text + (f" ({cell(one.second)})" if one.second else "")


def _shown(table: Table, settings: Settings, *, is_folded: bool) -> list[str]:
    lines = _tables(table, settings)
    if not is_folded:
        return lines
    title = html.escape(f"{printable(table.first.task.name)}, {table_words(table)}")
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "</details>", ""]


def table_words(table: Table) -> str:
    """Return what tells a table from others at a glance: how many rows, shots and documents."""
    first = table.first
    said = [counted(len(table.rows), "row")]
    said += [counted(first.counts.docs, "document")] if first.states("counts.docs") else []
    if first.settings.num_fewshot:
        said.append(counted(first.settings.num_fewshot, "shot"))
    return ", ".join([*said, *(["part of the task"] if table.is_partial else [])])


def _tables(table: Table, settings: Settings) -> list[str]:
    """Return one table of Markdown for each model; of results of other tools one for all, which are compared as models."""
    by_board: dict[str, list[Row]] = {}
    are_foreign = all(row.first.foreign is not None for row in table.rows)
    for row in table.rows:
        by_board.setdefault("" if are_foreign else row.board, []).append(row)
    return [line for rows in by_board.values() for line in _table(table, rows, settings)]


def _table(table: Table, rows: Sequence[Row], settings: Settings) -> list[str]:
    first = rows[0].first
    methods = [row for row in rows if not row.first.is_baseline]
    differing = options_that_differ([row.first for row in methods])
    metrics = [metric for metric in table.metrics if any((metric.name, metric.filter) in row.scores for row in rows)]
    main = [metric for metric in metrics if metric.name == MAIN_SCORE]
    metrics, hidden = (main, len(metrics) - len(main)) if main else (metrics, 0)
    with_code = len({row.code for row in methods}) > 1
    with_models = len({row.board for row in rows}) > 1
    header = [
        *(["model"] if with_models else []),
        "method",
        *(["code"] if with_code else []),
        *map(cell, differing),
        "seeds",
        *(_metric_title(metric) for metric in metrics),
    ]
    lines = [
        f"## {cell(first.task.name)}" + ("" if with_models else f" · {cell(first.model.name)}"),
        "",
        *_about(first.task.name, settings),
        cell(", ".join(facts(first, with_model=not with_models))) + ".",
        "",
    ]
    if table.is_partial:
        lines += ["Part of the task: not to be ranked with results on all of it.", ""]
    lines += [f"Note: {cell(note)}." for note in table.notes] + ([""] if table.notes else [])
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = _row(row, differing, metrics, with_code=with_code, with_rank=with_models)
        lines.append("| " + " | ".join([*([cell(_model(row))] if with_models else []), *cells]) + " |")
    below = [*_unranked(rows, metrics), *_noted(rows, metrics)]
    below += (
        [f"* {counted(hidden, 'more metric')}: on the page, or by `harness export --metric NAME`."] if hidden else []
    )
    return [*lines, *(["", *below] if below else []), ""]


def _about(task: str, settings: Settings) -> list[str]:
    """Return what a task measures, and its paper, as far as the board says so."""
    own = settings.tasks.get(task)
    said = (
        []
        if own is None
        else [*([cell(own.about)] if own.about else []), *([f"[Paper]({own.paper})"] if own.paper else [])]
    )
    return [" ".join(said), ""] if said else []


def _model(row: Row) -> str:
    return model_label(row.first) + (f" ({row.variant})" if row.variant else "")


def _row(
    row: Row, differing: Sequence[str], metrics: Sequence[Metric], *, with_code: bool, with_rank: bool
) -> list[str]:
    first, name = row.first, cell(row.label)
    options = ["" if first.is_baseline else cell(first.method.options.get(option, "")) for option in differing]
    if with_code:
        options.insert(0, "" if first.is_baseline else cell(row.code))
    if row.is_contradicted:
        name += CONTRADICTED
    cells = [f"**{name}**" if first.is_baseline and not row.is_contradicted else name, *options, str(len(row.sources))]
    scores = [row.scores.get((metric.name, metric.filter)) for metric in metrics]
    return cells + [_value(score) + (_rank(score) if with_rank else "") for score in scores]


def _rank(score: Score | None) -> str:
    if score is None or score.rank is None:
        return ""
    return f", rank {'=' if score.is_tied else ''}{score.rank}"


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


def _named(row: Row, rows: Sequence[Row]) -> str:
    """Return a row's method, where the rows are of several models with the model."""
    has_models = len({other.board for other in rows}) > 1
    return cell(f"{_model(row)}, {row.label}" if has_models else row.label)


def _unranked(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[str]:
    """Return a line for each reason why scores of a table, in italics there, take no rank."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for metric in metrics:
            score = row.scores.get((metric.name, metric.filter))
            if score is not None and score.unranked:
                reasons.setdefault(f"{_named(row, rows)}: {cell(score.unranked)}", []).append(cell(metric.title))
    return [f"* Not ranked, {reason} ({', '.join(titles)})" for reason, titles in reasons.items()]


def _noted(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[str]:
    """Return a line for each note on scores of a table, which bear a mark there."""
    noted: dict[str, list[str]] = {}
    for row in rows:
        for metric in metrics:
            score = row.scores.get((metric.name, metric.filter))
            for note in score.notes if score is not None else ():
                noted.setdefault(f"{_named(row, rows)}: {cell(note)}", []).append(cell(metric.title))
    return [f"* {NOTED} {note} ({', '.join(dict.fromkeys(titles))})" for note, titles in noted.items()]


def _metric_title(metric: Metric) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better]
    return cell(metric.title) + arrow
