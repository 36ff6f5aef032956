"""The shards of a run that are answered: one file beside the answers, to which each adds a line as it ends a task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.folders import append_lines
from harness.models.tree.work import Work
from harness.names import counted
from harness.run.journal import MARKS, SHARD, line_of, pairs_of
from harness.run.shard import Shard

MOST_NAMED = 10


@dataclass(frozen=True)
class Mark:
    """What one shard says of one task, all of which that is its own it has asked.

    Attributes:
        asked: the digest of all requests of the task, so that edited questions are not taken for those that were answered.
        work: what that took, None where nobody counts.
        peak_bytes: as in a record; None where it is not known.
        claim: what named the run before its weights were loaded.
    """

    shard: Shard
    task: str
    asked: str
    work: Work | None = None
    peak_bytes: int | None = None
    claim: str = ""


def add(folder: Path, mark: Mark) -> None:
    """Note on disk that a shard has asked its part of a task; once is enough.

    Raises:
        OSError: the disk refuses.
    """
    if any((one.shard, one.task, one.asked) == (mark.shard, mark.task, mark.asked) for one in read(folder)):
        return
    key = json.dumps([str(mark.shard), mark.task])
    work = None if mark.work is None else mark.work.describe()
    value = {"asked": mark.asked, "work": work, "peak_bytes": mark.peak_bytes, "claim": mark.claim}
    append_lines(folder / MARKS, lambda _: [line_of(SHARD + key, value)])


def read(folder: Path) -> list[Mark]:
    """Return what is noted in the folder of a run's answers; what is damaged, or of another form, is not there."""
    found = []
    for key, value in pairs_of(folder / MARKS):
        try:
            number, task = json.loads(key.removeprefix(SHARD))
            work = None if value["work"] is None else Work.of(value["work"])
            peak = None if value["peak_bytes"] is None else int(value["peak_bytes"])
            found.append(Mark(Shard.of(number), str(task), str(value["asked"]), work, peak, str(value["claim"])))
        except (HarnessError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return found


def missing(marks: Iterable[Mark], count: int, asked: Mapping[str, str]) -> list[int]:
    """Return the numbers of the shards, of ``count``, that have not answered all tasks.

    Args:
        asked: the digest of the requests of each task.
    """
    there = {
        (mark.shard.number, mark.task)
        for mark in marks
        if mark.shard.count == count and asked.get(mark.task) == mark.asked
    }
    return [number for number in range(1, count + 1) if any((number, task) not in there for task in asked)]


def work_of(marks: Iterable[Mark], own: Work | None) -> Work | None:
    """Return the work of shards and this process's own, all together."""
    total = own
    for mark in marks:
        if mark.work is not None and total is not None:
            reason = total.reason or mark.work.reason
            total = mark.work.plus(total)
            total.reason = reason
    return total


def sentence(shard: Shard, lacking: Sequence[int]) -> str:
    """Return what to tell of a shard that has ended before others."""
    named = ", ".join(map(str, lacking[:MOST_NAMED]))
    more = f" and {counted(len(lacking) - MOST_NAMED, 'other')}" if len(lacking) > MOST_NAMED else ""
    return (
        f"{shard.title} is answered; the records come with the last one ({shard.count - len(lacking)} of {shard.count} answered: "
        f"missing {named}{more}), or with the same command without --shard, which asks what is missing"
    )
