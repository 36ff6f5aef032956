"""Whether one record follows from others and from its samples: its score, its documents, its group, its run."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.names import printable
from harness.records import aggregation
from harness.records.aggregation import NeedsPluginError, NotRecomputableError
from harness.records.ledger import Origin
from harness.records.record import Record
from harness.verifying.claims import Doubt
from harness.verifying.sampled import Sampled

# What is the same of the model in all records of a run; how many weights changed may depend on the machine.
SAME_MODEL = ("name", "revision", "digest", "dtype", "quantization", "parameters", "tokenizer_digest")


@dataclass
class Verdict:
    """``state`` names the count of ``verify.Report`` the record belongs to when no error was found."""

    state: str
    doubts: list[Doubt] = field(default_factory=list)

    def error(self, sentence: str) -> None:
        """Add what cannot be."""
        self.doubts.append(("error", sentence))

    def warn(self, sentence: str) -> None:
        """Add what a person has to judge."""
        self.doubts.append(("warning", sentence))


def from_samples(record: Record, found: Sampled) -> Verdict:
    """Compare a record with what its sample file holds."""
    verdict = Verdict("follow")
    assert record.samples is not None
    if found.sha256 != record.samples.sha256:
        verdict.error("its sample file is not the one it was written with: the SHA-256 differs")
    if record.samples.rows is not None and found.rows != record.samples.rows:
        verdict.error(f"its sample file has {found.rows} rows, the record says {record.samples.rows}")
    if found.docs != record.counts.docs:
        verdict.error(f"its sample file holds {found.docs} documents, the record says {record.counts.docs}")
    if record.task.docs_digest is not None and not _matches(record.task.docs_digest, found.docs_digests):
        verdict.error("the documents in its sample file are others than task.docs_digest names")
    if record.task.prompts_digest not in {None, found.prompts_digest} and not found.is_redacted:
        verdict.error("the prompts in its sample file are others than task.prompts_digest names")
    requests = record.counts.requests
    if requests is not None and found.requests != requests:
        verdict.error(f"its sample file holds {found.requests} requests, the record says {requests}")
    texts = {
        "empty": (record.counts.empty_answers, found.empty_answers),
        "distinct": (record.counts.distinct_answers, found.distinct_answers),
        "cut": (record.counts.cut_in_thinking, found.cut_in_thinking),
    }
    for name, (claimed, counted) in texts.items():
        if claimed is not None and claimed != counted and not found.is_redacted:
            verdict.error(f"its sample file holds {counted} {name} answers, the record says {claimed}")
    if found.not_finite and record.status == "ok":
        verdict.error(f"{found.not_finite} answers in its samples are NaN, so the task has no score, but status is ok")
    values = found.values.get((record.metric.name, record.metric.filter), [])
    scored = record.counts.scored_docs
    if scored is not None and scored != len(values):
        name = printable(record.metric.name)
        verdict.error(f"its sample file holds {name} of {len(values)} documents, the record says {scored}")
    if found.complaints:
        verdict.error(f"its samples contradict themselves: {'; '.join(found.complaints)}")
    if found.doubts:
        verdict.warn(f"in its samples, {'; '.join(found.doubts)}")
    _compare_score(record, values, verdict)
    return verdict


def from_tasks(group: Record, tasks: Sequence[Record]) -> Verdict:
    """Compare a group's record with those of its tasks; none of them when they are not known."""
    values = [task.value for task in tasks if task.value is not None]
    if group.value is None or not tasks or len(values) < len(tasks):
        return Verdict("no_score" if group.value is None else "no_rule")
    verdict, docs = Verdict("grouped"), [task.counts.scored for task in tasks]
    expected = aggregation.group_scores(values, docs)
    allowed = aggregation.GROUP_WAYS.get(str(group.metric.aggregation), (0, 1))
    ways = [way for way in allowed if aggregation.agree(group.value, expected[way], values)]
    if not ways:
        verdict.error(f"value is {group.value:.6g}, while its {len(tasks)} tasks give {expected[allowed[0]]:.6g}")
    errors = [task.stderr for task in tasks if task.stderr is not None]
    if ways and group.stderr is not None and len(errors) == len(tasks):
        pooled = aggregation.group_errors(errors, docs)
        if not any(aggregation.agree(group.stderr, pooled[way]) for way in ways):
            verdict.error(f"standard error is {group.stderr:.6g}, while its tasks give {pooled[ways[0]]:.6g}")
    return verdict


def tasks_of_groups(records: Sequence[Record], origins: Sequence[Origin]) -> Iterator[tuple[int, list[int], list[str]]]:
    """Yield each group's record with those of its tasks, by number, and the names of tasks that have no record here."""
    by_run: dict[Any, list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        by_run[run_of(record, origins[number])].append(number)
    for numbers in by_run.values():
        leaves = [number for number in numbers if not records[number].task.group]
        for number in numbers:
            group = records[number]
            if not group.task.group:
                continue
            names = group.task.members
            same_metric = [n for n in leaves if _metric(records[n]) == _metric(group)]
            if names is None:
                yield number, _likely_tasks(records, group, same_metric), []
                continue
            missing = sorted(set(names) - {records[n].task.name for n in leaves})
            nearest = {}
            for leaf in sorted(same_metric, key=lambda leaf: -abs(leaf - number)):
                nearest[records[leaf].task.name] = leaf
            yield number, [] if missing else [nearest[name] for name in names if name in nearest], missing


def _likely_tasks(records: Sequence[Record], group: Record, leaves: list[int]) -> list[int]:
    """Return the tasks of a group that does not name them, empty when they cannot be told.

    They are those of its run that are called after it, or all of its run, if they have as many documents as the group.
    """
    named = [number for number in leaves if records[number].task.name.startswith(f"{group.task.name}_")]
    fits = [part for part in (named, leaves) if sum(records[n].counts.docs for n in part) == group.counts.docs]
    return fits[0] if fits else []


def copies(records: Sequence[Record], seen: Mapping[str, Sampled]) -> Iterator[tuple[int, Doubt]]:
    """Yield records that share a sample file with another run of other settings.

    Args:
        records: all of them.
        seen: the sample files that were read, by digest.
    """
    by_samples: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        if record.samples is not None:
            by_samples[record.samples.sha256, record.metric.name, record.metric.filter].append(number)
    for (sha256, _, _), numbers in by_samples.items():
        first = records[numbers[0]]
        for number in numbers[1:]:
            record = records[number]
            if record.run_key() == first.run_key():
                continue
            is_scored = sha256 in seen and seen[sha256].is_scored
            is_copied = is_scored and _method(record) != _method(first) and _changes(record) + _changes(first) > 0
            what = "log-likelihoods" if is_scored else "answers"
            sentence = f"its samples are, byte for byte, those of {_label(first)}: the same {what} from another run"
            yield number, ("error" if is_copied else "warning", sentence)


def disagreements(records: Sequence[Record], origins: Sequence[Origin]) -> Iterator[tuple[int, Doubt]]:
    """Yield records that say other things of a run than its other records."""
    by_run: dict[Any, list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        by_run[run_of(record, origins[number])].append(number)
    texts = _Texts()
    for numbers in by_run.values():
        if len(numbers) < 3:  # no two of them are the most
            continue
        told = {number: _shared(records[number], texts) for number in numbers}
        for name in next(iter(told.values())):
            counted = Counter(parts[name] for parts in told.values())
            usual, count = counted.most_common(1)[0]
            for number in numbers:
                if told[number][name] != usual and count > len(numbers) / 2:
                    yield number, ("error", f"{name} is not that of the {count} other records of its run")


def doubles(records: Sequence[Record], origins: Sequence[Origin]) -> Iterator[tuple[int, Doubt]]:
    """Yield records that stand twice; an untouched model that scored the same again in another file is no such."""
    first_of: dict[str, int] = {}
    for number, record in enumerate(records):
        first = first_of.setdefault(record.key(), number)
        if first == number:
            continue
        origin, before = origins[number], origins[first]
        is_same_file = origin.file == before.file
        is_same = record.digest() == records[first].digest()
        if not (is_same or is_same_file) and record.repeats(records[first]):
            continue
        where = f"line {before.line}" if is_same_file else f"{printable(before.file)}, line {before.line}"
        what = "the record" if is_same else "a record with the key"
        yield number, ("error" if is_same_file else "warning", f"it is {what} of {where} again")


def run_of(record: Record, origin: Origin) -> Any:
    """Return what the records of one run have in common and no other has."""
    if record.run is not None:
        return origin.file.parent, record.run
    return origin.file, record.created, record.method.name, record.model.digest, repr(record.seeds), record.command


def _compare_score(record: Record, values: Sequence[Any], verdict: Verdict) -> None:
    if record.value is None:
        verdict.state = "no_score"
        return
    name = "mean" if record.metric.name in aggregation.MEANS else record.metric.aggregation
    try:
        computed = aggregation.score(values, name or "mean")
    except NotRecomputableError as error:
        verdict.state = "no_rule"
        if not values:
            verdict.error(f"its samples hold no value of {printable(record.metric.name)} at all ({error})")
        elif isinstance(error, NeedsPluginError):
            verdict.warn(str(error))
        elif record.metric.aggregation == "mean" and not all(map(_may_be_averaged, values)):
            verdict.error(f"its {printable(record.metric.name)} is a mean, while {error}")
        return
    if not aggregation.agree(record.value, computed, values):
        if name is None:  # some task's own function; that it is no mean is all one can tell
            verdict.state = "no_rule"
            return
        verdict.error(f"value is {record.value:.6g}, while its samples give {computed:.6g}")
    elif record.stderr is not None and record.foreign is None:  # others cluster documents, or draw other samples
        _compare_error(record.stderr, name or "mean", values, verdict)


def _compare_error(claimed: float, name: str, values: Sequence[Any], verdict: Verdict) -> None:
    """Compare a standard error with what the samples give; those that lm-eval draws, from processes of its own, stay as told."""
    try:
        if name == "mean":
            found = aggregation.standard_error(aggregation.numbers(values))
        else:
            found = aggregation.error_of_whole(values, name)
            if found is None:
                return
    except NotRecomputableError as error:
        verdict.error(f"standard error is {claimed:.6g}, while its samples give none: {error}")
        return
    if found is None or not aggregation.agree(claimed, found, values):
        verdict.error(f"standard error is {claimed:.6g}, while its samples give {found or 0:.6g}")


def _may_be_averaged(value: Any) -> bool:
    """Whether a value of a document may have been a number: the text of one that JSON has no type for may be anything."""
    if isinstance(value, int | float):
        return math.isfinite(value)
    return isinstance(value, str) and any(map(str.isdigit, value))


def _matches(claimed: str, digests: set[str]) -> bool:
    # A record's digest is one over the digests of the tasks behind it, which is one task here.
    return claimed in digests | {hashlib.sha256(digest.encode()).hexdigest()[:16] for digest in digests}


class _Texts:
    """The text of a part of a record; records share equal parts, so most were written before."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}

    def of(self, part: object) -> str:
        """Return the text of ``part``, which has to live as long as this."""
        if id(part) not in self._texts:
            self._texts[id(part)] = repr(part)
        return self._texts[id(part)]


def _shared(record: Record, texts: _Texts) -> dict[str, str]:
    """Return what all records of a run say, by the name of the field."""
    told = {name: texts.of(getattr(record, name)) for name in ("plugin", "method", "seeds")}
    told |= {f"model.{name}": repr(getattr(record.model, name)) for name in SAME_MODEL}
    for name in type(record.settings).model_fields:
        if name != "num_fewshot":  # a task may fix its own
            told[f"settings.{name}"] = repr(getattr(record.settings, name))
    return told


def _metric(record: Record) -> tuple[str, str]:
    return record.metric.name, record.metric.filter


def _method(record: Record) -> tuple[str | None, str]:
    return record.plugin.name, record.method.name


def _changes(record: Record) -> int:
    # A method that leaves the weights alone may give the baseline's answers, and says so by 0.
    return max(record.model.weights_changed or 0, 0)


def _label(record: Record) -> str:
    return f"{printable(record.method.name)} on {printable(record.model.name)} with seed {record.seeds.random}"
