"""One table for a paper: methods as rows, tasks as columns, and a caption that says what every sign means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.board.columns import Column, RowKey, columns_of, rows_over, score_of, told_rows
from harness.board.ranking import MARKS
from harness.board.tables import Board, Row, Score, Table
from harness.names import printable
from harness.records.intervals import NORMAL
from harness.records.labels import places_of, tool_label, untold_options
from harness.records.record import UNKNOWN


@dataclass(frozen=True, slots=True)
class Cell:
    """One score as text, rounded to its own uncertainty; empty where the row has none.

    Attributes:
        value: the number.
        error: its standard error over documents, or empty.
        interval: ``low, high`` where no standard error tells, or empty.
        mark: of ``MARKS``, or empty.
        is_unsound: it takes no rank.
        is_best: no other row of its model has a better number.
    """

    value: str = ""
    error: str = ""
    interval: str = ""
    mark: str = ""
    is_unsound: bool = False
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class PaperRow:
    """One method on one model."""

    model: str
    method: str
    is_baseline: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class PaperTable:
    """What is printed: the caption's sentences, titles of columns and rows; rows of one model stand together."""

    caption: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]

    @property
    def models(self) -> list[str]:
        """The models, in order; more than one is shown as a column."""
        return list(dict.fromkeys(row.model for row in self.rows))


def paper_table(board: Board, *, metrics: Sequence[str] = ()) -> PaperTable:
    """Return a board as one table over its tasks.

    Args:
        board: its tables become columns; tasks of a group are left out where their group is there.
        metrics: columns of each task, by name; without, the first that each task names.

    Raises:
        HarnessError: the board is empty, or no task has such a metric.
    """
    columns = columns_of(board.tables, metrics)
    by_row = rows_over(columns)
    told = told_rows(by_row)
    order = sorted(by_row, key=lambda key: (key.model, key.method != "", list(by_row).index(key)))
    best = _best(columns, by_row)
    rows = [_paper_row(key, by_row[key], columns, told[key], best) for key in order]
    return PaperTable(_caption(columns, by_row, rows), tuple(column.title for column in columns), tuple(rows))


def _best(columns: Sequence[Column], by_row: Mapping[RowKey, Mapping[int, Row]]) -> set[tuple[str, int]]:
    """Return the texts of the best values: of each model and column, told by ``(model and value, column)``."""
    found = set()
    for number, column in enumerate(columns):
        if column.metric.higher_is_better is None:
            continue
        by_model: dict[str, list[float]] = {}
        for key, rows in by_row.items():
            score = score_of(rows.get(number), column)
            if score is not None and score.value is not None and not score.unranked:
                by_model.setdefault(key.model, []).append(score.value)
        pick = max if column.metric.higher_is_better else min
        found |= {(f"{model} {pick(values)!r}", number) for model, values in by_model.items() if len(values) > 1}
    return found


def _paper_row(
    key: RowKey,
    rows: Mapping[int, Row],
    columns: Sequence[Column],
    method: str,
    best: set[tuple[str, int]],
) -> PaperRow:
    is_baseline = next(iter(rows.values())).first.is_baseline
    cells = [
        _cell(score, not score.unranked and (f"{key.model} {score.value!r}", number) in best)
        if (score := score_of(rows.get(number), c))
        else Cell()
        for number, c in enumerate(columns)
    ]
    return PaperRow(key.model, method, is_baseline, tuple(cells))


def _cell(score: Score, is_best: bool) -> Cell:
    if score.value is None:
        return Cell("none", is_unsound=True)
    mark = MARKS.get(score.difference.verdict, "") if score.difference else ""
    if score.interval is not None and score.interval.method != NORMAL:
        places = places_of((score.interval.high - score.interval.low) / 4)
        interval = f"{score.interval.low:.{places}f}, {score.interval.high:.{places}f}"
        return Cell(f"{score.value:.{places}f}", "", interval, mark, bool(score.unranked), is_best)
    places = places_of(score.stderr)
    error = f"{score.stderr:.{places}f}" if score.stderr else ""
    return Cell(f"{score.value:.{places}f}", error, "", mark, bool(score.unranked), is_best)


def _caption(
    columns: Sequence[Column], by_row: Mapping[RowKey, Mapping[int, Row]], rows: Sequence[PaperRow]
) -> tuple[str, ...]:
    cells = [cell for row in rows for cell in row.cells]
    seeds = sorted({len(score.by_seed) for found in by_row.values() for n, row in found.items()
                    if (score := score_of(row, columns[n])) is not None and not row.first.is_baseline})  # fmt: skip
    documents = [f"{column.task} {_documents(column.table)}" for column in columns]
    said = ["; ".join(dict.fromkeys(row.model for row in rows))]
    said.append("Documents: " + ", ".join(dict.fromkeys(documents)))
    if seeds:
        several = " to ".join(map(str, dict.fromkeys([seeds[0], seeds[-1]])))
        said.append("Methods: one seed" if several == "1" else f"Methods: mean over {several} seeds")
    said += untold_options([next(iter(found.values())).first for found in by_row.values()])
    if any(cell.error for cell in cells):
        said.append("±: standard error over documents, the mean of those of the seeds")
    if any(cell.interval for cell in cells):
        said.append("[ ]: 95 % interval, where documents are too few for a standard error to tell")
    if any(cell.mark for cell in cells):
        said.append(
            "▲, ▼: better, worse than the baseline of the same model (5 %, Holm's correction over the rows of a task)"
        )
    if any(cell.is_best for cell in cells):
        said.append("Bold: the best number of a model, which need not be shown to be better")
    if any(cell.is_unsound for cell in cells):
        said.append("In italics: not to be ranked, see the records")
    if any(column.table.is_partial for column in columns):
        said.append("Some tasks were asked in part: not to be compared with results on all of them")
    firsts = [row.first for found in by_row.values() for row in found.values()]
    used = [first.environment for first in firsts if first.foreign is None]
    lm_eval, own = (" and ".join(sorted({str(getattr(one, name)) for one in used})) for name in ("lm_eval", "harness"))
    said += [f"lm-eval {lm_eval}, token-harness {own}"] if used else []
    tools = sorted({tool_label(first) for first in firsts if first.foreign is not None})
    said += [f"Measured by {' and '.join(tools)}"] if tools else []
    return tuple(f"{printable(sentence)}." for sentence in said)


def _documents(table: Table) -> str:
    first = table.first
    shots = first.settings.num_fewshot or 0
    docs = f"{first.counts.docs:,}" if first.states("counts.docs") else UNKNOWN
    return docs + (f" ({shots} shots)" if shots else "")
