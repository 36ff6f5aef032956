"""How often which tool was called in the answers of sample files: rightly, wrongly, in vain, and with which errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from harness.errors import HarnessError
from harness.names import printable
from harness.records.sources import RIGHT_OR_WRONG, Source, is_answered_right, keyed_rows
from harness_tool_tokens.report.marking import FALSE, OTHER_ERROR, WRONG_TOOL, JudgedAnswer, JudgedCall, judge
from harness_tool_tokens.tools.arguments import ERRORS

MOST_NAME_CHARACTERS, MOST_CONFUSED = 60, 5
# What tells right from wrong in the plugin's tasks, the most telling first.
DECIDING = ("within_0_1_percent", *RIGHT_OR_WRONG, "grounding")


@dataclass
class Tally:
    """Counts of one tool's calls, or of all.

    ``wrong`` and ``false`` are those of the tool that was called, ``due`` and ``missed`` those of the tool that should
    have been. ``calls == right + wrong + false + untold``, where ``untold`` counts the calls of answers whose documents
    do not tell the right ones.
    """

    due: int = 0
    calls: int = 0
    right: int = 0
    wrong: int = 0
    missed: int = 0
    false: int = 0
    untold: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    margins: int = 0
    margin_sum: float = 0.0

    @property
    def mean_margin(self) -> float | None:
        """By how many logits the tool was ahead of the best word, in the mean of the calls that its row chose."""
        return self.margin_sum / self.margins if self.margins else None

    def add(self, call: JudgedCall) -> None:
        """Count a call."""
        self.calls += 1
        self.right += call.verdict == "right"
        self.wrong += call.verdict == WRONG_TOOL
        self.false += call.verdict == FALSE
        self.untold += not call.verdict
        if call.error:
            self.errors[call.error] += 1
        if call.margin is not None:
            self.margins += 1
            self.margin_sum += call.margin


@dataclass
class Report:
    """What the answers of one sample file come to.

    Attributes:
        answers: how many answers there are; ``with_calls`` of them call a tool.
        tells: whether any document tells right calls; else nothing can be right or missed.
        confused: how often (the tool that was due, the tool that was called).
        documents: of each document in the order of the file, whether it was answered right (None: unknown) and whether
            something went wrong with its calls.
    """

    source: Source
    answers: int = 0
    with_calls: int = 0
    tells: bool = False
    all: Tally = field(default_factory=Tally)
    tools: dict[str, Tally] = field(default_factory=dict)
    confused: Counter[tuple[str, str]] = field(default_factory=Counter)
    documents: dict[str, tuple[bool | None, bool]] = field(default_factory=dict)

    def tally_of(self, tool: str) -> Tally:
        """Return the counts of a tool, new ones if there are none yet."""
        return self.tools.setdefault(tool, Tally())

    def sorted_tools(self) -> list[tuple[str, Tally]]:
        """Return the tools, those of most calls, due or made, first."""
        return sorted(self.tools.items(), key=lambda item: (-item[1].due - item[1].calls, item[0]))

    def error_kinds(self) -> list[str]:
        """Return the kinds of errors that occur, in the order of ``arguments.ERRORS``."""
        return [kind for kind in (*ERRORS, OTHER_ERROR) if self.all.errors[kind]]

    def add(self, answer: JudgedAnswer) -> None:
        """Count an answer."""
        self.answers += 1
        self.with_calls += bool(answer.calls)
        self.tells = self.tells or bool(answer.expected)
        for call in answer.calls:
            self.all.add(call)
            self.tally_of(call.tool).add(call)
            if call.verdict == WRONG_TOOL:
                self.confused[call.due, call.tool] += 1
        for expected in answer.expected or ():
            self.all.due += 1
            self.tally_of(str(expected["tool"])).due += 1
        for missed in answer.missed:
            self.all.missed += 1
            self.tally_of(str(missed["tool"])).missed += 1


def reports_of(sources: Iterable[Source], problems: list[str]) -> Iterator[Report]:
    """Yield the report of each source that has one; a file that cannot be read adds to ``problems``."""
    for source in sources:
        try:
            report = report_of(source)
        except HarnessError as error:
            problems.append(str(error))
            continue
        if report is not None:
            yield report


def report_of(source: Source) -> Report | None:
    """Read a sample file and count; None when no row of it holds generated text.

    Raises:
        HarnessError: the file cannot be read; the line is named.
    """
    report = Report(source)
    for key, row in keyed_rows(source.path):
        judged = judge(row)
        if not judged:
            continue
        seen = report.documents.get(key)
        # A document has a row for each filter; its answers and calls are the same in all.
        if seen is None:
            for answer in judged:
                report.add(answer)
        is_right = is_answered_right(row, DECIDING)
        right = is_right if seen is None or seen[0] is None else seen[0] or bool(is_right)
        trouble = any(answer.is_troubled for answer in judged)
        report.documents[key] = (right, trouble)
    return report if report.answers else None


def table_of(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return the table of a report as text: the heads of its columns, and a row for each tool and one for all."""
    kinds = report.error_kinds()
    heads = ["tool", *(["due"] if report.tells else []), "calls"]
    heads += ["right", "wrong tool", "missed", "false"] if report.tells else []
    rows = [
        [shown_name(name), *_cells(tally, kinds, tells=report.tells)]
        for name, tally in [*report.sorted_tools(), ("all", report.all)]
    ]
    return [*heads, *kinds, "mean margin"], rows


def notes_of(report: Report) -> list[str]:
    """Return what has to be said beside a report's table."""
    notes = []
    if not report.tells:
        notes.append("The task tells no right calls, so there are calls and errors only.")
    elif report.all.untold:
        notes.append(f"{report.all.untold:,} calls are in answers whose documents tell no right calls.")
    confused = [f"{shown_name(called)} for {shown_name(due)} ({count:,}×)" for (due, called), count in
                report.confused.most_common(MOST_CONFUSED)]  # fmt: skip
    return [*notes, f"Most often called for another: {', '.join(confused)}."] if confused else notes


def shown_name(name: str) -> str:
    """Return the name of a tool as it is shown: safe and not too long."""
    return printable(name[:MOST_NAME_CHARACTERS])


def _cells(tally: Tally, kinds: Sequence[str], *, tells: bool) -> list[str]:
    told = [tally.right, tally.wrong, tally.missed, tally.false] if tells else []
    counts = [*([tally.due] if tells else []), tally.calls, *told, *(tally.errors[kind] for kind in kinds)]
    margin = tally.mean_margin
    return [*(f"{count:,}" for count in counts), "" if margin is None else f"{margin:+.2f}"]
