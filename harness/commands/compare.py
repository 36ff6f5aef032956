"""``harness compare``: one method against another, on the same documents."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from harness.commands import HELP, page_files
from harness.errors import HarnessError
from harness.names import printable

EPILOG = """\
A side is a folder of results, a file of records, or words that select records in --records:
  baseline                     the untouched model
  stochastok                   a method or plugin
  scheme=none                  an option of the method; several with commas: scheme=none,steps=200
  stochastok,model=my-model    fields, too: method plugin version code model revision adapter quantization dtype digest
                               inputs seed run
  stochastok-7b8f07e4          a run, by the beginning of its name
  results/other:stochastok     selected in another folder
  stochastok@baseline          two sides: stochastok against the baseline of its own model and quantization

examples:
  harness compare stochastok@baseline --records results
  harness compare scheme=none,steps=50 scheme=stochastok,steps=50 --records leaderboards
  harness compare results-monday results-friday --format markdown --output comparison.md
  harness compare quantization=none quantization=nf4 --records results
  harness compare stochastok,quantization=nf4 stochastok --across quantization     the other stochastok: in full precision
  harness compare logs:model=openai/a logs:model=openai/b      logs of inspect, or what lm-eval, mteb, Every Eval Ever wrote
  harness compare baseline scheme=none scheme=stochastok --records results --tasks arc_easy,langgame
  harness compare stochastok@baseline --html                 both answers to every document, flips first, as one page

Differences are later sides less the first. The same documents are paired: McNemar's mid-p test where each is right or
wrong, a studentised bootstrap elsewhere, Holm's correction over the tasks. Verdicts: better, worse, no difference shown,
too few documents to tell (a difference of --margin would be missed more often than one time in five).
Exits with 0 when compared, 1 when a line was no record or a score does not follow, 2 when the sides do not compare.
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compare",
        help=HELP["compare"],
        description="Compare methods document by document. Records and samples are read; no plugin has to be installed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sides", nargs="+", metavar="SIDE", help="the first is what the others are compared with")
    parser.add_argument("--records", type=Path, default=Path("results"), metavar="FOLDER",
                        help="where sides without a path are looked up (default results)")  # fmt: skip
    parser.add_argument("--format", choices=("terminal", "markdown", "json"), default="terminal")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help="write there instead of printing")
    page_files.add_flag(parser, "the comparison, and both answers to every document,")
    parser.add_argument("--tasks", type=_names, default=(), metavar="NAMES", help="only these, separated by commas")
    parser.add_argument("--metrics", type=_names, default=(), metavar="NAMES", help="only these, separated by commas")
    parser.add_argument("--alpha", type=_share, default=0.05, metavar="SHARE",
                        help="chance of a wrong 'better' or 'worse' in a family of tasks (default 0.05)")  # fmt: skip
    parser.add_argument("--margin", type=_positive, metavar="X",
                        help="the smallest difference that matters (default 0.05 for scores from 0 to 1, else a tenth of the "
                        "standard deviation between documents)")  # fmt: skip
    parser.add_argument("--documents", type=int, default=10, metavar="N",
                        help="how many documents that changed most to show for each task (default 10)")  # fmt: skip
    parser.add_argument("--across", type=_names, default=(), metavar="FIELDS",
                        help="fields that may differ: model, adapter, quantization, dtype, tokenizer, prefix_token, prompts, "
                        "num_fewshot …")  # fmt: skip
    parser.add_argument("--allow-drift", action="store_true",
                        help="where the data of a task changed, compare the documents that both sides have")  # fmt: skip
    return parser


def execute(args: argparse.Namespace) -> int:
    """Compare and print; 1 when a line was no record, a file cannot be read, or a score is contradicted by its own samples."""
    from harness import plugins
    from harness.comparing import tables
    from harness.comparing.comparison import Request, compare
    from harness.comparing.completing import completed
    from harness.comparing.sides import Pool, find_sides

    page_files.check_file(args)
    pool = Pool(args.records)
    sides = find_sides(completed(args.sides, pool, args.across), pool)
    page = None if args.html is None else page_files.pair_target(sides, args)
    plugins.load_owners(sourced.record.metric.aggregation for side in sides for sourced in side.records)
    request = Request(
        alpha=args.alpha, margin=args.margin, tasks=args.tasks, metrics=args.metrics, across=args.across,
        allow_drift=args.allow_drift, documents=max(args.documents, 0),
    )  # fmt: skip
    comparison = compare(sides, request)
    for sentence in [*(f"passed over {entry}" for entry in pool.passed_over), *pool.problems]:
        print(f"harness: {sentence}", file=sys.stderr)
    for said in comparison.contradicted:
        print(f"harness: not compared: {said}", file=sys.stderr)
    status = 1 if pool.problems or comparison.contradicted else 0
    if page is not None:
        return max(status, page_files.write_pair(sides, comparison, args, page))
    if args.format == "terminal" and args.output is None:
        tables.to_terminal(comparison)
    else:
        make = {
            "terminal": tables.to_text, "markdown": tables.to_markdown, "json": tables.to_json
        }[args.format]  # fmt: skip
        _give(make(comparison), args.output)
    return status


def _give(text: str, output: Path | None) -> None:
    from harness.folders import write_atomic

    if output is None:
        print(text, end="")
        return
    try:
        write_atomic(output, text)
    except OSError as error:
        raise HarnessError(f"cannot write '{printable(output)}': {error.strerror or error}") from error


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
