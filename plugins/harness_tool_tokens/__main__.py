"""``python -m harness_tool_tokens``: the calls in a run's answers as tables and a page; tools listed, and called by hand."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import own
from harness.errors import HarnessError
from harness.names import printable, suggestion

if TYPE_CHECKING:
    from rich.console import Console

    from harness_tool_tokens.report.calls import Report
    from harness_tool_tokens.tools.tool import Tool
    from harness_tool_tokens.tools.toolbox import Toolbox

EPILOG = """\
examples:
  python -m harness_tool_tokens calls results                      # which tools were called, rightly or not
  python -m harness_tool_tokens calls results --output calls.html  # and each answer, with its calls at their places
  python -m harness_tool_tokens tools                              # the thirteen arithmetic tools
  python -m harness_tool_tokens tools --tools my_tools.py          # your own, as the method sees them
  python -m harness_tool_tokens call divide "1, 3"                 # run a tool as an answer would
"""
CALLS_EPILOG = """\
how to read it:
  Calls and right calls are compared in order, by their tools: as many as possible meet one of the same tool.
  due         times that the tool should have been called
  right       calls that meet a right one of the same tool
  wrong tool  calls that meet a right one of another tool
  missed      right calls that meet none
  false       calls that meet none
  syntax ...  calls that failed, by kind; a failed call counts as right or wrong, too, since choosing it was a choice
  mean margin logits by which the tool was ahead of the best word, bias included, over calls that its row chose

Where a task tells no right calls, there are calls and errors only. Answers of a model without tools count as without calls.
"""
SENTENCES = {
    "syntax": "the text between the brackets cannot be read as arguments",
    "arity": "it was given too few arguments or too many",
    "domain": "it has no result for these arguments",
    "zero_division": "it divides by zero",
    "too_large": "the result is too large",
    "timeout": "it took too long and was stopped",
    "unknown_tool": "there is nothing to run",
}
MOST_DESCRIPTION = 300


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 1 when a call fails or a file cannot be read; 2 for a mistake of the user.
    """
    arguments = _parser().parse_args(argv)
    return own.run(lambda: arguments.execute(arguments))


def _calls(arguments: argparse.Namespace) -> int:
    """Print the tables, and write the page."""
    from harness.records.sources import find_sources
    from harness_tool_tokens.report import calls

    if arguments.most < 0:
        raise HarnessError(f"--most {arguments.most} questions cannot be shown; give 0 or more")
    sources, problems = find_sources(arguments.path)
    if problems:
        print(f"note: {len(problems):,} lines are no records; the first: {problems[0]}", file=sys.stderr)
    unreadable: list[str] = []
    reports = list(calls.reports_of(sources, unreadable))
    if not reports:
        what = f"{len(sources)} sample file{'' if len(sources) == 1 else 's'} in '{printable(arguments.path)}'"
        raise HarnessError(
            unreadable[0]
            if unreadable
            else f"no generated answers in {what}, so nothing could call a tool; give a run of a task of type generate_until"
        )
    out = own.console()
    for report in reports:
        _print_report(out, report)
    left_out = len(sources) - len(reports) - len(unreadable)
    if left_out:
        out.print(f"Left out: {left_out} sample files without generated answers.")
    for problem in unreadable:
        print(f"error: {problem}", file=sys.stderr)
    if arguments.output is not None:
        _write_page(arguments.output, reports, arguments.most)
    return 1 if unreadable else 0


def _print_report(out: Console, report: Report) -> None:
    from rich.text import Text

    from harness_tool_tokens.report import calls

    source = report.source
    out.print(Text(f"{printable(source.task)}: {printable(source.run)}", style="bold"))
    heads, rows = calls.table_of(report)
    if report.all.calls or report.all.due:
        table = _table(*heads)
        for number, cells in enumerate(rows):
            table.add_row(*map(Text, cells), end_section=number == len(rows) - 2)
        out.print(table)
    out.print(
        Text(" ".join([f"{report.answers:,} answers, {report.with_calls:,} with calls.", *calls.notes_of(report)]))
    )
    out.print()


def _write_page(path: Path, reports: Sequence[Report], most: int) -> None:
    from harness_tool_tokens.report import page

    own.write(page.render(reports, most=most), path)


def _call(arguments: argparse.Namespace) -> int:
    """Run one call, print its result, or what went wrong."""
    from harness_tool_tokens.tools.executing import Executor

    toolbox = _toolbox(arguments.tools)
    tool = _tool_of(toolbox, arguments.tool)
    with Executor(toolbox, timeout=arguments.timeout, rounding=arguments.rounding) as executor:
        outcome = executor.call(tool.key, arguments.arguments)
    if outcome.error is None and outcome.text is not None:
        print(printable(outcome.text))
        return 0
    kind = str(outcome.error)
    reason = outcome.detail if outcome.detail and kind != "unknown_tool" else SENTENCES[kind]
    call = f"<{printable(tool.name)}>({printable(arguments.arguments)[:200]})"
    print(f"{kind}: {call} has no result: {printable(reason)}", file=sys.stderr)
    return 1


def _tools(arguments: argparse.Namespace) -> int:
    """Print the list of tools."""
    from rich.text import Text

    toolbox = _toolbox(arguments.tools)
    has_names = any(tool.name != tool.key for tool in toolbox)
    table = _table("tool", *(["name"] if has_names else []), "arguments", "examples", "code", "description")
    for tool in toolbox:
        name = [printable(tool.name)] if has_names else []
        code = {"arithmetic": "built in", "python": printable(tool.source), "none": "none"}[tool.kind]
        cells = [tool.key, *name, tool.arity, str(len(tool.examples)), code, tool.description[:MOST_DESCRIPTION]]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    own.console().print(table)
    return 0


def _toolbox(specs: Sequence[str] | None) -> Toolbox:
    from harness_tool_tokens.tools.toolbox import Toolbox

    parts = [
        part
        for spec in specs or ["arithmetic"]
        for part in ([spec] if Path(spec).exists() else re.split(r"\+", spec))
        if part
    ]
    return Toolbox.load(parts)


def _tool_of(toolbox: Toolbox, word: str) -> Tool:
    """Return the tool of this key, or the only one of this name, which prompts show as ``<name>(``."""
    name = word.removeprefix("<").removesuffix(">")
    found = [tool for tool in toolbox if tool.key in {word, name}] or [tool for tool in toolbox if tool.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        keys = ", ".join(printable(tool.key) for tool in found)
        raise HarnessError(f"{len(found)} tools are called '{printable(name)}'; give one of the keys {keys}")
    known = {text for tool in toolbox for text in (tool.key, tool.name)}
    raise HarnessError(f"no tool '{printable(word)}'; {suggestion(word, known, most=20)}")


def _table(*heads: str) -> Any:
    from rich.table import Table

    table = Table(header_style="bold")
    for head in heads:
        is_text = head in {"tool", "name", "code", "description"}
        table.add_column(head, justify="left" if is_text else "right", overflow="fold")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness_tool_tokens",
        description="Look at tools and at the calls that models made. No model is loaded.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_calls(commands)
    _add_call(commands)
    listing = commands.add_parser("tools", help="list tools", description="List tools as the method sees them.")
    _add_tools_option(listing)
    listing.set_defaults(execute=_tools)
    return parser


def _add_calls(commands: Any) -> None:
    parser = commands.add_parser(
        "calls",
        help="count the calls in the answers of runs",
        description="Count the calls in the answers of runs, for each run and task by tool.",
        epilog=CALLS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, nargs="?", default=Path("results"), metavar="PATH",
                        help="a folder of results, a run or a leaderboard, or a sample file (default: results)")  # fmt: skip
    parser.add_argument("--output", "-o", type=Path, metavar="FILE.html",
                        help="also write a page with the tables and each answer; it needs nothing else")  # fmt: skip
    parser.add_argument("--most", type=int, default=200, metavar="N",
                        help="questions on the page, those answered wrong first (default: 200)")  # fmt: skip
    parser.set_defaults(execute=_calls)


def _add_call(commands: Any) -> None:
    parser = commands.add_parser(
        "call",
        help="run one tool",
        description="Run one tool as an answer would, and print its result. A call that fails exits with status 1.",
        epilog='example:\n  python -m harness_tool_tokens call opening_hours "Town hall, Monday" --tools my_tools.py',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tool", metavar="TOOL", help="its key, or its name where only one tool has it")
    parser.add_argument("arguments", metavar="ARGUMENTS", help='what stands between the brackets, as in "2, 3"')
    _add_tools_option(parser)
    parser.add_argument("--rounding", choices=["paper", "exact"], default="paper",
                        help="of results that are not whole: paper, to two decimals, or exact (default: paper)")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS",
                        help="of a call of a tool of yours (default: 5)")  # fmt: skip
    parser.set_defaults(execute=_call)


def _add_tools_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tools", action="append", metavar="FILE",
                        help="arithmetic, gsm8k (its first four) or a file of tools (.py, .toml, .json, .jsonl), as the method's "
                             "option of this name; may be given several times (default: arithmetic)")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
