"""The page itself: what ran or what the comparison says on top, below it the documents of each task.

Text from records and samples reaches the page by two ways only: Jinja2, which escapes it, and islands of JSON, whose text the
script puts into the page as text. A content security policy refuses everything else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from harness import pages
from harness.names import printable
from harness.records.labels import method_label, model_label, option_text, options_that_differ
from harness.records.run_notes import ARTEFACTS
from harness.run.summary import COLUMNS, WORDS, summary_notes, summary_rows
from harness.showing.runs import STAGE_COLUMNS, Shown, artefacts_of, report_lines, stage_rows, what_ran
from harness.viewing.files import MARK
from harness.viewing.tasks import Asked, Reader

if TYPE_CHECKING:
    from harness.comparing.comparison import Comparison
    from harness.records.record import Record

TEMPLATES = Path(__file__).parent / "templates"
MOST_LINES, MOST_REPORTS = 100, 20
# Of the table of a comparison: task and metric.
FIRST_CELLS = 2
PAGES = (".html", ".htm")

Clean = Callable[[str], str]


@dataclass(frozen=True)
class Section:
    """A part of the page above the documents: pairs of name and value, a table, or links.

    Attributes:
        numbers: columns of the table that stand to the right.
        links: title and address.
    """

    title: str
    pairs: Sequence[tuple[str, str]] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    numbers: frozenset[int] = frozenset()
    links: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    is_open: bool = False


def run_page(
    run: Shown, others: Sequence[Record], asked: Sequence[Asked], reader: Reader, *, clean: Clean, beside: str,
    contradicted: Sequence[str] = (), place: Path,
) -> str:  # fmt: skip
    """Return the page of one run.

    Args:
        run: what ran.
        others: where the records of its baseline may be found.
        asked: its tasks.
        reader: of their documents.
        clean: takes secrets out of a text.
        beside: who answered beside it, empty where nobody did.
        contradicted: a sentence for each score that does not follow.
        place: where the page will lie, from which links are followed.
    """
    record = run.records[0]
    label = clean(method_label(record))
    return _render(
        f"{label} on {clean(model_label(record))}",
        [printable(run.name)],
        list(_of_run(run, others, clean, place)),
        [f"Does not follow: {said}" for said in contradicted],
        [*([beside] if beside else []), label],
        asked,
        reader,
        is_pair=False,
    )


def pair_page(comparison: Comparison, asked: Sequence[Asked], reader: Reader, *, clean: Clean) -> str:
    """Return the page of two sides: the statistics of ``harness compare``, then the documents, those that flipped first.

    Args:
        comparison: of two sides.
        asked: the tasks that were compared.
        reader: of their documents.
        clean: takes secrets out of a text.
    """
    labels = [clean(printable(side.label)) for side in comparison.sides]
    differing = options_that_differ([side.first for side in comparison.sides])
    about = [
        f"{label}: {clean(_who(side.first, differing))}" for label, side in zip(labels, comparison.sides, strict=True)
    ]
    return _render(
        clean(_heading(comparison)), about, list(_of_comparison(comparison, clean)),
        [f"Not compared: {said}" for said in comparison.contradicted], _ends(labels), asked, reader, is_pair=True,
    )  # fmt: skip


def _render(
    title: str, about: Sequence[str], sections: Sequence[Section], warnings: Sequence[str], sides: Sequence[str],
    asked: Sequence[Asked], reader: Reader, *, is_pair: bool,
) -> str:  # fmt: skip
    tasks = [reader.task(one) for one in asked]
    head = {"sides": sides, "isPair": is_pair, "tasks": tasks, "tokens": reader.said_of_tokens}
    return pages.render_files(
        TEMPLATES,
        "view",
        scripts=("marking",),
        mark=MARK,
        title=title,
        about=about,
        sections=sections,
        warnings=[printable(said) for said in warnings],
        tasks=tasks,
        head=pages.as_markup(pages.json_island(head)),
        islands=[(kind, pages.as_markup(text)) for kind, text in reader.islands.found],
    )


def _of_run(run: Shown, others: Sequence[Record], clean: Clean, place: Path) -> Iterator[Section]:
    shown = [n for n, column in enumerate(COLUMNS) if column != "method"]  # it is the title
    rows = [[clean(row[n]) for n in shown] for row in summary_rows(run.records, others)]
    header = [COLUMNS[n] for n in shown]
    numbers = frozenset(n for n, column in enumerate(header) if column not in WORDS)
    notes = [clean(note) for note in summary_notes(run.records, others)]
    yield Section("Scores", header=header, rows=rows, numbers=numbers, notes=notes, is_open=True)
    yield Section("What ran", pairs=_pairs(what_ran(run), clean))
    stages = [[clean(printable(cell)) for cell in row] for row in stage_rows(run.records)]
    yield Section("Time, memory and counts", header=STAGE_COLUMNS, rows=stages,
                  numbers=frozenset(range(1, len(STAGE_COLUMNS))))  # fmt: skip
    left = list(artefacts_of(run.folder))
    report = list(report_lines(run.records[0].report)) if run.records[0].report else []
    if left or report:
        yield Section(
            "What the method left", pairs=_pairs([*report[:MOST_LINES], *left[:MOST_LINES]], clean),
            links=list(_links(run.folder, left, place)),
        )  # fmt: skip


def _links(folder: Path | None, left: Sequence[tuple[str, str]], place: Path) -> Iterator[tuple[str, str]]:
    """Yield the method's own pages, as addresses from where the page will lie."""
    names = [name for name, _ in left if name.endswith(PAGES)]
    for name in names[:MOST_REPORTS] if folder is not None else ():
        assert folder is not None
        try:
            address = os.path.relpath((folder / ARTEFACTS / name).resolve(), place.resolve().parent)
        except ValueError:  # another drive
            continue
        yield printable(name), quote(Path(address).as_posix(), safe="/")


def _of_comparison(comparison: Comparison, clean: Clean) -> Iterator[Section]:
    from dataclasses import replace

    from harness.comparing.tables import legend, tables_of

    # The documents stand below, all of them.
    bare = replace(comparison, rows=tuple(replace(row, changes=()) for row in comparison.rows))
    for number, table in enumerate(tables_of(bare)):
        notes = [legend(comparison), *(clean(printable(note)) for note in comparison.notes)] if not number else []
        order = list(range(len(table.header)))
        if not number:  # the verdict is in sight without scrolling
            order = [*order[:FIRST_CELLS], order[-1], *order[FIRST_CELLS:-1]]
        header, *rows = [[clean(printable(row[n])) for n in order] for row in (table.header, *table.rows)]
        numbers = frozenset(place for place, n in enumerate(order) if n in table.numbers)
        yield Section(printable(table.title) or "Comparison", header=header, rows=rows, numbers=numbers,
                      notes=notes, is_open=not number)  # fmt: skip


def _heading(comparison: Comparison) -> str:
    from harness.comparing.tables import heading

    return heading(comparison, printable)


def _ends(labels: Sequence[str]) -> list[str]:
    """Return the names of two sides without the folders that both lie in."""
    parts = [label.split("/") for label in labels]
    shared = 0
    while all(len(each) > shared + 1 for each in parts) and len({each[shared] for each in parts}) == 1:
        shared += 1
    return ["/".join(each[shared:]) for each in parts]


def _who(record: Record, differing: Sequence[str]) -> str:
    """Return who a side is, with the options in which it differs from the other where both have options."""
    told = [name for name in differing if name in record.method.options] if record.method.options else []
    options = ", ".join(f"{name}={option_text(record.method.options[name])}" for name in told)
    return printable(f"{method_label(record)} on {model_label(record)}" + (f" ({options})" if options else ""))


def _pairs(lines: Sequence[tuple[str, Any]], clean: Clean) -> list[tuple[str, str]]:
    return [(printable(name), clean(printable("none" if value is None else value))) for name, value in lines]
