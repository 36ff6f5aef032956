"""Samples by path: the sample files below a folder, with the records they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import printable
from harness.records import answers, samples

if TYPE_CHECKING:
    from harness.records.record import Record

RIGHT_OR_WRONG = ("acc", "exact_match", "acc_norm")
"""lm-eval's metrics that tell whether an answer is right, the most telling first."""

_TIME = re.compile(r"_\d{4}-\d\d-\d\dT[0-9.-]+$")


@dataclass(frozen=True)
class Source:
    """A sample file: of which run and task it is, for people."""

    path: Path
    run: str
    task: str


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


def keyed_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a sample file, each with what names its document.

    Raises:
        HarnessError: the file cannot be read; the line is named.
    """
    for number, row in enumerate(samples.rows(path)):
        yield (samples.document_key(row) if "doc_id" in row else f"row {number}"), row


def is_answered_right(row: dict[str, Any], names: Sequence[str] = RIGHT_OR_WRONG) -> bool | None:
    """Return whether the metric that tells right from wrong says right; None when there is no such metric.

    Args:
        row: of a sample file.
        names: metrics that tell it, higher being better, the most telling first; a plugin adds its own to lm-eval's.
    """
    name = deciding_metric(row, names)
    return None if name is None else not answers.is_wrong(row, name, higher_is_better=True)


def deciding_metric(row: dict[str, Any], names: Sequence[str] = RIGHT_OR_WRONG) -> str | None:
    """Return the first of ``names`` that the row has, None when it has none."""
    metrics = answers.metrics(row)
    return next((name for name in names if name in metrics), None)


def _names_of(file: Path) -> tuple[str, str]:
    """Return the run and the task that a path tells: ``RUN/MODEL/samples_TASK_TIME.jsonl``."""
    from harness.records.run_notes import STATUS_FILE

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
    from harness.records.labels import method_label, options_that_differ

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
