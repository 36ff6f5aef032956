"""One table for a paper: methods as rows, tasks as columns, and a caption that says what every sign means."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.board.board import Board, Metric, Row, Score, Table
from harness.errors import HarnessError
from harness.names import printable
from harness.records.grouping import method_text, table_content, weights_label
from harness.records.intervals import NORMAL
from harness.records.labels import model_label, told_methods

# How a score is better or worse than its baseline.
MARKS = {"better": "▲", "worse": "▼"}
DIGITS = 4
MODEL_DETAILS = ("files", "tokenizer", "prefix token", "model_args")
_DIGESTS = ("documents", "prompts")


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


@dataclass(frozen=True, slots=True)
class _Column:
    table: Table
    metric: Metric
    title: str
    task: str


def paper_table(board: Board, *, metrics: Sequence[str] = ()) -> PaperTable:
    """Return a board as one table over its tasks.

    Args:
        board: its tables become columns; tasks of a group are left out where their group is there.
        metrics: columns of each task, by name; without, the first that each task names.

    Raises:
        HarnessError: the board is empty, or no task has such a metric.
    """
    columns = _columns(board, metrics)
    models = _model_titles([row for column in columns for row in column.table.rows])
    by_row: dict[tuple[str, str, str], dict[int, Row]] = {}
    for number, column in enumerate(columns):
        for row in column.table.rows:
            if (column.metric.name, column.metric.filter) in row.scores:
                key = _identity(row, models[_model_of(row)])
                if number in by_row.get(key, {}):  # its prompts are others, as of a chat template that was changed
                    key = (f"{key[0]}, {row.variant}", *key[1:])
                by_row.setdefault(key, {})[number] = row
    told = _told(by_row)
    order = sorted(by_row, key=lambda key: (key[0], key[2] != "", list(by_row).index(key)))
    best = _best(columns, by_row)
    rows = [_paper_row(key, by_row[key], columns, told[key], best) for key in order]
    return PaperTable(_caption(columns, by_row, rows), tuple(column.title for column in columns), tuple(rows))


def _columns(board: Board, metrics: Sequence[str]) -> list[_Column]:
    members = {name for table in board.tables for name in table.first.task.members or ()}
    tables = [table for table in board.tables if table.first.task.name not in members]
    if not tables:
        raise HarnessError("there are no scores to make a table of")
    pairs = [
        (table, metric)
        for table in tables
        for metric in ([m for m in table.metrics if m.name in metrics] if metrics else table.metrics[:1])
    ]
    if not pairs:
        known = ", ".join(dict.fromkeys(metric.name for table in tables for metric in table.metrics))
        raise HarnessError(f"no task has a metric '{printable(', '.join(metrics))}'; there are {printable(known)}")
    return [
        _Column(table, metric, _title(table, metric, tables), _task_title(table, tables)) for table, metric in pairs
    ]


def _title(table: Table, metric: Metric, tables: Sequence[Table]) -> str:
    """Return task and metric, with what tells the task from others of its name."""
    arrow = {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better]
    return printable(f"{_task_title(table, tables)}, {metric.title}{arrow}")


def _task_title(table: Table, tables: Sequence[Table]) -> str:
    """Return the task, where others have its name with what tells them apart: words before digests."""
    twins = [table_content(other.first) for other in tables if other.first.task.name == table.first.task.name]
    own = table_content(table.first)
    found: list[str] = []
    for name in sorted(own, key=lambda name: name in _DIGESTS):
        groups = [len({json.dumps([each.get(n) for n in names], default=str) for each in twins})
                  for names in (found, [*found, name])]  # fmt: skip
        if groups[1] > groups[0]:
            found.append(name)
    said = [f"{name} {_short(own[name], is_digest=name in _DIGESTS)}" for name in found if own[name] is not None]
    return printable(table.first.task.name + (f" ({', '.join(said)})" if said else ""))


def _short(value: object, *, is_digest: bool) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)[: 12 if is_digest else None]


def _model_of(row: Row) -> tuple[str, ...]:
    """Return the model's name and weights, then what else tells one model from another: ``MODEL_DETAILS``."""
    first = row.first
    name = f"{model_label(first)}, {weights_label(first)}"
    args = json.dumps(first.settings.model_args, sort_keys=True, default=str)
    return name, first.model.digest, str(first.model.tokenizer_digest), str(first.tokenizer.prefix_token_id), args


def _model_titles(rows: Sequence[Row]) -> dict[tuple[str, ...], str]:
    """Return how each model is called: its name and weights, and what tells it from others called so."""
    models = dict.fromkeys(map(_model_of, rows))
    titles = {}
    for model in models:
        alike = [other for other in models if other[0] == model[0]]
        differ = [n for n, values in enumerate(zip(*alike, strict=True)) if len(set(values)) > 1]
        said = [f"{MODEL_DETAILS[n - 1]} {model[n] if n == len(MODEL_DETAILS) else model[n][:8]}" for n in differ]
        titles[model] = printable(", ".join([model[0], *said]))
    return titles


def _identity(row: Row, model: str) -> tuple[str, str, str]:
    """Return model, files and method: what a row is over all tasks; a baseline's method is empty."""
    return model, row.first.model.digest, "" if row.first.is_baseline else method_text(row.first)


def _told(by_row: Mapping[tuple[str, str, str], Mapping[int, Row]]) -> dict[tuple[str, str, str], str]:
    """Return the method of each row, with its options and, where those tell nothing apart, the plugin's code."""
    rows = [next(iter(found.values())) for found in by_row.values()]
    told = dict(zip(by_row, told_methods([row.first for row in rows]), strict=True))
    count = Counter((key[0], method) for key, method in told.items())
    codes = {key: printable(f", code {row.code}") for key, row in zip(by_row, rows, strict=True)}
    return {key: method + (codes[key] if count[key[0], method] > 1 else "") for key, method in told.items()}


def _best(columns: Sequence[_Column], by_row: Mapping[tuple[str, str, str], Mapping[int, Row]]) -> set[tuple[str, int]]:
    """Return the texts of the best values: of each model and column, told by ``(model and value, column)``."""
    found = set()
    for number, column in enumerate(columns):
        if column.metric.higher_is_better is None:
            continue
        by_model: dict[str, list[float]] = {}
        for (model, _, _), rows in by_row.items():
            score = _score(rows.get(number), column)
            if score is not None and score.value is not None and not score.unranked:
                by_model.setdefault(model, []).append(score.value)
        pick = max if column.metric.higher_is_better else min
        found |= {(f"{model} {pick(values)!r}", number) for model, values in by_model.items() if len(values) > 1}
    return found


def _score(row: Row | None, column: _Column) -> Score | None:
    return None if row is None else row.scores.get((column.metric.name, column.metric.filter))


def _paper_row(
    key: tuple[str, str, str],
    rows: Mapping[int, Row],
    columns: Sequence[_Column],
    method: str,
    best: set[tuple[str, int]],
) -> PaperRow:
    is_baseline = next(iter(rows.values())).first.is_baseline
    cells = [
        _cell(score, not score.unranked and (f"{key[0]} {score.value!r}", number) in best)
        if (score := _score(rows.get(number), c))
        else Cell()
        for number, c in enumerate(columns)
    ]
    return PaperRow(key[0], method, is_baseline, tuple(cells))


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


def places_of(error: float | None) -> int:
    """Return how many decimals a number with this error deserves: those of the error's first two digits, at most 4."""
    if not error or not math.isfinite(error):
        return DIGITS
    return min(max(1 - math.floor(math.log10(error)), 0), DIGITS)


def _caption(
    columns: Sequence[_Column], by_row: Mapping[tuple[str, str, str], Mapping[int, Row]], rows: Sequence[PaperRow]
) -> tuple[str, ...]:
    cells = [cell for row in rows for cell in row.cells]
    seeds = sorted({len(score.by_seed) for found in by_row.values() for n, row in found.items()
                    if (score := _score(row, columns[n])) is not None and not row.first.is_baseline})  # fmt: skip
    documents = [f"{column.task} {_documents(column.table)}" for column in columns]
    said = ["; ".join(dict.fromkeys(row.model for row in rows))]
    said.append("Documents: " + ", ".join(dict.fromkeys(documents)))
    if seeds:
        several = " to ".join(map(str, dict.fromkeys([seeds[0], seeds[-1]])))
        said.append("Methods: one seed" if several == "1" else f"Methods: mean over {several} seeds")
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
    used = [row.first.environment for found in by_row.values() for row in found.values()]
    lm_eval, own = (" and ".join(sorted({str(getattr(one, name)) for one in used})) for name in ("lm_eval", "harness"))
    said.append(f"lm-eval {lm_eval}, token-harness {own}")
    return tuple(f"{printable(sentence)}." for sentence in said)


def _documents(table: Table) -> str:
    first = table.first
    shots = first.settings.num_fewshot or 0
    return f"{first.counts.docs:,}" + (f" ({shots} shots)" if shots else "")
