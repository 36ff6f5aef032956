"""Runs that are killed and started again: do they end as if nothing had happened?"""

from __future__ import annotations

import hashlib
import json
import math
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from forked_runs import FORWARD, Ended, ForkedRuns

from harness.records import ledger, samples
from harness.records.record import Record

HERE = Path(__file__).parent
TASKS = ("choose_sums", "choose_shown_sums", "write_sums")
METHOD = ("--plugin", "stochastok", "--method_args", "steps=2,batch_size=2,context_length=64", "--with_baseline")
# Every answer at once on disk: these tasks take less time than passes between two writings otherwise.
AT_ONCE = {"harness.run.journal:FLUSH_SECONDS": 0}
# What says when and how fast, not what: it differs between two runs of one command.
TIMES = {"created", "cost", "digest"}

Kill = tuple[str, float]


def command(model: Path, *flags: str, output: str = "out") -> list[str]:
    """Return the words that evaluate the tiny model on two tasks, their group and a task of generation."""
    tasks = ["--include_path", str(HERE / "kill_tasks"), "--tasks", "sums,write_sums"]
    return ["eval", "--model_args", json.dumps({"pretrained": str(model)}), *tasks, "--output_path", output, *flags]


@dataclass(frozen=True)
class Aftermath:
    """What became of a run that was killed and started again.

    Counted are records that are ``lost``, ``torn`` (lines that are none), ``doubled``, or ``differing`` from those of a run
    that was not killed, and ``litter``: files that such a run does not leave. ``change``: by how much a log-likelihood
    differs at most; ``repeated``: passes of the model beyond those of such a run; ``reused``: answers that were taken from
    before; ``faults``: sentences about what else is wrong.
    """

    kills: tuple[Kill, ...]
    stages: tuple[str, ...]
    lost: int = 0
    torn: int = 0
    doubled: int = 0
    differing: int = 0
    litter: int = 0
    change: float = 0.0
    repeated: int = 0
    reused: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether it ended as if nothing had happened."""
        return not (self.lost or self.torn or self.doubled or self.differing or self.faults or self.change > 1e-4)


class KilledRuns:
    """One command, once run to its end without a kill, to compare with."""

    def __init__(self, runs: ForkedRuns, folder: Path, words: Sequence[str], **wishes: Any) -> None:
        """Run the command without a kill."""
        self._runs, self._folder, self._words, self._number = runs, folder, list(words), 0
        self._wishes = {"settings": AT_ONCE} | wishes
        place = self._place("whole")
        started = time.monotonic()
        self.whole = runs.run(self._words, place, count=True, **self._in(place))
        self.seconds = time.monotonic() - started
        assert self.whole.code == 0, self.whole.err
        reading = ledger.read(place / "out")
        self.records = by_key(reading.records)
        found = {r.key(): samples.find(r, o.file) for r, o in zip(reading.records, reading.origins, strict=True)}
        self.samples = {key: path for key, path in found.items() if path is not None}
        self.files = Counter(_files(place / "out"))

    def points(self, draw: random.Random, n: int) -> list[Kill]:
        """Return ``n`` kills: each kind of call in turn at a random one of them, and every other at a random moment."""
        names = sorted(self.whole.counts)
        kills: list[Kill] = []
        for number in range(n):
            name = names[number // 2 % len(names)]
            at_call = (name, draw.randint(1, self.whole.counts[name]))
            kills.append(("seconds", draw.uniform(0, self.seconds)) if number % 2 else at_call)
        return kills

    def survive(self, *kills: Kill) -> Aftermath:
        """Kill the command once for each of ``kills``, one after the other in one place, then run it to its end."""
        self._number += 1
        place = self._place(f"killed-{self._number}")
        stages, passes = [], 0
        for kill in kills:
            killed = self._kill(kill, place)
            stages.append(stage_of(killed))
            passes += killed.counts[FORWARD]
        last = self._runs.run(self._words, place, count=True, **self._in(place))
        return self._compare(place, last, kills, tuple(stages), passes)

    def survive_failure(self, name: str, k: int, code: int, *, for_good: bool) -> Aftermath:
        """Let a call of the command fail, then run it to its end."""
        self._number += 1
        place = self._place(f"failed-{self._number}")
        failed = self._runs.run(self._words, place, fail_at=[name, k, code, for_good], **self._in(place))
        last = self._runs.run(self._words, place, count=True, **self._in(place))
        aftermath = self._compare(place, last, ((name, k),), (stage_of(failed),), 0)
        faults = ["a traceback"] if "Traceback" in failed.err else []
        if failed.code not in {0, 1, 2}:
            faults.append(f"exit status {failed.code}")
        return replace(aftermath, faults=aftermath.faults + faults)

    def _kill(self, kill: Kill, place: Path) -> Ended:
        name, amount = kill
        if name != "seconds":
            return self._runs.run(self._words, place, count=True, die_at=[name, amount], **self._in(place))
        run = self._runs.start(self._words, place, count=True, **self._in(place))
        time.sleep(amount)
        run.send(signal.SIGKILL)
        return run.wait()

    def _compare(
        self, place: Path, last: Ended, kills: tuple[Kill, ...], stages: tuple[str, ...], passes: int
    ) -> Aftermath:
        out, faults = place / "out", []
        if last.code:
            faults.append(f"exit status {last.code}: {last.err[-400:]}")
        reading = ledger.read(out) if out.exists() else ledger.Reading()
        found, changes = by_key(reading.records), [0.0]
        for record, origin in zip(reading.records, reading.origins, strict=True):
            if (fault := sample_fault(record, origin.file)) is not None:
                faults.append(fault)
            elif record.key() in self.samples and (path := samples.find(record, origin.file)) is not None:
                changes.append(largest_change(path, self.samples[record.key()]))
        files = Counter(_files(out))
        if missing := self.files - files:
            faults.append(f"files are missing: {sorted(missing)}")
        return Aftermath(
            kills=kills,
            stages=stages,
            lost=len(self.records.keys() - found.keys()),
            torn=len(reading.problems),
            doubled=len(reading.records) - len(found),
            differing=sum(
                content(found[key]) != content(self.records[key]) for key in found.keys() & self.records.keys()
            )
            + len(found.keys() - self.records.keys()),
            litter=(files - self.files).total(),
            change=max(changes),
            repeated=passes + last.counts[FORWARD] - self.whole.counts[FORWARD],
            reused=reused_answers(last),
            faults=faults,
        )

    def _place(self, name: str) -> Path:
        place = self._folder / name
        place.mkdir(parents=True)
        return place

    def _in(self, place: Path) -> dict[str, Any]:
        return self._wishes | {"environment": {"HARNESS_CACHE": str(place / "cache")}}


def by_key(records: Sequence[Record]) -> dict[str, Record]:
    """Return records by what they measured."""
    return {record.key(): record for record in records}


def content(record: Record) -> Any:
    """Return what of a record has to be equal in two runs of one command; samples are compared by ``largest_change``."""
    kept = {name: part for name, part in record.content().items() if name not in TIMES}
    if kept.get("samples"):
        kept["samples"] = kept["samples"]["rows"]
    return _without_seconds(kept)


def _without_seconds(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {name: _without_seconds(value) for name, value in part.items() if name != "seconds"}


def largest_change(one: Path, other: Path) -> float:
    """Return by how much log-likelihoods in two sample files differ at most; infinity when anything else differs.

    A run that goes on asks other requests together than one that was not killed, and that moves the last digit.
    """
    changes = [0.0]
    rows, others = list(samples.rows(one)), list(samples.rows(other))
    for row, another in zip(rows, others, strict=True):
        flat, flat_other = list(_leaves(row)), list(_leaves(another))
        if len(flat) != len(flat_other):
            return math.inf
        changes += [_change(*pair) for pair in zip(flat, flat_other, strict=True)]
    return max(changes)


def _leaves(part: Any) -> Iterator[Any]:
    if isinstance(part, dict | list):
        for value in part.values() if isinstance(part, dict) else part:
            yield from _leaves(value)
    else:
        yield part


def _change(one: Any, other: Any) -> float:
    if one == other:
        return 0.0
    try:
        return abs(float(one) - float(other))
    except (TypeError, ValueError):
        return math.inf


def differs(one: Record, other: Record) -> bool:
    """Return whether two records of one measurement differ in more than times."""
    return content(one) != content(other)


def sample_fault(record: Record, file: Path) -> str | None:
    """Return what is wrong with the sample file of a record, None when it is there and whole."""
    if record.samples is None:
        return None if record.task.group else f"{record.task.name} has no samples"
    path = samples.find(record, file)
    if path is None:
        return f"{record.samples.path} is not there"
    if hashlib.sha256(path.read_bytes()).hexdigest() != record.samples.sha256:
        return f"{record.samples.path} has another digest"
    return None


def reused_answers(run: Ended) -> int:
    """Return how many answers a run says it had from before."""
    for line in run.err.splitlines():
        if "answers were there from an interrupted run" in line:
            return int(line.split()[0].replace(",", ""))
    return 0


def stage_of(run: Ended) -> str:
    """Return what a run was doing when it ended, as far as it says."""
    said = run.err
    if not said.strip():
        return "starting"
    if "evaluating" not in said:
        return "loading"
    if "evaluating stochastok" in said:
        return "asking after the method"
    # What was shared is told at the end of the untouched model's tasks.
    return "applying the method" if "tokens asked for" in said else "asking"


def _files(folder: Path) -> Iterator[str]:
    """Yield the names of all files below a folder, without the times and process numbers in them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.endswith(".lock"):
            parts = path.relative_to(folder).as_posix()
            yield "".join("#" if character.isdigit() else character for character in _without_time(parts))


def _without_time(name: str) -> str:
    head, mark, tail = name.rpartition("_2")
    return f"{head}_TIME{tail[tail.rindex('.') :]}" if mark and "T" in tail else name
