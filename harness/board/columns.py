"""What stands side by side over tasks: which tables of a board become columns, and what they and their models are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.board.prompt_sets import Asked, named_sets
from harness.board.tables import Metric, Row, Score, Table
from harness.errors import HarnessError
from harness.names import printable
from harness.records.grouping import method_text, table_content, weights_label
from harness.records.labels import model_label, told_methods

MODEL_DETAILS = ("files", "tokenizer", "prefix token", "engine", "model_args")
# Of these, how much is said of what is a digest.
MODEL_DIGITS = {"files": 8, "tokenizer": 8}
ARROWS = {True: " ↑", False: " ↓", None: ""}
_DIGESTS = ("documents", "prompts")
_DIGITS = 8
# Of what a table asks, all that a group's own table shares with those of its members.
_OWN = ("task", "version", *_DIGESTS)


@dataclass(frozen=True, slots=True)
class Column:
    """One metric of one table. ``task`` tells the task from others of its name, ``title`` names the metric, too."""

    table: Table
    metric: Metric
    title: str
    task: str

    @property
    def key(self) -> tuple[str, str]:
        """Where a row keeps its score."""
        return self.metric.name, self.metric.filter


def columns_of(tables: Sequence[Table], metrics: Sequence[str] = ()) -> list[Column]:
    """Return the columns of some tables, in their order: of each the first metric it names, or those of ``metrics``.

    A task is left out where a group that it belongs to stands for all of its rows.

    Raises:
        HarnessError: there are no tables, or no task has such a metric.
    """
    if not tables:
        raise HarnessError("there are no scores to make a table of")
    inside = _inside_groups(tables)
    pairs = []
    for table in tables:
        for metric in [m for m in table.metrics if m.name in metrics] if metrics else table.metrics[:1]:
            if not any(metric.name in {m.name for m in group.metrics} for group in inside.get(id(table), ())):
                pairs.append((table, metric))
    if not pairs:
        known = ", ".join(dict.fromkeys(metric.name for table in tables for metric in table.metrics))
        raise HarnessError(f"no task has a metric '{printable(', '.join(metrics))}'; there are {printable(known)}")
    shown = list({id(table): table for table, _ in pairs}.values())
    found = []
    for table, metric in pairs:
        task = _task_title(table, shown)
        found.append(Column(table, metric, printable(f"{task}, {metric.title}{ARROWS[metric.higher_is_better]}"), task))
    return found


def _inside_groups(tables: Sequence[Table]) -> dict[int, list[Table]]:
    """Return for each table the groups' tables that stand for all of its rows, by the table's identity."""
    rows = {id(table): {_row_of(row) for row in table.rows} for table in tables}
    groups = [table for table in tables if table.first.task.members]
    found: dict[int, list[Table]] = {}
    for table in tables:
        for group in groups:
            is_member = table.first.task.name in (group.first.task.members or ()) and group is not table
            if is_member and rows[id(table)] <= rows[id(group)] and _asked(table) == _asked(group):
                found.setdefault(id(table), []).append(group)
    return found


def _asked(table: Table) -> str:
    content = table_content(table.first)
    return json.dumps({name: value for name, value in content.items() if name not in _OWN}, default=str, sort_keys=True)


def _row_of(row: Row) -> tuple[object, ...]:
    return *model_of(row), method_text(row.first)


def _task_title(table: Table, tables: Sequence[Table]) -> str:
    """Return the task, where others have its name with what tells them apart: words before digests, shots first."""
    twins = [table_content(other.first) for other in tables if other.first.task.name == table.first.task.name]
    own = table_content(table.first)
    found: list[str] = []
    for name in sorted(own, key=lambda name: (name in _DIGESTS, name != "num fewshot")):
        groups = [len({json.dumps([each.get(n) for n in names], default=str) for each in twins})
                  for names in (found, [*found, name])]  # fmt: skip
        if groups[1] > groups[0]:
            found.append(name)
    said = [said for name in found if (said := _detail(name, own[name]))]
    return printable(table.first.task.name + (f" ({', '.join(said)})" if said else ""))


def _detail(name: str, value: object) -> str:
    if name == "num fewshot":
        return f"{value or 0}-shot"
    if value is None:
        return ""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{name} {text[:12] if name in _DIGESTS else text}"


def model_of(row: Row) -> tuple[str, ...]:
    """Return the model's name and weights, then what else tells one model from another: ``MODEL_DETAILS``."""
    first = row.first
    name = model_label(first) + (f", {weights_label(first)}" if first.states("model.dtype") else "")
    args = json.dumps(first.settings.model_args, sort_keys=True, default=str)
    engine = (first.environment.engine or "torch").split()[0]
    return (
        name,
        first.model.digest,
        str(first.model.tokenizer_digest),
        str(first.tokenizer.prefix_token_id),
        engine,
        args,
    )


def model_titles(rows: Sequence[Row]) -> dict[tuple[str, ...], str]:
    """Return how each model of some rows is called: its name and weights, and what tells it from others called so."""
    models = dict.fromkeys(map(model_of, rows))
    titles = {}
    for model in models:
        alike = [other for other in models if other[0] == model[0]]
        differ = [n for n, values in enumerate(zip(*alike, strict=True)) if len(set(values)) > 1]
        said = [f"{name} {model[n][: MODEL_DIGITS.get(name)]}" for n in differ if (name := MODEL_DETAILS[n - 1])]
        titles[model] = printable(", ".join([model[0], *said]))
    return titles


def _parts(row: Row) -> tuple[int, int, int | None, str | None]:
    """Return what decides the model of a row: parts of records, which thousands of them share, by identity."""
    first = row.first
    return id(first.model), id(first.settings), first.tokenizer.prefix_token_id, first.environment.engine


def _titles_by_parts(rows: Sequence[Row]) -> dict[tuple[int, int, int | None, str | None], str]:
    some = {_parts(row): row for row in rows}
    titles = model_titles(list(some.values()))
    return {parts: titles[model_of(row)] for parts, row in some.items()}


@dataclass(frozen=True, slots=True)
class RowKey:
    """What a row is over all tasks: its model as people call it, the model's files, the method; a baseline's is empty.

    ``prompts`` tells a set of prompts from the first one of the same model, such as of another chat template; ``model`` names it,
    too.
    """

    model: str
    digest: str
    method: str
    prompts: str = ""


def rows_over(columns: Sequence[Column]) -> dict[RowKey, dict[int, Row]]:
    """Return each model and method of some columns, with its row of each column by number."""
    titles = _titles_by_parts([row for column in columns for row in column.table.rows])
    placed = [
        (number, (titles[_parts(row)], row.first.model.digest), row)
        for number, column in enumerate(columns)
        for row in column.table.rows
        if column.key in row.scores
    ]
    prompts = _prompts(columns, placed)
    found: dict[RowKey, dict[int, Row]] = {}
    for number, (title, digest), row in placed:
        method = "" if row.is_baseline else method_text(row.first)
        told = prompts[title, digest][number, row.board]
        found.setdefault(RowKey(f"{title}, {told}" if told else title, digest, method, told), {})[number] = row
    return found


def _prompts(
    columns: Sequence[Column], placed: Sequence[tuple[int, tuple[str, str], Row]]
) -> dict[tuple[str, str], dict[tuple[int, str], str]]:
    """Return for each model how its sets of prompts are called, by column and board: methods stand by their own baseline."""
    asked: dict[tuple[str, str], dict[tuple[int, str], Asked]] = {}
    for number, model, row in placed:
        first = min(row.sources)
        known = asked.setdefault(model, {}).setdefault(
            (number, row.board), Asked(number, row.board, first, row.variant, columns[number].task)
        )
        known.first = min(known.first, first)
        known.runs |= {row.first.run} if row.first.run else set()
    return {model: named_sets(several.values()) for model, several in asked.items()}


def told_rows(by_row: Mapping[RowKey, Mapping[int, Row]]) -> dict[RowKey, str]:
    """Return the method of each row, with its options and, where those tell nothing apart, what else is not the same."""
    rows = {key: next(iter(found.values())) for key, found in by_row.items()}
    told = dict(zip(rows, told_methods([row.first for row in rows.values()]), strict=True))
    alike: dict[tuple[str, str], list[RowKey]] = {}
    for key, method in told.items():
        alike.setdefault((key.model, method), []).append(key)
    for keys in alike.values():
        details = [_origins(rows[key]) for key in keys]
        differing: list[str] = []
        for name in details[0]:
            groups = [
                len({tuple(one[each] for each in some) for one in details}) for some in (differing, [*differing, name])
            ]
            differing += [name] if groups[1] > groups[0] else []
        for key, one in zip(keys, details, strict=True):
            told[key] = printable(", ".join([told[key], *(f"{name} {one[name]}" for name in differing)]))
    return told


def _origins(row: Row) -> dict[str, str]:
    """Return what of a row is no option: the plugin's code, the content of the files that options name, the package."""
    method, plugin = row.first.method, row.first.plugin
    options = json.dumps(method.options, sort_keys=True, default=str)
    return {
        "code": row.code,
        "files": (method.inputs or "unknown")[:_DIGITS],
        "package": str(plugin.distribution),
        # Two texts of one value, such as a list and its words: rare, and nothing else is left to tell them by.
        "options": hashlib.sha256(options.encode()).hexdigest()[:_DIGITS],
    }


def score_of(row: Row | None, column: Column) -> Score | None:
    """Return a row's score of a column, None where it has none."""
    return None if row is None else row.scores.get(column.key)
