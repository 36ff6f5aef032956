"""Results of other tools as records: what their files state, and what their samples show of documents and prompts."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import HarnessError
from harness.foreign import finding, reading
from harness.foreign.contents import Measured
from harness.names import printable
from harness.records import answers, samples
from harness.records.aggregation import NotRecomputableError, agree, numbers, score
from harness.records.asked import Joined, Prompts, joined_digest, times_asked
from harness.records.parts import Parts
from harness.records.record import COMPUTED, Record


def records(path: Path, known: Parts) -> tuple[list[Record], list[str]]:
    """Return the scores of a foreign file as records, and a sentence for each thing that is wrong with it.

    Args:
        path: a file that ``finding.kind_of`` knows.
        known: parts of records read before, to share equal ones.
    """
    if finding.lies_in_a_run(path):
        return [], ["it lies in a run of this harness, whose records say more; name the folder of the run"]
    given = reading.scores(path)
    problems = [f"it {problem}" for problem in given.problems]
    passes: dict[Path, _Samples | None] = {}
    for one in given.scores:
        if one.samples is not None and one.samples not in passes:
            try:
                passes[one.samples] = _Samples.of(one.samples)
            except (HarnessError, OSError) as error:
                passes[one.samples] = None
                problems.append(f"its samples are left out: {_without_folder(error, one.samples)}")
    found = []
    for measured in given.scores:
        try:
            seen = passes.get(measured.samples) if measured.samples is not None else None
            record, problem = _record(measured, seen, path, known)
        except (ValidationError, ValueError, TypeError, OverflowError) as error:
            problems.append(f"a score of it is none that a record can hold ({_first_line(error)})")
            continue
        found.append(record)
        problems += [problem] if problem else []
    return _with_groups(found, passes), list(dict.fromkeys(problems))


@dataclass
class _Samples:
    """What one pass over a sample file shows, by filter where it is one of a filter."""

    sha256: str = ""
    rows: int = 0
    keys: dict[str, dict[str, None]] = field(default_factory=dict)
    values: dict[tuple[str, str], list[Any]] = field(default_factory=lambda: defaultdict(list))
    docs_digest: str = ""
    joined: str = ""
    prompts_digest: str = ""
    requests: int = 0
    empty_answers: int = 0
    texts: set[bytes] = field(default_factory=set)
    is_doubled: bool = False

    @classmethod
    def of(cls, path: Path) -> _Samples:
        """Read a sample file.

        Raises:
            HarnessError: it cannot be read, or a line of it is no row.
        """
        found, digest, docs, prompts = cls(), hashlib.sha256(), Joined(), Prompts()
        for row in samples.rows(path, digest=digest):
            found.rows += 1
            chosen, key = str(row.get("filter", "none")), samples.document_key(row)
            of_filter = found.keys.setdefault(chosen, {})
            found.is_doubled = found.is_doubled or key in of_filter
            of_filter[key] = None
            if chosen == next(iter(found.keys)):
                docs.add(samples.document_digest(row))
                prompts.add(answers.requests(row))
                found._take_answers(row)
            for metric, value in answers.metrics(row).items():
                found.values[metric, chosen].append(value)
        found.sha256, found.joined, found.prompts_digest = digest.hexdigest(), docs.short(), prompts.short()
        found.docs_digest = joined_digest([found.joined])
        return found

    def _take_answers(self, row: dict[str, Any]) -> None:
        """Count the answers of a row, and of texts the empty ones and the different ones."""
        self.requests += times_asked(row.get("resps"), len(answers.requests(row)))
        for text in answers.raw_texts(row) if not answers.continuations(row) else ():
            self.empty_answers += not text.strip()
            self.texts.add(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())

    @property
    def docs(self) -> int:
        return max(map(len, self.keys.values()), default=0)


def _record(measured: Measured, seen: _Samples | None, path: Path, known: Parts) -> tuple[Record, str]:
    """Return a score as a record, and what is wrong with its samples, which it is without then."""
    content = json.loads(json.dumps(measured.content, allow_nan=False, default=str))
    problem = ""
    if seen is not None and measured.samples is not None:
        problem = _contradiction(content, seen)
        if not problem:
            _add_samples(content, seen, measured.samples, path)
    fields = {name: known.of(name, value).part for name, value in content.items() if name not in COMPUTED}
    return known.record(fields), problem


def _contradiction(content: dict[str, Any], seen: _Samples) -> str:
    """Return why samples are not those of a score, empty where they may be."""
    task, docs = printable(content["task"]["name"]), content["counts"]["docs"]
    if not seen.rows:
        return f"the samples of task '{task}' are left out: there is none in their file"
    if seen.is_doubled:
        return f"the samples of task '{task}' are left out: a document stands in them twice"
    if "counts.docs" not in content["foreign"]["unknown"] and docs != seen.docs:
        return (
            f"the samples of task '{task}' are left out: they are of {seen.docs:,} documents, the score is of {docs:,}"
        )
    return ""


def _add_samples(content: dict[str, Any], seen: _Samples, file: Path, path: Path) -> None:
    """Add what the samples show: documents, prompts, how many have the metric, and whether the score is their mean."""
    metric, task, unknown = content["metric"], content["task"], content["foreign"]["unknown"]
    values = seen.values.get((metric["name"], metric["filter"]), [])
    content["samples"] = {"path": file.relative_to(path.parent).as_posix(), "sha256": seen.sha256, "rows": seen.rows}
    content["counts"] |= {"docs": seen.docs} | ({"scored_docs": len(values)} if len(values) < seen.docs else {})
    if seen.requests:
        content["counts"]["requests"] = seen.requests
    if seen.texts:
        content["counts"] |= {"empty_answers": seen.empty_answers, "distinct_answers": len(seen.texts)}
    task["docs_digest"] = seen.docs_digest
    shown = {"task.docs_digest", "counts.docs"}
    if finding.kind_of(path) == finding.LM_EVAL:  # of the others prompts are what was told of them, not what was asked
        task["prompts_digest"] = seen.prompts_digest
        shown.add("task.prompts_digest")
    content["foreign"] |= {"unknown": [name for name in unknown if name not in shown]}
    if "aggregation" not in metric and content["value"] is not None and _is_mean(values, content["value"]):
        metric["aggregation"] = "mean"


def _is_mean(values: list[Any], value: float) -> bool:
    try:
        return agree(value, score(numbers(values), "mean"), values)
    except NotRecomputableError:
        return False


def _with_groups(found: list[Record], passes: dict[Path, _Samples | None]) -> list[Record]:
    """Return the records, those of groups with the digests of the documents and prompts of their tasks."""
    tasks = {record.task.name: record for record in found if not record.task.group and record.samples is not None}
    joined = {seen.sha256: seen.joined for seen in passes.values() if seen is not None}
    completed = []
    for record in found:
        members = record.task.members or []
        if members and all(name in tasks for name in members):
            of_members = [tasks[name] for name in members]
            task = record.task.model_copy(
                update={
                    "docs_digest": joined_digest(joined[r.samples.sha256] for r in of_members if r.samples is not None),
                    "prompts_digest": joined_digest(str(r.task.prompts_digest) for r in of_members),
                }
            )
            record = record.model_copy(update={"task": task})
        completed.append(record)
    return completed


def _without_folder(error: HarnessError | OSError, path: Path) -> str:
    if isinstance(error, OSError):
        return f"{printable(path.name)} cannot be read ({error.strerror or error})"
    return str(error).replace(printable(path), printable(path.name))


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return printable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    return printable(error)[:200]
