"""A comparison as tables on a terminal, as Markdown and as JSON."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from harness.comparing.comparison import (
    BETTER,
    DOES_NOT_FOLLOW,
    NOT_TESTED,
    WORSE,
    Comparison,
    Score,
    TaskComparison,
    is_small,
)
from harness.comparing.sides import Side
from harness.names import printable
from harness.records.labels import method_label
from harness.records.markdown import cell
from harness.records.statistics import BOOTSTRAP, MCNEMAR

FORM, VERSION = "token-harness comparison", 1
COLOURS = {BETTER: "bold green", WORSE: "bold red", NOT_TESTED: "dim", DOES_NOT_FOLLOW: "bold red"}
TERMINAL_QUESTION, TERMINAL_ANSWER = 120, 80
WIDTH_WITHOUT_TERMINAL = 200


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text; ``numbers``: columns that stand to the right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()


def to_json(comparison: Comparison) -> str:
    """Return the comparison as JSON, all characters ASCII and no NaN in it."""
    content = {
        "form": FORM,
        "version": VERSION,
        "alpha": comparison.alpha,
        "family": "Holm's correction: all tasks and sides of one metric, groups apart",
        "sides": [
            _side(side) | {"cost": asdict(cost)} for side, cost in zip(comparison.sides, comparison.costs, strict=True)
        ],
        "comparisons": [_row(row) for row in comparison.rows],
        "notes": list(comparison.notes),
        "contradicted": list(comparison.contradicted),
    }
    return json.dumps(_finite(content), indent=1, allow_nan=False, default=str) + "\n"


def _row(row: TaskComparison) -> dict[str, Any]:
    content = asdict(row)
    for side in ("first", "second"):
        del content[side]["known"]
    return content


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown, foreign text escaped."""
    lines = [f"# {heading(comparison, cell)}", ""]
    for table in tables_of(comparison):
        lines += [f"## {cell(table.title)}", ""] if table.title else []
        lines.append("| " + " | ".join(map(cell, table.header)) + " |")
        lines.append("|" + "".join("---:|" if i in table.numbers else "---|" for i in range(len(table.header))))
        lines += ["| " + " | ".join(map(cell, row)) + " |" for row in table.rows]
        lines.append("")
    lines += [f"{legend(comparison)}", ""]
    lines += [*(f"* {cell(note)}" for note in comparison.notes), ""] if comparison.notes else []
    return "\n".join(lines)


def to_terminal(comparison: Comparison, file: TextIO | None = None) -> None:
    """Print the comparison."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=file or sys.stdout, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    console.print(Text(heading(comparison, printable), style="bold"))
    for table in tables_of(comparison, question=TERMINAL_QUESTION, answer=TERMINAL_ANSWER):
        title = Text(printable(table.title), style="italic") if table.title else None
        shown = RichTable(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for i, column in enumerate(table.header):
            justify: Any = "right" if i in table.numbers else "left"
            shown.add_column(Text(printable(column)), justify=justify, overflow="fold", no_wrap=i in table.numbers)
        for row in table.rows:
            shown.add_row(*(Text(printable(text), style=COLOURS.get(text, "")) for text in row))
        console.print(shown)
    console.print(Text(legend(comparison)))
    for note in comparison.notes:
        console.print(Text(f"- {printable(note)}"))


def to_text(comparison: Comparison) -> str:
    """Return what ``to_terminal`` prints, without colours."""
    file = io.StringIO()
    to_terminal(comparison, file)
    return "".join(line.rstrip() + "\n" for line in file.getvalue().splitlines())


def heading(comparison: Comparison, escape: Any) -> str:
    """Return who is compared with whom, in the words of the command line, each made safe by ``escape``."""
    first, *others = (escape(side.label) for side in comparison.sides)
    return f"{', '.join(others)} against {first}"


def legend(comparison: Comparison) -> str:
    """Return what the columns mean, as far as this comparison needs it."""
    rows, level = comparison.rows, f"{100 * (1 - comparison.alpha):g} %"
    families = {(row.metric, row.filter, row.is_group) for row in rows if row.p is not None}
    tested = sum(row.p is not None for row in rows)
    said = [
        f"difference: second less first, with its {level} interval, each by itself: it goes with p, not with p Holm"
    ]
    if tested:
        said.append(
            f"p: {' or '.join(_tests(rows))}, Holm-corrected over the tasks and sides of a metric, groups apart"
        )
        said[-1] += f" ({tested} tests in {len(families)} {'family' if len(families) == 1 else 'families'})"
        said.append(
            "detectable: the smallest true difference found with 80 % probability; margin: the smallest that matters"
        )
    if any(not row.is_paired for row in rows):
        said.append(
            "unpaired: from the intervals of both scores, as if the documents were others; much wider than a paired interval"
        )
    if any(len(score.by_seed) > 1 for row in rows for score in (row.first, row.second)):
        said.append(
            "several seeds: each document's mean over them; what seeds vary is in a table of its own, in no interval"
        )
    return "; ".join(said) + "."


def _tests(rows: Sequence[TaskComparison]) -> list[str]:
    return [test for test in (MCNEMAR, BOOTSTRAP) if any(row.test == test for row in rows)]


def tables_of(comparison: Comparison, *, question: int | None = None, answer: int | None = None) -> Iterator[Table]:
    """Yield the tables of a comparison: scores and tests, variation over seeds, costs, and the documents of each task.

    Args:
        question: how many characters of a document's question are shown, its end; None for all that was kept.
        answer: the same of answers and targets, their beginning.
    """
    yield _main_table(comparison)
    if any(len(score.by_seed) > 1 for row in comparison.rows for score in (row.first, row.second)):
        yield _seeds_table(comparison)
    if (costs := _costs_table(comparison)).rows:
        yield costs
    yield from (_changes_table(comparison, row, question, answer) for row in comparison.rows if row.changes)


def _main_table(comparison: Comparison) -> Table:
    first, *others = comparison.sides
    is_several, interval = len(others) > 1, f"{100 * (1 - comparison.alpha):g} % interval, not adjusted"
    header = ["task", "metric", *(["side"] if is_several else []), "docs", first.label]
    header += ["the side" if is_several else others[0].label, "difference", interval]
    header += ["p", "p Holm", "detectable", "margin", "up, down", "verdict"]
    rows = []
    for row in comparison.rows:
        arrow = {True: " ↑", False: " ↓", None: ""}[row.higher_is_better]
        cells = [
            row.task,
            row.metric_title + arrow,
            *([row.side] if is_several else []),
            f"{row.documents:,}" if row.documents else "",
        ]
        cells += [f"{row.first.value:.4f}", f"{row.second.value:.4f}", f"{row.difference:+.4f}", _interval(row)]
        cells += [_p(row.p), _p(row.p_holm), _number(row.detectable), _number(row.margin)]
        cells += [
            "" if row.up is None else f"{row.up:,}, {row.down:,}",
            row.verdict + (", within the margin" if is_small(row) else ""),
        ]
        rows.append(tuple(cells))
    start = 3 if is_several else 2
    return Table("", tuple(header), tuple(rows), frozenset(range(start, len(header) - 1)))


def _seeds_table(comparison: Comparison) -> Table:
    first = comparison.sides[0].label
    scores: dict[tuple[str, ...], Score] = {}
    for row in comparison.rows:
        for label, score in ((first, row.first), (row.side, row.second)):
            if len(score.by_seed) > 1:
                scores.setdefault((row.task, row.metric_title, label), score)
    rows = [
        (
            *names, str(len(score.by_seed)), f"{score.value:.4f}", _number(score.deviation), _number(score.stderr or None),
            ", ".join(f"{seed}: {value:.4f}" for seed, value in score.by_seed),
        )
        for names, score in scores.items()
    ]  # fmt: skip
    header = ("task", "metric", "side", "seeds", "mean", "sd over seeds", "se over documents", "by seed")
    return Table("Variation over seeds", header, tuple(rows), frozenset(range(3, 7)))


def _costs_table(comparison: Comparison) -> Table:
    rows = []
    for side, cost in zip(comparison.sides, comparison.costs, strict=True):
        if not side.first.states("cost"):
            continue
        trained = "" if cost.tokens_trained is None else f"{cost.tokens_trained:,.0f}"
        seconds = f"{cost.apply_seconds:,.1f}", f"{cost.evaluate_seconds:,.1f}"
        rows.append((side.label, *seconds, _size(cost.apply_peak_bytes), _size(cost.evaluate_peak_bytes), trained))
    header = ("side", "apply s", "evaluate s", "apply peak", "evaluate peak", "tokens trained")
    return Table("Cost of a seed", header, tuple(rows), frozenset(range(1, 6)))


def _changes_table(comparison: Comparison, row: TaskComparison, question: int | None, answer: int | None) -> Table:
    first = comparison.sides[0].label
    rows = [
        (
            change.document,
            _end(change.question, question),
            _start(change.target, answer),
            _start(change.first_answer, answer),
            _start(change.second_answer, answer),
            f"{change.first_score:.4g} → {change.second_score:.4g}",
        )
        for change in row.changes
    ]
    title = f"{row.task} · {row.metric_title}: documents that changed most"
    header = ("document", "question", "target", first, row.side, "score")
    return Table(title, header, tuple(rows), frozenset({0}))


def _side(side: Side) -> dict[str, Any]:
    record = side.first
    return {
        "label": side.label,
        "method": method_label(record),
        "options": dict(record.method.options),
        "plugin": record.plugin.model_dump(mode="json"),
        "model": record.model.name,
        "model_digest": record.model.digest,
        "foreign": None if record.foreign is None else record.foreign.model_dump(mode="json"),
        "dtype": record.model.dtype,
        "quantization": record.model.quantization,
        "seeds": sorted({sourced.record.seeds.random for sourced in side.records}, key=str),
    }


def _interval(row: TaskComparison) -> str:
    if row.low is None or row.high is None:
        return ""
    return f"{row.low:+.4f}, {row.high:+.4f}" + ("" if row.is_paired else " unpaired")


def _p(p: float | None) -> str:
    return "" if p is None else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _size(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.0f} MB"


def _start(text: str, most: int | None) -> str:
    return text if most is None or len(text) <= most else text[:most] + "…"


def _end(text: str, most: int | None) -> str:
    return text if most is None or len(text) <= most else "…" + text[-most:]


def _finite(value: Any) -> Any:
    """Return JSON values with None where a float is NaN or infinite."""
    if isinstance(value, dict):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
