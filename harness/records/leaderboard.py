"""Records to Markdown: a pure function, one table for each task and model."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

from harness.names import printable
from harness.records.record import Record
from harness.summary import method_label, options_that_differ

Rows = dict[str, list[Record]]


def render(records: Sequence[Record]) -> str:
    """Return the leaderboard of ``records``: tables by task and model, methods as rows, metrics as columns.

    Records of one method with the same options stand in one row, averaged over seeds. Values are compared only within
    a table: records whose model, task version, documents, shots, limit or prompts differ get tables of their own.
    """
    if not records:
        return "# Leaderboard\n\nNo records yet.\n"
    boards: dict[str, list[Record]] = {}
    for record in records:
        boards.setdefault(record.board_key(), []).append(record)
    ordered = sorted(boards.values(), key=_board_order)
    return "\n".join(["# Leaderboard", "", *(line for board in ordered for line in _board(board))])


def _board_order(board: Sequence[Record]) -> tuple[str, ...]:
    first = board[0]
    return (
        (not first.task.group and "~") or "",
        first.task.name,
        first.model.name,
        first.model.quantization,
        first.board_key(),
    )


def _board(records: Sequence[Record]) -> list[str]:
    first = records[0]
    metrics = list(dict.fromkeys((record.metric.name, record.metric.filter) for record in records))
    rows = _rows(records)
    differing = options_that_differ([record for record in records if not record.is_baseline])
    arrows = {(r.metric.name, r.metric.filter): r.metric.higher_is_better for r in records}
    codes = {_code(record) for record in records if not record.is_baseline}
    header = [
        "method",
        *(["code"] if len(codes) > 1 else []),
        *map(_cell, differing),
        "seeds",
        *(_metric_title(metric, arrows[metric]) for metric in metrics),
    ]
    lines = [f"## {_cell(first.task.name)} · {_cell(first.model.name)}", "", _facts(first), ""]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in sorted(rows.values(), key=lambda row: (not row[0].is_baseline, row[0].method.name, row[0].run_key())):
        lines.append("| " + " | ".join(_row(row, differing, metrics, with_code=len(codes) > 1)) + " |")
    return [*lines, ""]


def _rows(records: Sequence[Record]) -> Rows:
    """Group records by method, code and options, leaving the seeds out."""
    rows: Rows = {}
    for record in records:
        options = sorted((name, str(value)) for name, value in record.method.options.items())
        key = str(
            (
                record.plugin.name,
                record.plugin.version,
                _code(record),
                record.method.name,
                record.method.inputs,
                options,
            )
        )
        rows.setdefault(key, []).append(record)
    return rows


def _code(record: Record) -> str:
    """Return version and code of the plugin: results of edited code are results of another method."""
    return f"{record.plugin.version} {(record.plugin.code_digest or '')[:6]}".strip()


def _row(
    records: Sequence[Record], differing: Sequence[str], metrics: Sequence[tuple[str, str]], *, with_code: bool
) -> list[str]:
    first = records[0]
    name = _cell(method_label(first))
    options = ["" if first.is_baseline else _cell(first.method.options.get(option, "")) for option in differing]
    if with_code:
        options.insert(0, "" if first.is_baseline else _cell(_code(first)))
    seeds = len({record.seeds.random for record in records})
    cells = [f"**{name}**" if first.is_baseline else name, *options, str(seeds)]
    return cells + [_value([r for r in records if (r.metric.name, r.metric.filter) == metric]) for metric in metrics]


def _value(records: Sequence[Record]) -> str:
    """Return the mean over seeds ± the mean standard error over documents, and the deviation between seeds."""
    if not records:
        return ""
    newest = {record.key(): record for record in sorted(records, key=lambda record: record.created)}.values()
    values = [record.value for record in newest]
    errors = [record.stderr for record in newest if record.stderr is not None]
    text = f"{statistics.fmean(values):.4f}"
    if errors:
        text += f" ± {statistics.fmean(errors):.4f}"
    return text + (f" (sd {statistics.stdev(values):.4f})" if len(values) > 1 else "")


def _facts(record: Record) -> str:
    """Return what all records of a board share, in one line."""
    model, settings = record.model, record.settings
    facts = [
        f"task version {record.task.version}",
        f"{record.counts.docs} documents" + (f" (limit {settings.limit:g})" if settings.limit is not None else ""),
        f"{settings.num_fewshot or 0} shots",
        model.dtype if model.quantization == "none" else f"{model.quantization} ({model.dtype})",
    ]
    if model.bits_per_weight is not None:
        facts.append(f"{model.bits_per_weight:g} bits per weight measured")
    facts.append(f"model {model.digest[:12]}")
    facts.append(f"documents {record.task.docs_digest}")
    unusual = settings.model_dump(exclude={"num_fewshot", "limit", "metadata"}, exclude_defaults=True)
    facts += [f"{name.replace('_', ' ')} {value}" for name, value in unusual.items()]
    if record.fewshot_seed is not None:
        facts.append(f"shots drawn with seed {record.fewshot_seed}")
    if record.tokenizer.prefix_token_id is not None:
        facts.append(f"prefix token {record.tokenizer.prefix_token_id}")
    return _cell(", ".join(facts)) + "."


def _metric_title(metric: tuple[str, str], higher_is_better: bool | None) -> str:
    name, filter_name = metric
    arrow = {True: " ↑", False: " ↓", None: ""}[higher_is_better]
    return _cell(name if filter_name == "none" else f"{name} ({filter_name})") + arrow


def _cell(text: object) -> str:
    """Return foreign text for Markdown: no control characters, nothing that ends a cell or becomes markup."""
    shown = printable("none" if text is None else text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # An underscore inside a word is no markup, and most names have some.
    return re.sub(r"[\\`*\[\]|#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", shown)
