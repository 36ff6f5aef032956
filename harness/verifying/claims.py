"""What a record says of itself that cannot be: values out of bounds, counts that contradict, a command that says other."""

from __future__ import annotations

import functools
import math
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from harness.arguments import parse_args
from harness.errors import HarnessError
from harness.names import printable
from harness.records.bounds import OF_AGGREGATIONS
from harness.records.record import Record
from harness.verifying.sampled import REDACTED

Severity = Literal["error", "warning"]
Doubt = tuple[Severity, str]

# Between which numbers a metric lies, by its name; None is no bound.
BOUNDS: dict[str, tuple[float | None, float | None]] = {
    **dict.fromkeys(("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"), (0.0, 1.0)),
    **dict.fromkeys(("perplexity", "word_perplexity", "byte_perplexity"), (1.0 - 1e-6, None)),
    "bits_per_byte": (0.0, None),
    "mcc": (-1.0, 1.0),
    "brier_score": (0.0, 2.0),
    **dict.fromkeys(("bleu", "chrf", "chrf++"), (0.0, 100.0 + 1e-9)),
}
AHEAD = timedelta(days=1)


def doubts(record: Record) -> Iterator[Doubt]:
    """Yield what cannot be true of a record, or need not be, as severity and sentence; its samples are not looked at."""
    yield from of_the_score(record)
    if record.foreign is not None:  # what else it says is another tool's word
        return
    yield from _extent(record)
    yield from _command(record)
    yield from _time(record)


def of_the_score(record: Record) -> Iterator[Doubt]:
    """Yield what cannot be true of value, error and counts."""
    yield from _value(record)
    yield from _counts(record)


def _value(record: Record) -> Iterator[Doubt]:
    of_aggregation = OF_AGGREGATIONS.get(record.metric.aggregation or "", (None, None))
    low, high = BOUNDS.get(record.metric.name, of_aggregation)
    value = record.value
    if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
        bounds = f"from {low:g} to {high:g}" if high is not None else f"{low:g} or more"
        yield "error", f"value {value:g} is none of {printable(record.metric.name)}, which is {bounds}"
    if record.stderr is not None and record.stderr < 0:
        yield "error", f"standard error {record.stderr:g} is below 0"
    if record.is_baseline and (record.plugin.name or record.model.weights_changed):
        yield "error", "it is called the baseline, while a plugin is named or weights were changed"


def _counts(record: Record) -> Iterator[Doubt]:
    counts = record.counts
    numbers = {name: value for name, value in counts.model_dump().items() if isinstance(value, int)}
    for name, number in numbers.items():
        if number < 0:
            yield "error", f"counts.{printable(name)} is {number}"
    if counts.docs == 0 and record.value is not None and record.states("counts.docs"):
        yield "error", "it has a score over no document"
    if counts.not_finite and record.status != "invalid":
        yield "error", f"{counts.not_finite} requests have no finite score, so the task has none, but status is ok"
    if counts.requests is not None:
        for name in ("truncated_requests", "not_finite", "empty_answers", "distinct_answers", "cut_in_thinking"):
            if numbers.get(name, 0) > counts.requests:
                yield "error", f"counts.{name} is {numbers[name]} of {counts.requests} requests"
    if record.task.size is not None and counts.docs > record.task.size:
        yield "error", f"{counts.docs} documents were asked of a task of {record.task.size}"


def _extent(record: Record) -> Iterator[Doubt]:
    """A run over some of the documents has to say so."""
    size, docs, limit = record.task.size, record.counts.docs, record.settings.limit
    if size is None or record.settings.samples_digest is not None or (record.task.group and limit is not None):
        return
    due = size if limit is None else min(size, int(limit) if limit >= 1 else math.ceil(size * limit))
    if docs < due:
        whole = "without a limit" if limit is None else f"with limit {limit:g}"
        yield "error", f"{docs} documents were asked, where {due} of {size} are due {whole}"
    elif docs > due and limit is not None:
        yield "error", f"{docs} documents were asked, where limit {limit:g} allows {due}"


def _time(record: Record) -> Iterator[Doubt]:
    try:
        created = datetime.fromisoformat(record.created)
    except ValueError:
        yield "warning", f"created '{printable(record.created)[:40]}' is no date"
        return
    if created.tzinfo is None:
        created = created.replace(tzinfo=UTC)
    if created > datetime.now(UTC) + AHEAD:
        yield "warning", f"created {printable(record.created)} is in the future"


def _command(record: Record) -> Iterator[Doubt]:
    """Compare the fields with the command that is said to have made them; nothing of it is run."""
    given = flags(record.command)
    if not given:
        return
    settings, seeds = record.settings, record.seeds
    if "seed" in given:
        words = [None if word == "None" else _number(word) for word in given["seed"].split(",")]
        if len(words) == 4 and words != [seeds.random, seeds.numpy, seeds.torch, seeds.fewshot]:
            yield "error", f"seeds are not those of its command, {printable(given['seed'])}"
    if (_number(given["limit"]) if "limit" in given else None) != settings.limit:
        yield "error", f"limit is {settings.limit}, in its command {printable(given.get('limit'))}"
    if ("samples" in given) != (settings.samples_digest is not None):
        yield "error", "its command and settings.samples_digest disagree on whether documents were picked by --samples"
    shots = _number(given.get("num_fewshot", ""))
    if shots is not None and settings.num_fewshot not in {0, None, shots}:
        yield "error", f"num_fewshot is {settings.num_fewshot}, in its command {shots:g}"
    if given.get("quantization", "none") != record.model.quantization:
        yield "error", f"quantization is {printable(record.model.quantization)}, in its command another"
    for name in ("method_args", "model_args"):
        text = given.get(name, "")
        if _read(text) is None and not any(mark in text for mark in REDACTED):
            yield "warning", f"--{name} of its command cannot be read"
    yield from _method_of_command(record, given)
    name = Path(pairs(given.get("model_args", "")).get("pretrained", "")).name
    if name and not any(mark in name for mark in REDACTED) and name != Path(record.model.name).name:
        yield "warning", f"the model is called {printable(record.model.name)}, in its command {printable(name)}"


def _method_of_command(record: Record, given: Mapping[str, str]) -> Iterator[Doubt]:
    if record.is_baseline:
        return
    if given.get("plugin") != record.plugin.name:
        named = printable(given.get("plugin"))
        yield "error", f"the plugin is {printable(record.plugin.name)}, in its command {named}"
    if given.get("method", record.method.name) != record.method.name:
        yield "error", f"the method is {printable(record.method.name)}, in its command {printable(given['method'])}"
    for name, text in pairs(given.get("method_args", "")).items():
        said, value = _number(text), record.method.options.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if said is not None and is_number and said != value:
            yield "error", f"option {printable(name)} is {value:g}, in its command {said:g}"


def pairs(text: str) -> dict[str, str]:
    """Return the values of ``k=v,k=v`` or of a JSON object as text, as a command line is read; what is nested is left out.

    Empty where no command line could say it.
    """
    read = _read(text) or {}
    return {name: str(value) for name, value in read.items() if isinstance(value, str | int | float)}


def _read(text: str) -> dict[str, Any] | None:
    try:
        return parse_args(text, flag="its command")
    except (HarnessError, RecursionError):
        return None


@functools.lru_cache(maxsize=256)  # the records of a run share their command
def flags(command: str) -> Mapping[str, str]:
    """Return the flags of a recorded command with their texts, a switch with an empty one; empty when it is none of ours."""
    try:
        words = shlex.split(command)
    except ValueError:
        return {}
    if words[:2] != ["harness", "eval"]:
        return {}
    found: dict[str, str] = {}
    name = ""
    for word in words[2:]:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            found[name] = value
        elif name:
            found[name] = f"{found[name]} {word}".strip()
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
