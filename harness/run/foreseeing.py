"""What a run would ask, what of it is there already and what it will take, found out without reading weights."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.methods import Baseline, parts
from harness.models.files import weight_files
from harness.models.kinds import kind_of
from harness.names import counted, printable
from harness.records import ledger
from harness.records.run_notes import KILLED, ended, notes_of, status_of
from harness.run import estimating, journal
from harness.run.applying import earlier_work, work_folder
from harness.run.asking import told
from harness.run.baselines import baseline_of, reusable_records
from harness.run.chat import fitted
from harness.run.claims import folders_of
from harness.run.estimating import Estimate, Size
from harness.run.identity import deciding, describe_model, software_of
from harness.run.metrics import Metrics
from harness.run.preparing import Prepared
from harness.run.questions import build, draws_answers, shots
from harness.run.run import Run
from harness.run.surroundings import undisturbed
from harness.seeds import seed_for_task
from harness.tasks import fit

if TYPE_CHECKING:
    from harness.records.record import Record


@dataclass(frozen=True)
class TaskAhead:
    """What one task will ask.

    Attributes:
        requests: how many of each type.
        tokens: of prompts and continuations that enter the model, each request by itself.
        distinct_tokens: the same with common beginnings once: the least that any way of sharing needs.
        new_tokens: of texts that are generated, at most.
        truncated: requests that are cut to fit the context.
        kept: answers that a run which was stopped left.
        is_drawn: answers are drawn at random.
    """

    name: str
    documents: int
    shots: int
    requests: Mapping[str, int]
    tokens: int
    distinct_tokens: int
    new_tokens: int
    truncated: int
    kept: int
    is_drawn: bool
    seconds: Estimate | None


@dataclass(frozen=True)
class Ahead:
    """A run before it is one.

    Attributes:
        model: its name, parameters, type of weights, bytes of its files and where it will be.
        earlier: a sentence for each thing of it that is there already, and for what is not.
        apply_seconds: of the method; 0 where it is the untouched model, or its work is reused.
        peak_bytes: of the process, or of the device where that is a GPU.
        failures: a task that cannot be asked, as ``harness eval`` would tell it.
        checked_seconds, counted_seconds: what the checks took, and making the requests with their tokens.
    """

    run: Run
    method: str
    model: Mapping[str, Any]
    tasks: tuple[TaskAhead, ...]
    earlier: tuple[str, ...]
    apply_seconds: Estimate | None
    peak_bytes: Estimate | None
    is_asked_twice: bool
    failures: tuple[HarnessError, ...] = ()
    notes: tuple[str, ...] = ()
    checked_seconds: float = 0.0
    counted_seconds: float = 0.0


@dataclass
class Unread:
    """The LM without its weights, where one is asked for what would be asked; ``is_loaded``: it always is there."""

    of: Any
    is_loaded: bool = field(default=True, init=False)

    def lm(self) -> Any:
        """Return the LM."""
        return self.of


def foresee(prepared: Prepared, *, checked_seconds: float) -> Ahead:
    """Make the requests of a run whose checks have passed, and look for what is there already.

    Args:
        checked_seconds: what the checks took.

    Raises:
        HarnessError: as ``evaluate``, of whatever it would find before weights are read.
    """
    started, run = time.monotonic(), prepared.run
    lm = kind_of(run.model).unread(prepared.source)
    fit.give_tokenizer(prepared.tasks.tasks, lm.tokenizer)
    fitting = fitted(run, prepared.tasks.tasks, lm)
    asked = replace(prepared, run=fitting.run)
    records = _records(run.output_path)
    base, device = describe_model(lm), kind_of(run.model).device(run.device)
    like = estimating.alike(prepared, records, device=device, dtype=str(base["dtype"]))
    software = software_of(deciding(asked, base, device=device).picked("journal"))
    found, failures = _tasks(asked, lm, like, software)
    baseline = _baseline(asked, lm)
    earlier = [*_own_records(prepared, records), *_work(prepared, device), *(baseline or ())]
    return Ahead(
        run, prepared.method.name, _model(prepared, base, device), found, tuple(earlier),
        _apply_seconds(prepared, like, device), estimating.peak_bytes(like, prepared.method.name),
        is_asked_twice=baseline is not None and not baseline[0].startswith(REUSED), failures=failures,
        notes=tuple(f"{name}: {note}" for name, note in fitting.notes.items()),
        checked_seconds=checked_seconds, counted_seconds=time.monotonic() - started,
    )  # fmt: skip


REUSED = "baseline: reused"
GOES_ON = "; the same command goes on"


def _records(output: Path) -> list[Record]:
    return list(ledger.read(output).records) if output.is_dir() and any(output.iterdir()) else []


def _tasks(
    prepared: Prepared, lm: Any, like: Sequence[Record], software: str
) -> tuple[tuple[TaskAhead, ...], tuple[HarnessError, ...]]:
    found, failures = [], []
    kept = frozenset[str]().union(*map(journal.kept_in, _with_answers(prepared, software)))
    for name, task in prepared.tasks.tasks.items():
        try:
            with undisturbed(f"task '{printable(name)}'", all_of_it=False):
                Metrics(task).check()
                found.append(_task(prepared, name, task, lm, like, kept))
        except (Exception, SystemExit) as error:
            failures.append(told(error, name))
    return tuple(found), tuple(failures)


def _task(prepared: Prepared, name: str, task: Any, lm: Any, like: Sequence[Record], kept: Set[str]) -> TaskAhead:
    run = prepared.run
    seed_for_task(run.seeds)
    build(task, run, lm)
    asked: dict[str, list[Any]] = {}
    for instance in task.instances:  # as lm-eval hands them to an LM
        asked.setdefault(instance.request_type, []).extend([instance] * (instance.repeats or 1))
    lm.start_counting()
    for kind, requests in asked.items():
        if kind in lm.answers:
            getattr(lm, kind)(requests)
    docs = len({instance.doc_id for instance in task.instances if instance.doc_id >= 0})
    there = sum(journal.count_kept(kept, kind, requests) for kind, requests in asked.items())
    number, writes = shots(task, run), "generate_until" in asked
    size = Size(name, number, docs, lm.work.requested_tokens, lm.work.distinct_tokens, writes)
    return TaskAhead(
        name, docs, number, {kind: len(requests) for kind, requests in asked.items()}, lm.work.requested_tokens,
        lm.work.distinct_tokens, lm.new_tokens, sum(lm.truncated.values()), there, draws_answers(task, run),
        estimating.seconds(size, like, prepared.method.name),
    )  # fmt: skip


def _with_answers(prepared: Prepared, software: str) -> Iterator[Path]:
    """Yield the folders with the answers of runs like this one that were stopped, and made with the same software."""
    for folder in folders_of(prepared):
        notes = notes_of(folder)
        answers = notes.get("answers")
        serves = not ended(folder) and notes.get("software") == software
        if serves and isinstance(answers, str) and answers and Path(answers).name == answers:
            yield prepared.output / journal.FOLDER / answers


def _own_records(prepared: Prepared, records: Sequence[Record]) -> Iterator[str]:
    """Yield what earlier runs of just this left: their records are made anew, and take the place of the old ones."""
    there, names = False, {*prepared.tasks.tasks, *prepared.tasks.groups}
    for folder in folders_of(prepared):
        there = True
        mine = [record for record in records if record.run == folder.name and record.task.name in names]
        place, notes = printable(prepared.run.output_path / folder.name), notes_of(folder)
        if ended(folder):
            what = f"{counted(len(mine), 'record')} of these tasks" if mine else "records of other tasks"
            yield (
                f"run: ended before, {printable(notes.get('ended'))}, with {what} in {place}"
                + ("; they give way to new ones: all is asked again" if mine else "")
            )
        else:
            status = status_of(folder)
            going_on = "" if status == KILLED else "; the same command waits for it" if status == "running" else GOES_ON
            yield f"run: {printable(status)}{going_on} ({place})"
    if not there:
        yield f"run: none like it in {printable(prepared.run.output_path)}"


def _work(prepared: Prepared, device: str) -> Iterator[str]:
    """Yield what is there of the method's work."""
    if isinstance(prepared.method, Baseline):
        return
    name, folder = printable(prepared.method.name), work_folder(prepared, device=device)
    finished = None if prepared.run.no_cache else earlier_work(prepared, device=device)
    if finished is not None:
        yield f"method: {name} was applied with exactly these inputs ({finished.get('seconds', 0):.1f} s then); it is reused"
    elif parts.are_kept(folder) and not prepared.run.no_cache:
        yield f"method: {name} was stopped while it was applied; it goes on with the parts that are done"
    else:
        yield f"method: {name} has to be applied"


def _baseline(prepared: Prepared, lm: Any) -> list[str] | None:
    """Return what is there of the untouched model's records, None where they are not asked for."""
    if not prepared.run.with_baseline or isinstance(prepared.method, Baseline):
        return None
    found = reusable_records(baseline_of(prepared), Unread(lm), tells=False)
    if not found:
        return ["baseline: has no records that serve; the untouched model is asked first"]
    return [f"{REUSED}, {len(found)} records of {printable(prepared.run.output_path / str(found[0].run))}"]


def _apply_seconds(prepared: Prepared, like: Sequence[Record], device: str) -> Estimate | None:
    if isinstance(prepared.method, Baseline):
        return Estimate(0.0, "nothing is applied")
    if not prepared.run.no_cache and earlier_work(prepared, device=device) is not None:
        return Estimate(0.0, "its work is reused")
    return estimating.apply_seconds(prepared, like)


def _model(prepared: Prepared, base: Mapping[str, Any], device: str) -> dict[str, Any]:
    source = prepared.source
    files = weight_files(Path(source.location)) if source.is_local else []
    if source.gguf_file and source.is_local:
        files = [Path(source.location) / source.gguf_file]
    return {
        "name": source.name, "revision": source.revision, "adapter": source.peft, "parameters": base["parameters"],
        "dtype": base["dtype"], "quantization": source.quantization, "device": device, "digest": source.digest,
        "bytes_of_files": sum(path.stat().st_size for path in files) or None,
    }  # fmt: skip


def as_json(ahead: Ahead) -> dict[str, Any]:
    """Return what is foreseen as JSON values."""
    from dataclasses import asdict

    known = {name: value for name, value in vars(ahead).items() if name not in {"run", "tasks", "failures"}}
    known = {name: asdict(value) if isinstance(value, Estimate) else value for name, value in known.items()}
    content = {
        "command": ahead.run.command(),
        **known,
        "tasks": [asdict(task) for task in ahead.tasks],
        "failures": [str(failure) for failure in ahead.failures],
    }
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return plain
