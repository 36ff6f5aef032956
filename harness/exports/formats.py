"""Rows and tables as text and files: CSV, JSON, Parquet, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.exports.paper import Cell, PaperRow, PaperTable
from harness.records import markdown

Rows = Sequence[Mapping[str, Any]]
# A longer name of a row stands in several lines.
LATEX_CHARACTERS = 30
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "[": "{[}", "]": "{]}", "*": "{*}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "▲": r"$^{\blacktriangle}$",
    "▼": r"$^{\blacktriangledown}$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "·": r"$\cdot$", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def to_csv(rows: Rows) -> str:
    """Return rows as CSV (RFC 4180, line ends of Unix); None is an empty field, numbers in full precision."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=_names(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def to_json(rows: Rows) -> str:
    """Return rows as one JSON list of objects."""
    return json.dumps(list(rows), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def to_parquet(rows: Rows) -> bytes:
    """Return rows as a Parquet file; a column without a single value is one of texts."""
    import pandas

    frame = pandas.DataFrame(list(rows), columns=_names(rows)).convert_dtypes()
    empty = [name for name in frame.columns if frame[name].isna().all()]
    return bytes(frame.astype(dict.fromkeys(empty, "string")).to_parquet(index=False))


def rows_to_markdown(rows: Rows) -> str:
    """Return rows as one wide Markdown table."""
    names = _names(rows)
    lines = ["| " + " | ".join(map(markdown.cell, names)) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = ["" if row[name] is None else markdown.cell(row[name]) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def to_markdown(table: PaperTable) -> str:
    """Return a paper's table as Markdown, its caption below."""
    has_models = len(table.models) > 1
    header = [*(["model"] if has_models else []), "method", *table.columns]
    lines = ["| " + " | ".join(map(markdown.cell, header)) + " |", "|" + "---|" * len(header)]
    for row in table.rows:
        named = [*([row.model] if has_models else []), row.method]
        lines.append("| " + " | ".join([*map(markdown.cell, named), *map(_markdown_cell, row.cells)]) + " |")
    return "\n".join([*lines, "", *(markdown.cell(sentence) for sentence in table.caption)]) + "\n"


def to_latex(table: PaperTable, *, label: str = "tab:results") -> str:
    """Return a paper's table as LaTeX: a ``table`` with booktabs' rules; it needs the packages booktabs and amssymb."""
    has_models = len(table.models) > 1
    width = 1 + len(table.columns)
    lines = [
        "% needs \\usepackage{booktabs,amssymb} and, for \\textquotedbl, \\usepackage[T1]{fontenc}",
        "\\begin{table}", "\\centering", "\\small", "\\setlength{\\tabcolsep}{4pt}",
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}", "\\toprule",
        " & ".join(["method", *map(_latex_head, table.columns)]) + r" \\",
    ]  # fmt: skip
    for model in table.models:
        lines.append("\\midrule")
        if has_models:
            lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\emph{{{latex(model)}}}}} \\\\")
        lines += [_latex_row(row) for row in table.rows if row.model == model]
    caption = " ".join(latex(sentence) for sentence in table.caption)
    ends = ["\\bottomrule", "\\end{tabular}", f"\\caption{{{caption}}}", f"\\label{{{label}}}", "\\end{table}"]
    return "\n".join([*lines, *ends]) + "\n"


def latex(text: str) -> str:
    """Return foreign text for LaTeX: nothing in it is a command."""
    return re.sub(r"[\\&%$#_{}\[\]*~^±▲▼↑↓·<>|\"]", lambda found: _LATEX[found[0]], text)


def _latex_head(title: str) -> str:
    """Return a head of a column, its metric in a line of its own: side by side they make columns too wide for a page."""
    task, comma, metric = title.rpartition(", ")
    return f"\\shortstack[r]{{{latex(task)} \\\\ {latex(metric)}}}" if comma else latex(title)


def _latex_name(text: str) -> str:
    """Return a row's name, a long one in lines of its own, which may end after each underscore."""
    if len(text) <= LATEX_CHARACTERS:
        return latex(text)
    broken = latex(text).replace(r"\_", r"\_\allowbreak{}")
    return f"\\parbox[t]{{0.34\\linewidth}}{{\\raggedright\\strut {broken}\\strut}}"


def _latex_row(row: PaperRow) -> str:
    return " & ".join([_latex_name(row.method), *map(_latex_cell, row.cells)]) + r" \\"


def _latex_cell(cell: Cell) -> str:
    value = f"\\textbf{{{cell.value}}}" if cell.is_best else cell.value
    value = f"\\emph{{{value}}}" if cell.is_unsound else value
    more = f" $\\pm$ {cell.error}" if cell.error else f" [{cell.interval}]" if cell.interval else ""
    return value + more + latex(cell.mark)


def _markdown_cell(cell: Cell) -> str:
    value = f"**{cell.value}**" if cell.is_best else cell.value
    value = f"*{value}*" if cell.is_unsound else value
    more = f" ± {cell.error}" if cell.error else f" [{cell.interval}]" if cell.interval else ""
    return value + more + (f" {cell.mark}" if cell.mark else "")


def _names(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else value
