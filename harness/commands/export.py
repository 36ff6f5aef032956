"""``harness export``: scores for a spreadsheet or a program, and one table for a paper."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import HELP
from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from harness.records.ledger import Reading

SUFFIXES = {
    ".csv": "csv", ".json": "json", ".parquet": "parquet", ".md": "markdown", ".markdown": "markdown", ".tex": "latex",
    ".svg": "svg", ".pdf": "pdf", ".png": "png", ".bib": "bibtex",
}  # fmt: skip
FIGURES = ("svg", "pdf", "png")
SHAPES = ("table", "scores", "runs", "methods", "differences", "cost", "curve")
# The shapes that each form has, its default first.
FORMS = {
    **dict.fromkeys(("csv", "parquet"), ("scores", "runs")),
    "json": ("scores", "runs", "methods"),
    "markdown": ("table", "scores", "runs", "methods"),
    "latex": ("table", "methods"),
    "bibtex": ("methods",),
    **dict.fromkeys(FIGURES, ("differences", "cost", "curve")),
}
FILTERS = ("model", "weights", "method", "task")
EPILOG = """\
shapes:
  table   for a paper: methods as rows, the main metric of each task as columns, and a caption that says what every sign
          means (default for Markdown and LaTeX, and the only one that LaTeX has)
  scores  one row a score, seeds averaged: value, standard error, 95 % interval, difference to the baseline with p, rank
          (default for CSV, JSON and Parquet)
  runs    one row a score of each run, seeds apart, with costs and the key of its record
  methods sentences for a paper's section on methods: models, options, tasks, versions, statistics, with what to cite
          (Markdown, LaTeX, JSON; .bib is the BibTeX alone)
  differences  a figure: each method's difference to the untouched model with its 95 % interval, a panel a task (default for
          SVG, PDF and PNG; needs the extra plots)
  cost    a figure: scores against seconds, with the front of those that nothing beats at less
  curve   a figure: scores over a number, --over: an option such as steps, or the last number in the name of the model, adapter
          or revision, as of checkpoints; a line for each method that otherwise stays the same

examples:
  harness export                                            the table of results/, as Markdown
  harness export results -o table.tex -o scores.csv         both, each in the form of its ending
  harness export results leaderboards --task langgame --metric acc -o langgame.tex
  harness export results -o figure.pdf                      differences to the untouched model, drawn
  harness export results --over steps -o curve.svg          scores over steps of training
  harness export results --shape runs --format json | jq '.[].value'
  harness export results --shape methods -o methods.tex -o references.bib

In Python, harness.records.frame("results") is the same as --shape runs, as a pandas frame.
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export",
        help=HELP["export"],
        description="Write scores as CSV, JSON or Parquet, one table over all tasks as LaTeX (booktabs) or Markdown, or figures "
        "as SVG, PDF or PNG.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", type=Path, default=[Path("results")], metavar="PATH",
                        help="folders that hold records, or files of them (default results)")  # fmt: skip
    parser.add_argument(
        "--output", "-o", type=Path, metavar="FILE", action="append",
        help="write there instead of printing: .csv, .json, .parquet, .md, .tex, .svg, .pdf or .png; may be given several times",
    )  # fmt: skip
    parser.add_argument("--format", choices=sorted({*SUFFIXES.values()}),
                        help="what to print (default markdown), or to write into a FILE of another name")  # fmt: skip
    parser.add_argument("--shape", choices=SHAPES, help="what a row is, see below")
    for name in FILTERS:
        parser.add_argument(
            f"--{name}", action="append", metavar="NAME", help=f"only this {name}; may be given several times"
        )
    parser.add_argument("--metric", action="append", metavar="NAME",
                        help="only this metric, in a table instead of each task's first; several times if you like")  # fmt: skip
    parser.add_argument(
        "--over", metavar="NAME", default="", help="of a curve: the option, or model, adapter or revision"
    )
    parser.add_argument("--no-samples", "--no_samples", action="store_true",
                        help="do not read sample files: quick, but differences are unpaired")  # fmt: skip
    return parser


def execute(args: argparse.Namespace) -> int:
    """Write or print; 1 when a line was no record."""
    from harness.folders import write_atomic

    wanted = [(path, _format_of(path, args.format)) for path in args.output or []]
    kinds = [kind for _, kind in wanted] or [args.format or "markdown"]
    if args.over and args.shape is None:
        args.shape = "curve"
    if args.over and args.shape != "curve":
        raise HarnessError(f"--over is of --shape curve, not {args.shape}")
    for kind in kinds:
        if args.shape not in (None, *FORMS[kind]):
            raise HarnessError(f"there is no {kind} of --shape {args.shape}, but of {' and '.join(FORMS[kind])}")
    if not wanted and kinds[0] in ("parquet", *FIGURES):
        raise HarnessError(f"{kinds[0]} is no text to print; name a file with -o FILE.{kinds[0]}")
    reading = _chosen(_read(args.paths), args)
    made = {kind: _made(reading, kind, args) for kind in dict.fromkeys(kinds)}
    if not wanted:
        print(made[kinds[0]], end="")
    for path, kind in wanted:
        try:
            write_atomic(path, made[kind])
        except OSError as error:
            raise HarnessError(f"cannot write '{printable(path)}': {error.strerror or error}") from error
        print(f"wrote {printable(path)}")
    return 1 if reading.problems else 0


def _format_of(path: Path, given: str | None) -> str:
    known = SUFFIXES.get(path.suffix.lower())
    if known and given and known != given:
        raise HarnessError(f"'{printable(path)}' is {known} by its ending, and --format says {given}; say one of them")
    kind = known or given
    if kind is None:
        raise HarnessError(
            f"'{printable(path)}' ends in none of {', '.join(SUFFIXES)}; name the file so, or say what to write with --format"
        )
    return kind


def _read(paths: list[Path]) -> Reading:
    from harness.commands.reading import read

    reading = read(paths[0])
    for path in paths[1:]:
        more = read(path)
        reading.records += more.records
        reading.origins += more.origins
        reading.bad += more.bad
        reading.withdrawn += more.withdrawn
    if not reading.records:
        raise HarnessError(f"there are no records in {', '.join(printable(path) for path in paths)}")
    return reading


def _chosen(reading: Reading, args: argparse.Namespace) -> Reading:
    """Return the records that the filters let through.

    Raises:
        HarnessError: a filter lets none through; it says what there is.
    """
    from harness.records.frames import row

    rows = [row(record) for record in reading.records]
    kept = list(range(len(rows)))
    for name in (*FILTERS, "metric"):
        wanted = getattr(args, name)
        if not wanted:
            continue
        known = dict.fromkeys(str(rows[number][name]) for number in kept)
        for one in wanted:
            if one not in known:
                raise HarnessError(f"no record has {name} '{printable(one)}'; there are {printable(', '.join(known))}")
        if name != "metric":  # a run without it has to be known, so that a board can say so
            kept = [number for number in kept if str(rows[number][name]) in wanted]
    return replace(
        reading,
        records=[reading.records[number] for number in kept],
        origins=[reading.origins[number] for number in kept],
    )


def _made(reading: Reading, kind: str, args: argparse.Namespace) -> Any:
    from harness.board.board import build_reading
    from harness.exports import figures, formats, methods_section
    from harness.exports.paper import paper_table
    from harness.exports.tidy import score_rows
    from harness.records import frames

    shape = args.shape or FORMS[kind][0]
    if shape == "runs":
        rows = frames.rows(reading.records)
    else:
        board = build_reading(reading, with_samples=not args.no_samples)
        if shape == "methods":
            return methods_section.WRITERS[kind](methods_section.describe(board))
        if kind in FIGURES:
            return figures.draw(board, shape, kind, metrics=args.metric or (), over=args.over)
        if shape == "table":
            table = paper_table(board, metrics=args.metric or ())
            return formats.to_latex(table) if kind == "latex" else formats.to_markdown(table)
        rows = score_rows(board)
    rows = [row for row in rows if not args.metric or row["metric"] in args.metric]
    writers: dict[str, Any] = {
        "csv": formats.to_csv, "json": formats.to_json, "parquet": formats.to_parquet, "markdown": formats.rows_to_markdown
    }  # fmt: skip
    return writers[kind](rows)
