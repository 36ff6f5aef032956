"""What one pass over a sample file shows: counts, digests, the documents' values, and rows that contradict themselves."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.records import answers, samples
from harness.records.asked import Joined, Prompts, times_asked
from harness.records.record import Record
from harness.requests import CUT_IN_THINKING

# What stands where a secret or a place was taken out; such a text no longer gives its digest.
REDACTED = ("[redacted]", "[host]", "[user]", "~")
SHOWN = 3
# A file of twice as many rows as its records count is read whole, and how many there are is told.
SLACK = 100
_DOCUMENT = json.JSONEncoder(indent=2, ensure_ascii=False)


@dataclass
class Sampled:
    """What a sample file holds.

    ``values`` has, for each metric and filter that was asked for, the value of each document in order. ``docs_digests``
    are the digests a record may hold of these documents: of all rows, or of the rows of one filter. Requests, their
    digest and what is counted of their answers are those of the first filter. ``is_scored``: the answers are
    log-likelihoods, which no two models share. ``is_redacted``: something was taken out of a prompt or an answer.
    ``complaints`` cannot be true, ``doubts`` need not.
    """

    sha256: str
    rows: int = 0
    docs: int = 0
    docs_digests: set[str] = field(default_factory=set)
    prompts_digest: str = ""
    values: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    requests: int = 0
    not_finite: int = 0
    empty_answers: int = 0
    cut_in_thinking: int = 0
    distinct_answers: int = 0
    is_scored: bool = False
    is_redacted: bool = False
    complaints: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def gather(path: Path, records: Sequence[Record], each: Callable[[dict[str, Any]], None] | None = None) -> Sampled:
    """Read a sample file once, row by row; only the values of the metrics of its ``records`` are kept.

    Args:
        path: whatever lies there.
        records: those that name it; of far more rows than they count, the rest is not read.
        each: is given every row, for what else its caller wants of them.

    Raises:
        HarnessError: the file cannot be read, is too large, or a line of it is no row.
    """
    wanted = {(record.metric.name, record.metric.filter) for record in records}
    most_docs = 2 * max(record.counts.docs for record in records) + SLACK
    one_pass, digest = _Pass(wanted, has_docs=not any(record.foreign for record in records)), hashlib.sha256()
    for number, row in enumerate(samples.rows(path, most_docs=most_docs, digest=digest), start=1):
        one_pass.take(number, row)
        if each is not None:
            each(row)
    return one_pass.result(digest.hexdigest())


class _Some:
    """The first few of many sentences, and how many there were."""

    def __init__(self) -> None:
        self.count, self._first = 0, list[str]()

    def add(self, sentence: str) -> None:
        self.count += 1
        if len(self._first) < SHOWN:
            self._first.append(sentence)

    def sentences(self) -> list[str]:
        rest = self.count - len(self._first)
        return self._first + ([f"and {rest} more rows like these"] if rest else [])


class _Pass:
    """One pass over the rows."""

    def __init__(self, wanted: Collection[tuple[str, str]], *, has_docs: bool) -> None:
        self._has_docs = has_docs
        self._found = Sampled("", values={key: [] for key in wanted})
        self._numbers: set[Any] = set()
        self._filters: Counter[str] = Counter()
        self._docs = {"": Joined()}
        self._prompts = Prompts()
        self._texts: set[bytes] = set()
        self._wrong_rows, self._wrong_choices = _Some(), _Some()
        self._right_choices = 0

    def take(self, number: int, row: dict[str, Any]) -> None:
        filter_name, found = str(row.get("filter", "none")), self._found
        found.rows += 1
        self._numbers.add(str(row.get("doc_id")))
        self._filters[filter_name] += 1
        for name in ("", filter_name):
            self._docs.setdefault(name, Joined()).add(samples.document_digest(row))
        if filter_name == next(iter(self._filters)):
            self._take_requests(row)
        for (metric, wanted_filter), values in found.values.items():
            if wanted_filter == filter_name and metric in row and metric in row.get("metrics", (metric,)):
                values.append(row[metric])
        self._check(number, row)

    def result(self, sha256: str) -> Sampled:
        found = self._found
        found.sha256, found.docs = sha256, len(self._numbers)
        found.docs_digests = {digest.short() for digest in self._docs.values()}
        found.prompts_digest = self._prompts.short()
        found.distinct_answers = len(self._texts)
        found.complaints = self._wrong_rows.sentences()
        if any(count != found.docs for count in self._filters.values()):
            found.complaints.append("it does not hold each document once for each filter")
        # A task may call something else acc; then most rows differ, and it is only told.
        is_rule = self._right_choices >= self._wrong_choices.count
        (found.complaints if is_rule else found.doubts).extend(self._wrong_choices.sentences())
        return found

    def _take_requests(self, row: dict[str, Any]) -> None:
        found, choices, asked = self._found, answers.continuations(row), answers.requests(row)
        found.not_finite += sum(math.isnan(choice.loglikelihood) for choice in choices)
        found.is_scored = found.is_scored or bool(choices)
        self._prompts.add(asked)
        found.requests += times_asked(row.get("resps"), len(asked))
        for text in answers.raw_texts(row) if not choices else ():
            found.empty_answers += not text.strip()
            self._texts.add(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        traces = row.get("traces")
        found.cut_in_thinking += sum(
            isinstance(trace, list) and CUT_IN_THINKING in trace
            for trace in (traces if isinstance(traces, list) else [])
        )
        told = "" if found.is_redacted else str((asked, row.get("resps")))
        found.is_redacted = found.is_redacted or any(mark in told for mark in REDACTED)

    def _check(self, number: int, row: dict[str, Any]) -> None:
        for sentence in _contradictions(row, has_docs=self._has_docs):
            self._wrong_rows.add(f"row {number}: {sentence}")
        chosen, gold, acc = answers.chosen(row), answers.gold(row), row.get("acc")
        if chosen is None or gold is None or not isinstance(acc, int | float) or acc not in {0, 1}:
            return
        if (chosen == gold) == bool(acc):
            self._right_choices += 1
        else:
            self._wrong_choices.add(
                f"row {number}: acc is {acc:g}, while the likeliest choice is {chosen} and the right one {gold}"
            )


def _contradictions(row: dict[str, Any], *, has_docs: bool) -> list[str]:
    """Return what of a row does not give the digest beside it, as lm-eval computes them.

    Args:
        has_docs: a row holds its document; those of other tools may have its digest alone.
    """
    parts: dict[str, Callable[[], Iterable[str]]] = {
        "doc": lambda: _DOCUMENT.iterencode(
            row.get("doc")
        ),  # of five megabytes come hundreds, which are never one text
        "prompt": lambda: _texts(answers.first_prompt(row)),
        "target": lambda: _texts(row.get("target")),
    }
    found = []
    for name, texts in parts.items():
        digest = row.get(f"{name}_hash")
        if name == "doc" and not has_docs and name not in row:
            continue
        if isinstance(digest, str) and _sha256(texts()) != digest and not _is_redacted(texts()):
            found.append(f"its {name} does not give its {name}_hash")
    asked = row.get("arguments")
    for name in ("resps", "filtered_resps"):
        given = row.get(name)
        if isinstance(given, list) and isinstance(asked, dict | list) and len(given) != len(asked):
            found.append(f"it has {len(given)} answers to {len(asked)} requests in its {name}")
    return found


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else ["(no text)"]


def _sha256(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _is_redacted(texts: Iterable[str]) -> bool:
    return any(mark in text for text in texts for mark in REDACTED)
