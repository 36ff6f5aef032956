"""What the sample files beside records tell a board: the score of each document, and a few answers to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import numpy.typing

from harness.errors import HarnessError
from harness.records import answers, samples
from harness.records.ledger import Origin
from harness.records.record import Record
from harness.verifying import contradictions, sampled

Values = numpy.typing.NDArray[numpy.float64]
EXAMPLES = 3
PROMPT_CHARACTERS = 600
ANSWER_CHARACTERS = 300
# Files whose answers are kept, so that a page of thousands of runs stays one that opens.
MOST_FILES_WITH_EXAMPLES = 300
MOST_SCORES_HELD = 2_000_000


@dataclass(frozen=True, slots=True)
class ByDocument:
    """The score of each document, the documents in the order of their keys."""

    documents: tuple[str, ...]
    values: Values


@dataclass(frozen=True, slots=True)
class Example:
    """One document as it was asked and answered, long texts cut."""

    document: str
    prompt: str
    answer: str
    target: str
    scores: str


@dataclass(slots=True)
class _File:
    """What one pass over a sample file left: scores by metric and filter, and the first documents."""

    scores: dict[tuple[str, str], ByDocument] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)


class SampleFiles:
    """Reads each sample file once and row by row; only numbers and a few short texts stay in memory.

    Attributes:
        problems: a sentence for each file that cannot be read.
        files: how many were read.
    """

    def __init__(self, records: Sequence[Record], origins: Sequence[Origin]) -> None:
        self.problems: list[str] = []
        self.files = 0
        self._records, self._origins = records, origins
        self._paths: dict[tuple[Path, str, str], Path | None] = {}
        self._read: dict[Path, _File] = {}
        self._numbers: dict[Path, list[int]] | None = None
        self._contradicted: dict[int, str] = {}
        self._documents: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._by_run: dict[tuple[Any, ...], int] | None = None
        self._examples: dict[Path, list[Example]] = {}

    def by_document(self, sources: Sequence[int]) -> ByDocument | None:
        """Return the scores of each document, averaged over the records at ``sources`` (the seeds of one row).

        None when a sample file is missing, the documents differ, or their mean is not the value of the record: then
        the metric is no mean over documents, or the file is not the one the value was computed from.
        """
        found = [self._scores(source) for source in sources]
        first = found[0] if found else None
        if first is None or any(one is None or one.documents != first.documents for one in found):
            return None
        return ByDocument(first.documents, numpy.mean([one.values for one in found if one is not None], axis=0))

    def contradiction(self, source: int) -> str:
        """Return what the sample file of a record contradicts of it, empty when nothing or there is no file."""
        path = self._path(source)
        if path is not None and source not in self._contradicted:
            self._read[path] = self._load(path)
        return self._contradicted.get(source, "")

    def examples(self, source: int) -> list[Example]:
        """Return the first documents of a record's sample file, empty when there is none or too many were read."""
        path = self._path(source)
        if path is None:
            return []
        if path not in self._examples and len(self._examples) < MOST_FILES_WITH_EXAMPLES:
            self._load(path)
        return self._examples.get(path, [])

    def forget_scores(self) -> None:
        """A table is done: give the memory of the scores back, unless so few are held that the next table may use them."""
        held = sum(len(one.values) for file in self._read.values() for one in file.scores.values())
        if held > MOST_SCORES_HELD:
            self._read.clear()
            self._documents.clear()

    def _scores(self, source: int) -> ByDocument | None:
        record, path = self._records[source], self._path(source)
        if record.value is None:
            return None
        if record.task.group:
            return self._group_scores(record)
        if path is None:
            return None
        if path not in self._read:
            self._read[path] = self._load(path)
        scores = self._read[path].scores.get((record.metric.name, record.metric.filter))
        if scores is None:
            return None
        return scores if numpy.isclose(scores.values.mean(), record.value, rtol=1e-6, atol=1e-9) else None

    def _group_scores(self, group: Record) -> ByDocument | None:
        """Return the documents of a group's tasks, weighted so that their mean is the group's score as lm-eval makes it."""
        members = self._members()
        sources = [members.get((name, *_run_of(group))) for name in group.task.members or ()]
        found = [None if source is None else self._scores(source) for source in sources]
        parts = [one for one in found if one is not None]
        if not parts or len(parts) < len(found):
            return None
        total = sum(len(part.values) for part in parts)
        alike = [total / (len(parts) * len(part.values)) for part in parts]
        for weights in ([1.0] * len(parts), alike):
            values = numpy.concatenate([part.values * weight for part, weight in zip(parts, weights, strict=True)])
            if group.value is not None and numpy.isclose(values.mean(), group.value, rtol=1e-6, atol=1e-9):
                documents = tuple(f"{number}:{key}" for number, part in enumerate(parts) for key in part.documents)
                return ByDocument(self._documents.setdefault(documents, documents), values)
        return None

    def _members(self) -> dict[tuple[Any, ...], int]:
        """Return the records of single tasks by task, metric and run; of two that are alike the later one."""
        if self._by_run is None:
            self._by_run = {
                (record.task.name, *_run_of(record)): index
                for index, record in enumerate(self._records)
                if not record.task.group and record.samples is not None
            }
        return self._by_run

    def _load(self, path: Path) -> _File:
        self.files += 1
        numbers = self._records_of(path)
        columns = _Columns()
        try:
            found = sampled.gather(path, [self._records[n] for n in numbers], columns.take)
            self._contradicted |= contradictions.of_file(self._records, numbers, found)
            file = columns.file()
        except HarnessError as error:
            self.problems.append(contradictions.without_folder(error, path))
            self._contradicted |= dict.fromkeys(numbers, contradictions.unreadable(error, path))
            file = _File()
        for key, one in file.scores.items():  # runs over the same documents share their names
            file.scores[key] = ByDocument(self._documents.setdefault(one.documents, one.documents), one.values)
        if len(self._examples) < MOST_FILES_WITH_EXAMPLES:
            self._examples[path] = file.examples
        return file

    def _records_of(self, path: Path) -> list[int]:
        if self._numbers is None:
            self._numbers = {}
            for source in range(len(self._records)):
                if (found := self._path(source)) is not None:
                    self._numbers.setdefault(found, []).append(source)
        return self._numbers.get(path, [])

    def _path(self, source: int) -> Path | None:
        record = self._records[source]
        if not self._origins or record.samples is None:
            return None
        file = self._origins[source].file
        key = (file.parent, record.samples.path, record.samples.sha256)
        if key not in self._paths:
            self._paths[key] = samples.find(record, file)
        return self._paths[key]


def _run_of(record: Record) -> tuple[Any, ...]:
    """Return what records of one run share, parts by identity as ``ledger.read`` gives them, and the metric."""
    seeds = record.seeds
    parts = (id(record.model), id(record.plugin), id(record.method), record.run)
    return (*parts, seeds.random, seeds.numpy, seeds.torch, seeds.fewshot, record.metric.name, record.metric.filter)


class _Columns:
    """Takes in the rows of a sample file, and keeps what a board shows of them."""

    def __init__(self) -> None:
        self._columns: dict[tuple[str, str], dict[str, float]] = {}
        self._examples: list[Example] = []

    def take(self, row: dict[str, Any]) -> None:
        document, chosen = samples.document_key(row), str(row.get("filter", "none"))
        numbers = _numbers(row)
        for name, value in numbers.items():
            self._columns.setdefault((name, chosen), {})[document] = value
        if len(self._examples) < EXAMPLES:
            self._examples.append(_example(row, document, numbers))

    def file(self) -> _File:
        file = _File(examples=self._examples)
        for key, column in self._columns.items():
            documents = tuple(sorted(column))
            values = numpy.array([column[document] for document in documents])
            if numpy.isfinite(values).all():
                file.scores[key] = ByDocument(documents, values)
        return file


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of a document that are numbers; those of 32 bits reach the file as text."""
    found = {}
    for name, value in answers.metrics(row).items():
        text = {"True": "1", "False": "0"}.get(value, value) if isinstance(value, str) else value
        try:
            found[name] = float(text)
        except (TypeError, ValueError, OverflowError):
            continue
    return found


def _example(row: dict[str, Any], document: str, numbers: dict[str, float]) -> Example:
    choices, chosen, gold = answers.continuations(row), answers.chosen(row), answers.gold(row)
    answer = " | ".join(answers.texts(row)) if chosen is None else choices[chosen].text
    target = str(row.get("target", "")) if gold is None or chosen is None else choices[gold].text
    return Example(
        document=_cut(document.split(":")[0], 40),
        prompt=_cut(answers.prompt(row), PROMPT_CHARACTERS),
        answer=_cut(answer, ANSWER_CHARACTERS),
        target=_cut(target, ANSWER_CHARACTERS),
        scores=_cut(", ".join(f"{name} {value:.4g}" for name, value in numbers.items()), ANSWER_CHARACTERS),
    )


def _cut(text: str, most: int) -> str:
    """Return ``text`` with its middle left out when it is longer than ``most`` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} […{len(text) - 2 * half} characters…] {text[-half:]}"
