"""A board to one HTML page that needs nothing else: tables, plots, details and the script that sorts and filters them.

Text from records reaches the page by two ways only: Jinja2, which escapes it, and a block of JSON, whose text the script
puts into the page as text. A content security policy refuses everything else, even if one of the two should fail.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import pages
from harness.board import details, plots, summary_grid
from harness.board.omissions import contradiction_sentences, omission_sentences
from harness.board.settings import Settings
from harness.board.tables import Board, Metric, Row, Score, Table
from harness.names import counted, printable
from harness.records.grouping import facts, weights_label
from harness.records.intervals import NORMAL
from harness.records.labels import NOTED, method_label

TEMPLATES = Path(__file__).parent / "templates"
COLUMNS = (
    ("rank", "Rank"),
    ("method", "Method"),
    ("model", "Model"),
    ("weights", "Weights"),
    ("score", "Score"),
    ("difference", "Difference [95 %] p"),
    ("seconds", "Seconds"),
    ("memory", "Memory"),
    ("changed", "Changed"),
    ("seeds", "Seeds"),
)
# Rows of a table that stand in the page before its script runs, and rows of tables that are open then.
FIRST_ROWS, MOST_OPEN_ROWS = 50, 300
MOST_PLOT_BYTES = 3_000_000
MOST_SUMMARY_ROWS = 300
ARROWS = {True: "↑", False: "↓", None: ""}
SIGNS = {True: 1, False: -1, None: 0}
MARKS = {"better": " ▲", "worse": " ▼", "": ""}

NARROW = "\u00a0"  # no line ends here

Cell = list[Any]  # [number to sort by or None, text, second line, class], the end left out where empty
EMPTY: list[Cell] = [[None, "–", "", ""], [None, "", "", ""], [None, "", "", ""]]


def render(board: Board, *, note: str = "", title: str = "", home: str = "", settings: Settings | None = None) -> str:
    """Return the page. The same records give the same bytes, whatever the clock says.

    Args:
        note: stands below the title.
        title: what the tables have in common.
        home: address of the page that leads here.
        settings: the board's own words.
    """
    settings = settings or Settings()
    collected = details.Details(board)
    views = list(_views(board, collected, settings))
    rows = sum(len(view["rows"]) for view in views)
    return pages.render_files(
        TEMPLATES,
        "page",
        title=title,
        home=home,
        board=settings,
        overview=overview(board, settings, [f"#{view['id']}" for view in views]),
        island=pages.as_markup(_island(views, collected)),
        tables=views,
        columns=[{"name": name, "title": title} for name, title in COLUMNS],
        selects=_selects(board),
        summary=summary(board),
        warnings=contradiction_sentences(board.omissions),
        count=f"{counted(rows, 'row')} in {counted(len(views), 'table')}",
        first_rows=FIRST_ROWS,
        left_out=omission_sentences(board.omissions),
        note=note,
    )


def overview(board: Board, settings: Settings, places: Sequence[str]) -> Any:
    """Return the summary as markup, empty without one; each task leads to the place of its table."""
    found = summary_grid.summary(board, settings)
    if not found.grids:
        return ""
    at = {id(table): place for table, place in zip(board.tables, places, strict=True)}
    grids = [
        {
            "title": grid.title,
            "heads": [(head.text, at.get(id(head.table), "")) for head in grid.heads],
            "rows": list(zip(grid.rows, grid.is_baseline, strict=True))[:MOST_SUMMARY_ROWS],
            "more": max(0, len(grid.rows) - MOST_SUMMARY_ROWS),
            "notes": grid.notes,
        }
        for grid in found.grids
    ]
    legend = [sentence.partition(": ") for sentence in found.legend]
    return pages.render_part(TEMPLATES, "summary", grids=grids, legend=legend)


def _island(views: Sequence[dict[str, Any]], collected: details.Details) -> str:
    return pages.json_island(
        {
            "columns": [name for name, _ in COLUMNS],
            "empty": EMPTY,
            "step": FIRST_ROWS,
            "tables": [{name: view[name] for name in ("id", "task", "metrics", "rows")} for view in views],
            "details": collected.rows,
            "seeds": collected.seeds,
            "pool": collected.pool,
            "noExamples": details.NO_EXAMPLES,
        }
    )


def _views(board: Board, collected: details.Details, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield what the page shows of each table."""
    shown_rows = plot_bytes = 0
    for number, table in enumerate(board.tables):
        rows = _ordered(table)
        owns, scores = [_own_cells(table, row) for row in rows], [_score_cells(table, row) for row in rows]
        is_open = not number or shown_rows + len(rows) <= MOST_OPEN_ROWS
        first = [_in_columns(own, cells[0] or EMPTY) for own, cells in zip(owns, scores, strict=True)][:FIRST_ROWS]
        shown_rows += len(rows) if is_open else 0
        pictures = _plots(table, f"t{number}") if plot_bytes < MOST_PLOT_BYTES else []
        plot_bytes += sum(len(svg) for group in pictures for _, svg in group)
        yield {
            "id": f"t{number}",
            "task": printable(table.first.task.name),
            "group": table.first.task.group,
            "partial": table.is_partial,
            "open": is_open,
            "facts": ", ".join(map(printable, facts(table.first, with_model=False))),
            "about": settings.tasks.get(table.first.task.name),
            "notes": _notes(table, has_plots=plot_bytes < MOST_PLOT_BYTES),
            "metrics": [_metric_view(metric) for metric in table.metrics],
            "sort": {1: "descending", -1: "ascending", 0: "none"}[SIGNS[table.metrics[0].higher_is_better]],
            "rows": [[*cells, collected.add(table, row)] for *cells, row in zip(owns, scores, rows, strict=True)],
            "first_rows": first if is_open else [],
            "all_shown": len(rows) <= FIRST_ROWS,
            "count": counted(len(rows), "row"),
            "plots": pictures,
        }


def _notes(table: Table, *, has_plots: bool) -> list[str]:
    notes = [f"{note[:1].upper()}{note[1:]}." for note in map(printable, table.notes)]
    for row in table.rows:
        for score in row.scores.values():
            notes += [f"{NOTED} {row.label}: {printable(note)}." for note in score.notes]
    notes = list(dict.fromkeys(notes))
    if table.is_partial:
        notes.insert(0, "Only part of the task was asked: these rows take no rank.")
    return notes if has_plots else [*notes, "No plots: the page would grow too large. Render fewer records for them."]


def _metric_view(metric: Metric) -> dict[str, Any]:
    way = metric.higher_is_better
    return {"title": printable(metric.title), "arrow": ARROWS[way], "sign": SIGNS[way]}


def _ordered(table: Table) -> list[Row]:
    """Return the rows with the best first by the first metric, what is not ranked after them, what is contradicted last."""
    metric = table.metrics[0]
    sign = SIGNS[metric.higher_is_better]

    def order(row: Row) -> tuple[bool, bool, float]:
        score = row.scores.get((metric.name, metric.filter))
        if score is None or score.value is None or score.unranked:
            return row.is_contradicted, True, 0.0
        return row.is_contradicted, False, -sign * float(f"{score.value:.8g}")

    return sorted(table.rows, key=order)


def _in_columns(own: Sequence[Cell], scores: Sequence[Cell]) -> list[Cell]:
    rank, score, difference = scores
    method, model, weights, *cost = own
    return [_filled(cell) for cell in (rank, method, model, weights, score, difference, *cost)]


def _filled(cell: Cell) -> Cell:
    return [*cell, "", "", ""][:4]


def _cell(number: float | None, text: str, second: str = "", name: str = "") -> Cell:
    cell: Cell = [number, text, second, name]
    while not cell[-1] and len(cell) > 2:
        cell.pop()
    return cell


def _own_cells(table: Table, row: Row) -> list[Cell]:
    model = row.first.model
    bits = "" if model.bits_per_weight is None else f"{model.bits_per_weight:.4g}{NARROW}bits/weight"
    changed, parameters = model.weights_changed, model.parameters
    share = f"{changed / parameters:.1%}" if changed and parameters else ""
    return [
        _cell(None, row.label, " · ".join(plots.option_texts(table, row))),
        _cell(None, printable(model.name), printable(row.variant)),
        _cell(None, printable(weights_label(row.first)), bits),
        _seconds(row) if row.first.states("cost") else _cell(None, "–"),
        _cell(row.peak_bytes, details.size(row.peak_bytes)),
        _cell(changed, details.number(changed), share),
        _cell(len(row.sources), str(len(row.sources))),
    ]


def _seconds(row: Row) -> Cell:
    each = row.seconds_a_document
    return _cell(_rounded(row.seconds), details.duration(row.seconds), f"{each:.2g}{NARROW}s/doc" if each else "")


def _score_cells(table: Table, row: Row) -> list[Any]:
    """Return rank, score and difference of each metric, 0 where the row has none."""
    found: list[Any] = []
    for metric in table.metrics:
        score = row.scores.get((metric.name, metric.filter))
        found.append(0 if score is None else _judged_cells(row, score))
    return found


def _judged_cells(row: Row, score: Score) -> list[Cell]:
    kind = "unranked" if score.unranked or row.is_contradicted else "baseline" if row.first.is_baseline else ""
    rank = (
        "✗"
        if score.is_contradicted
        else "–"
        if score.rank is None
        else f"={score.rank}"
        if score.is_tied
        else str(score.rank)
    )
    said = [
        *_error(score),
        *([] if score.deviation is None or score.is_contradicted else [f"sd{NARROW}{score.deviation:.4f}"]),
        *([printable(score.unranked)] if score.unranked else []),
    ]
    value = ("none" if score.value is None else f"{score.value:.4f}") + (f" {NOTED}" if score.notes else "")
    shown = _cell(_rounded(score.value), value, " · ".join(said), "unranked" if score.unranked else "")
    return [_cell(score.rank, rank, "", kind), shown, _difference_cell(score)]


def _error(score: Score) -> list[str]:
    """Return the standard error where it tells, else the 95 % interval, as every print of a board does; none of nonsense."""
    if score.is_contradicted:
        return []
    if score.interval is not None and score.interval.method != NORMAL:
        return [f"[{score.interval.low:.4f},{NARROW}{score.interval.high:.4f}]"]
    return [f"±{NARROW}{score.stderr:.4f}"] if score.stderr else []


def _difference_cell(score: Score) -> Cell:
    difference = score.difference
    if difference is None:
        return _cell(None, "")
    said = []
    if difference.low is not None and difference.high is not None:
        said.append(f"[{difference.low:.4f},{NARROW}{difference.high:.4f}]")
    if difference.p is not None:
        said.append(f"p{NARROW}{details.p_value(difference.p)}" + ("" if difference.is_paired else " unpaired"))
    if difference.is_identical:
        said.append("same score on every document")
    text = f"{difference.value:+.4f}{MARKS[difference.verdict]}"
    return _cell(_rounded(difference.value), text, " ".join(said), difference.verdict)


def _plots(table: Table, name: str) -> list[list[tuple[str, Any]]]:
    """Return for each metric the plots that have something to show, with their titles."""
    groups = []
    for number, metric in enumerate(table.metrics):
        title = printable(metric.title)
        drawn = [
            (f"{title}: difference to the baseline", plots.forest(table, metric, f"{name}-{number}-forest")),
            (f"{title} against seconds", plots.cost(table, metric, f"{name}-{number}-cost")),
            (f"{title} by seed", plots.seeds(table, metric, f"{name}-{number}-seeds")),
        ]
        groups.append([(said, pages.as_markup(svg)) for said, svg in drawn if svg])
    return groups


def _selects(board: Board) -> list[tuple[str, str, list[str]]]:
    rows = [row for table in board.tables for row in table.rows]
    return [
        ("task", "Task", list(dict.fromkeys(printable(table.first.task.name) for table in board.tables))),
        ("method", "Method", sorted({row.label for row in rows})),
        ("model", "Model", sorted({printable(row.first.model.name) for row in rows})),
        ("weights", "Weights", sorted({printable(weights_label(row.first)) for row in rows})),
    ]


def summary(board: Board) -> str:
    """Return how much a board holds, and from when."""
    tasks = len({table.first.task.name for table in board.tables})
    firsts = [row.first for table in board.tables for row in table.rows]
    parts = [
        counted(board.count, "record"),
        counted(tasks, "task"),
        counted(len({record.model.name for record in firsts}), "model"),
        counted(len({method_label(record) for record in firsts if not record.is_baseline}), "method"),
    ]
    days = sorted({record.created[:10] for record in firsts if re.match(r"\d{4}-\d\d-\d\d", record.created, re.ASCII)})
    if days:
        parts.append(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")
    return " · ".join(parts)


def _rounded(number: float | None) -> float | None:
    """Return the number with as many digits as sorting needs."""
    return None if number is None or not math.isfinite(number) else float(f"{number:.8g}")
