"""How often which tool was called in the answers of sample files: rightly, wrongly, in vain, and with which errors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import printable
from harness.records import answers, samples
from harness_tool_tokens.report.marking import FALSE, OTHER_ERROR, WRONG_TOOL, JudgedAnswer, JudgedCall, judge
from harness_tool_tokens.tools.arguments import ERRORS

if TYPE_CHECKING:
    from harness.records.record import Record

RIGHT_OR_WRONG = ("within_0_1_percent", "acc", "exact_match", "acc_norm", "grounding")
"""Metrics that tell whether an answer is right, the most telling first."""

MOST_NAME_CHARACTERS, MOST_CONFUSED = 60, 5

_TIME = re.compile(r"_\d{4}-\d\d-\d\dT[0-9.-]+$")


@dataclass(frozen=True)
class Source:
    """A sample file: of which run and task it is, for people."""

    path: Path
    run: str
    task: str


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


def find_sources(path: Path) -> tuple[list[Source], list[str]]:
    """Return the sample files at a path, and a sentence for each line of a record file that is no record.

    Args:
        path: a sample file, a file of records, or a folder of runs or of a leaderboard: files that records name, then
            others below it.

    Raises:
        HarnessError: there is no file.
    """
    try:
        path.stat()
    except (OSError, ValueError) as error:  # nothing there, no permission, a name no file system takes
        raise HarnessError(
            f"no sample files at '{printable(path)}': there is no file or folder of that name that can be read"
        ) from error
    if path.is_file() and not _holds_records(path):
        return [Source(path, *_names_of(path))], []
    found, problems = _named_by_records(path)
    known = {source.path.resolve() for source in found}
    others = [] if path.is_file() else sorted(path.rglob(f"{samples.PREFIX}*"))
    for file in others:
        is_hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.is_file() and not is_hidden and file.resolve() not in known:
            found.append(Source(file, *_names_of(file)))
    if not found:
        raise HarnessError(
            f"no sample files in '{printable(path)}': there is neither a file {samples.PREFIX}*.jsonl or .jsonl.gz nor a record "
            "with one; give a folder that `harness eval --log_samples` wrote to"
        )
    return found, problems


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
        is_right = is_answered_right(row)
        right = is_right if seen is None or seen[0] is None else seen[0] or bool(is_right)
        trouble = any(answer.is_troubled for answer in judged)
        report.documents[key] = (right, trouble)
    return report if report.answers else None


def keyed_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a sample file, each with what names its document.

    Raises:
        HarnessError: the file cannot be read; the line is named.
    """
    for number, row in enumerate(samples.rows(path)):
        yield (samples.document_key(row) if "doc_id" in row else f"row {number}"), row


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


def is_answered_right(row: dict[str, Any]) -> bool | None:
    """Return whether the metric that tells right from wrong says right; None when there is no such metric."""
    name = deciding_metric(row)
    return None if name is None else not answers.is_wrong(row, name, higher_is_better=True)


def deciding_metric(row: dict[str, Any]) -> str | None:
    """Return the name of the metric that tells right from wrong, None when there is none known."""
    metrics = answers.metrics(row)
    return next((name for name in RIGHT_OR_WRONG if name in metrics), None)


def _cells(tally: Tally, kinds: Sequence[str], *, tells: bool) -> list[str]:
    told = [tally.right, tally.wrong, tally.missed, tally.false] if tells else []
    counts = [*([tally.due] if tells else []), tally.calls, *told, *(tally.errors[kind] for kind in kinds)]
    margin = tally.mean_margin
    return [*(f"{count:,}" for count in counts), "" if margin is None else f"{margin:+.2f}"]


def _names_of(file: Path) -> tuple[str, str]:
    """Return the run and the task that a path tells: ``RUN/MODEL/samples_TASK_TIME.jsonl``."""
    from harness.run.folder import STATUS_FILE

    stem = file.name.removesuffix(".gz").removesuffix(".jsonl")
    task = _TIME.sub("", stem.removeprefix(samples.PREFIX)) or file.name
    folder = file.resolve().parent
    is_in_run = (folder.parent / STATUS_FILE).is_file()
    return (folder.parent if is_in_run else folder).name, task


def _holds_records(file: Path) -> bool:
    """Whether the first line of a file is a record."""
    try:
        first: Mapping[str, Any] = next(samples.rows(file), {})
    except HarnessError:
        return False
    return "schema_version" in first and "doc_id" not in first


def _named_by_records(path: Path) -> tuple[list[Source], list[str]]:
    """Return the sample files that records name, each once for each run, and what is wrong with the records."""
    from harness.records import ledger
    from harness.run.summary import method_label, options_that_differ

    reading = ledger.read(path)
    pairs = [
        (record, samples.find(record, origin.file))
        for record, origin in zip(reading.records, reading.origins, strict=True)
    ]
    found: dict[tuple[str, str, Path], Record] = {}
    for record, file in pairs:
        if file is not None and not record.task.group:
            found.setdefault((record.run_key(), record.task.name, file), record)
    by_method: dict[str, list[Record]] = {}
    for record in found.values():
        by_method.setdefault(method_label(record), []).append(record)
    sources = []
    for (_, task, file), record in found.items():
        label, options = method_label(record), record.method.options
        differing = [f"{name}={options[name]}" for name in options_that_differ(by_method[label]) if name in options]
        words = [record.run or "", label, *differing, f"seed {record.seeds.random}", record.model.name]
        sources.append(Source(file, ", ".join(word for word in words if word), task))
    return sources, reading.problems
