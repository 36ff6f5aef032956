"""A group's scores, of the tasks and documents that have the metric: lm-eval weighs a task by documents that lack it, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.names import printable
from harness.records.soundness import over_fewer

if TYPE_CHECKING:
    from harness.records.record import Record

# The share of a group's documents that may stand in several of its tasks: their errors are no longer independent.
MOST_SHARED = 0.01
SHOWN = 5


@dataclass(frozen=True)
class GroupScore:
    """One metric of a group under one filter, of the tasks that have it; without a value ``missing`` says why."""

    name: str
    filter: str
    by_size: bool = False
    members: tuple[Record, ...] = ()
    value: float | None = None
    stderr: float | None = None
    missing: str = ""
    notes: tuple[str, ...] = ()


def scores(
    group: Any, records: Sequence[Record], documents: Mapping[str, Sequence[str]], lost: Mapping[str, Sequence[str]]
) -> Iterator[GroupScore]:
    """Yield each metric that a group makes of its tasks; of one that it names twice the last entry counts, as in lm-eval.

    Args:
        group: lm-eval's, whose tasks have all been asked.
        records: of the run.
        documents: digests of the documents of each task.
        lost: metrics that a task has and that came to no value, by task.
    """
    tasks = list(dict.fromkeys(task.task_name for task in group.get_all_tasks()))
    own = [record for record in records if record.task.name in tasks and not record.task.group]
    entries: dict[tuple[str, str], Any] = {}
    for entry in group.aggregate_metric_list or []:
        there = sorted({record.metric.filter for record in own if record.metric.name == entry.metric}) or ["none"]
        entries |= {(entry.metric, name): entry for name in (there if entry.filter_list is None else entry.filter_list)}
    for key, entry in entries.items():
        members = {r.task.name: r for r in own if (r.metric.name, r.metric.filter) == key}
        yield _score(entry, key[1], tasks, members, documents, lost)


def _score(
    entry: Any,
    filter_name: str,
    tasks: Sequence[str],
    members: Mapping[str, Record],
    documents: Mapping[str, Sequence[str]],
    lost: Mapping[str, Sequence[str]],
) -> GroupScore:
    from lm_eval.api import metrics

    without = [name for name in tasks if name not in members]
    broken = [name for name in without if entry.metric in lost.get(name, ())]
    broken += [name for name, record in members.items() if record.value is None]
    if broken or not members:
        why = f"task '{printable(broken[0])}' has no value of it" if broken else "its tasks have none"
        return GroupScore(entry.metric, filter_name, entry.weight_by_size, missing=why)
    chosen = [members[name] for name in tasks if name in members]
    values, sizes = [float(r.value or 0.0) for r in chosen], [r.counts.scored for r in chosen]
    value = float(metrics.aggregate_subtask_metrics(values, sizes, entry.weight_by_size))
    notes = [
        *_lacking(entry.metric, without, len(tasks)),
        *over_fewer(entry.metric, sum(sizes), sum(record.counts.docs for record in chosen)),
        *_differing(chosen),
        *(["the group's own aggregation is not used: lm-eval takes the mean"] if callable(entry.aggregation) else []),
    ]
    errors = [record.stderr for record in chosen if record.stderr is not None]
    stderr = None
    if len(errors) == len(chosen) and min(sizes) > 1:
        if _are_shared([documents.get(record.task.name, ()) for record in chosen]):
            notes.append("its tasks ask the same documents, so their errors do not add up to one: it has none")
        elif entry.weight_by_size:
            stderr = float(metrics.pooled_sample_stderr(errors, sizes))
        else:
            stderr = float(metrics.unweighted_mean_stderr(errors))
    return GroupScore(entry.metric, filter_name, entry.weight_by_size, tuple(chosen), value, stderr, notes=tuple(notes))


def _lacking(metric: str, without: Sequence[str], of: int) -> list[str]:
    if not without:
        return []
    named = ", ".join(map(printable, without[:SHOWN])) + (
        f" and {len(without) - SHOWN} more" if without[SHOWN:] else ""
    )
    return [f"{printable(metric)} is over {of - len(without)} of {of} tasks: {named} {_has(without)} none"]


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _differing(records: Sequence[Record]) -> list[str]:
    """Return a sentence for each thing on which the tasks of a group do not agree."""
    shots = sorted({record.settings.num_fewshot or 0 for record in records})
    ways = {record.metric.higher_is_better for record in records}
    notes = []
    if len(shots) > 1:
        notes.append(f"its tasks have {', '.join(map(str, shots[:-1]))} and {shots[-1]} shots")
    if len(ways) > 1:
        notes.append("its tasks do not agree on whether higher is better")
    return notes


def _are_shared(documents: Sequence[Sequence[str]]) -> bool:
    """Return whether more than a few of the documents stand in more than one task."""
    counted = Counter(digest for of_task in documents for digest in set(of_task))
    return sum(count for count in counted.values() if count > 1) > MOST_SHARED * counted.total()
