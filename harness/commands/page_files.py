"""``--html`` of ``show`` and ``compare``: a page of one run, or of two sides, from records and samples to a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from harness.comparing.comparison import Comparison
    from harness.comparing.sides import Side
    from harness.records.record import Record
    from harness.showing.runs import Shown
    from harness.viewing.tokens import Tokens

# What argparse gives for ``--html`` without a file.
UNNAMED = Path()


def add_flag(parser: Any, what: str) -> None:
    """Declare ``--html [FILE]``."""
    parser.add_argument("--html", type=Path, nargs="?", const=UNNAMED, metavar="FILE",
                        help=f"write {what} as one HTML page that needs nothing else (without FILE: named here)")  # fmt: skip
    parser.add_argument("--tokens", nargs="?", const="", metavar="MODEL",
                        help="on the page, mark the tokens of prompts with the tokenizer of the run, or of MODEL")  # fmt: skip


def check_file(args: argparse.Namespace) -> None:
    """Raise ``HarnessError`` where a file is named that may not be written, before anything is read."""
    from harness.viewing import files

    if args.tokens is not None and args.html is None:
        raise HarnessError("--tokens marks tokens on a page; give --html, too")
    if _given(args) is not None:
        files.target(args.html, "")


def write_run(
    run: Shown, others: Sequence[tuple[Record, Path]], beside: Sequence[tuple[Record, Path]], contradicted: Sequence[str],
    args: argparse.Namespace,
) -> int:  # fmt: skip
    """Write the page of a run and say where; 1 when a sample file could not be read whole.

    Args:
        run: what ran.
        others: records beside it and their files, among which its baseline may be.
        beside: the records of the run that answered the same, the baseline or what ``--against`` names; empty for none.
        contradicted: a sentence for each score that does not follow.
    """
    from harness.records.labels import method_label
    from harness.redaction import redactor
    from harness.viewing import files, page, tasks

    path = files.target(_given(args), run.name)
    mine = tasks.given_by_task(list(zip(run.records, run.files, strict=True)))
    theirs = tasks.given_by_task(beside)
    names = [name for name in mine if args.task in (None, name)]
    if args.task is not None and not names:
        raise HarnessError(f"no task '{printable(args.task)}' in this run; there is {printable(', '.join(mine))}")
    groups = tasks.groups_of([record for record in run.records if record.task.group])
    asked = [
        tasks.Asked(name, groups.get(name, []), [*([theirs[name][:1]] if name in theirs else []), mine[name]])
        for name in names
    ]
    clean = redactor()
    reader = tasks.Reader(asked, clean, metric=args.metric, tokens=_tokens(run.records[0], args))
    label = clean(method_label(beside[0][0])) if any(name in theirs for name in names) else ""
    html = page.run_page(
        run,
        [record for record, _ in others],
        asked,
        reader,
        clean=clean,
        beside=label,
        contradicted=contradicted,
        place=path,
    )
    files.write(path, html)
    return _told(path, reader.problems)


def write_pair(sides: Sequence[Side], comparison: Comparison, args: argparse.Namespace, path: Path) -> int:
    """Write the page of a comparison and say where; 1 when a sample file could not be read whole.

    Args:
        sides: the two that were compared.
        comparison: of them.
        path: as ``pair_target`` gave it.
    """
    from harness.redaction import redactor
    from harness.viewing import files, page, tasks

    pairs = [[(sourced.record, sourced.file) for sourced in side.records] for side in sides]
    found = [tasks.given_by_task(each, seeds=True) for each in pairs]
    groups = tasks.groups_of([record for each in pairs for record, _ in each if record.task.group])
    compared = dict.fromkeys(row.task for row in comparison.rows)
    below = {member for task in compared for member, names in groups.items() if task in names}
    names = [name for name in found[0] if name in found[1] and (name in compared or name in below)]
    asked = [tasks.Asked(name, groups.get(name, []), [each[name] for each in found]) for name in names]
    clean, metric = redactor(), args.metrics[0] if args.metrics else None
    reader = tasks.Reader(asked, clean, metric=metric, tokens=_tokens(sides[-1].first, args))
    files.write(path, page.pair_page(comparison, asked, reader, clean=clean))
    return _told(path, reader.problems)


def pair_target(sides: Sequence[Side], args: argparse.Namespace) -> Path:
    """Return where the page of a comparison goes, checked before anything is computed.

    Raises:
        HarnessError: there are more than two sides, ``--format`` or ``--output`` is given, too, or the file may not be written.
    """
    from harness.viewing import files

    if len(sides) != 2:
        raise HarnessError(f"a page shows two sides beside each other, and these are {len(sides)}; name two of them")
    if args.format != "terminal" or args.output is not None:
        raise HarnessError("--html takes no --format and no --output; give one of them at a time")
    return files.target(_given(args), "-against-".join(Path(side.label).name for side in reversed(sides)))


def _given(args: argparse.Namespace) -> Path | None:
    return None if args.html == UNNAMED else args.html


def _tokens(record: Record, args: argparse.Namespace) -> Tokens | None:
    from harness.viewing import tokens

    return None if args.tokens is None else tokens.of_run(record, args.tokens or None)


def _told(path: Path, problems: Sequence[str]) -> int:
    for problem in problems:
        print(f"harness: {problem}", file=sys.stderr)
    size = path.stat().st_size
    print(f"wrote {printable(path)} ({f'{size / 1e6:.1f} MB' if size >= 1e6 else f'{size / 1e3:.0f} kB'})")
    return 1 if problems else 0
