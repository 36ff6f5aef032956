"""The folder of a run: each task's samples and records, whole and on disk as soon as the task has ended."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from harness.errors import Failed, HarnessError
from harness.folders import scratch_folder, write_atomic
from harness.names import counted, printable
from harness.progress import say
from harness.records import ledger, samples
from harness.records.record import Record, SamplesPart
from harness.records.run_notes import ARTEFACTS, STATUS_FILE
from harness.redaction import file_name, redact, redact_json
from harness.removal import RESULTS, put, refuse_links, remove, samples_of, temporary_of
from harness.requests import Explained, shown
from harness.run import artefacts
from harness.run.environment import now

if TYPE_CHECKING:
    from harness.run.run import Run
RECORDS_PREFIX = "records_"
COMMAND_FILE = "command.txt"
MOST_TOLD = 3


def file_of(task: str, record: Record) -> str:
    """Return the name of the file in a run's folder that holds a record of a task or group, and the others like it."""
    return f"{RECORDS_PREFIX}{file_name(task)}-{record.run_key()[:8]}.jsonl"


class NotSaved(Failed):
    """The disk refuses a run's files."""


class RunFolder:
    """One run's folder below the output folder. Methods raise ``NotSaved`` when the disk refuses."""

    def __init__(self, output: Path, name: str, *, model: str) -> None:
        """Name the folder; ``model`` names the one inside for lm-eval's own files."""
        self.output, self.path, self.model = output, output / name, file_name(model)
        self.time = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
        self._notes: dict[str, Any] = {}
        self._replaced: list[tuple[Record, Record]] = []

    @contextmanager
    def owned(
        self,
        run: Run,
        *,
        claim: str = "",
        answers: str = "",
        software: str = "",
        is_due: Callable[[], bool] | None = None,
    ) -> Iterator[bool]:
        """Keep other processes out of the folder, and note in it what runs, since when, and how it ended.

        Yields:
            Whether there is anything to do: nothing is noted where ``is_due`` says no, once nobody else is in the folder.

        Args:
            claim: what named the run before its weights were loaded, by which other processes find its records.
            answers: the name of the folder that keeps its answers until it has ended.
            software: what of software and machine has to be the same for these answers to serve.
            is_due: whether another process has not done it meanwhile; None: nobody else would.
        """
        self.refuse_links()
        self.output.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"this run is active already ({self._owner()}); waiting for it to end")
            lock.acquire()
        try:
            if is_due is not None and not is_due():
                yield False
                return
            with self._noted(run, claim=claim, answers=answers, software=software):
                yield True
        finally:
            lock.release()
            self._tell_replaced()

    @contextmanager
    def _noted(self, run: Run, *, claim: str, answers: str, software: str) -> Iterator[None]:
        self._notes = {
            "status": "running", "command": run.command(), "started": now(), "ended": None,
            "process": os.getpid(), "claim": claim, "answers": answers, "software": software, "tasks": {},
        }  # fmt: skip
        try:
            self._drop_halves()
            self._note()
            yield
            is_whole = set(self._notes["tasks"].values()) <= {"ok"}
            self._notes["status"] = "finished" if is_whole else "finished with failures"
        except KeyboardInterrupt:
            self._notes["status"] = "interrupted"
            raise
        except BaseException as error:
            self._notes |= {"status": "failed", "error": redact(str(error))}
            raise
        finally:
            self._notes["ended"] = now()
            with suppress(NotSaved):
                self._note()

    def refuse_links(self) -> None:
        """Refuse to write here when somebody put a link where a file or folder of the run belongs."""
        files = [self.path / name for name in (self.model, ARTEFACTS, STATUS_FILE, COMMAND_FILE)]
        refuse_links(self.path, self._lock_file, *files)

    @property
    def _lock_file(self) -> Path:
        return self.output / f".{self.path.name}.lock"

    def save_task(self, task: str, rows: Sequence[dict[str, Any]] | None, records: Sequence[Record]) -> list[Record]:
        """Write the samples of a task, then its records, in place of those of the same measurement made before.

        Returns:
            The records as written, with path, digest and number of rows of the sample file.
        """
        with self._telling():
            if rows is not None:
                path = self.path / self.model / f"{samples.PREFIX}{file_name(task)}_{self.time}.jsonl"
                write_atomic(path, (_sample_line(row) for row in rows))
                part = SamplesPart(
                    path=path.relative_to(self.path).as_posix(), sha256=samples.sha256(path), rows=len(rows)
                )
                records = [record.model_copy(update={"samples": part}) for record in records]
            file = self.path / file_of(task, records[0])
            earlier = _records_in(file)
            ledger.write(file, records)
            self._replaced += [(earlier[one.key()], one) for one in records if one.key() in earlier]
            if [record.digest() for record in ledger.read_file(file).records] != [r.digest() for r in records]:
                raise OSError(errno.EIO, f"{file.name} does not read back as it was written")
        self._notes["tasks"][task] = "ok" if all(record.status == "ok" for record in records) else "invalid"
        self._note()
        return list(records)

    def _tell_replaced(self) -> None:
        """Say which records of an earlier run gave way to those of this one, and which scores are others now."""
        if not self._replaced:
            return
        made = max(old.created for old, _ in self._replaced)
        others = [
            f"{new.task.name} {new.metric.name} {_score(old)} → {_score(new)}"
            for old, new in self._replaced
            if old.value != new.value
        ]
        more = f" and {len(others) - MOST_TOLD} more" if len(others) > MOST_TOLD else ""
        scores = f"other scores now: {', '.join(others[:MOST_TOLD])}{more}" if others else "the scores are the same"
        say(
            f"{counted(len(self._replaced), 'record')} of the same run, made {printable(made)}, gave way to the new ones in "
            f"{printable(self.path)}; {printable(scores)}"
        )
        self._replaced.clear()

    def note_failure(self, task: str) -> None:
        """Note that a task or group has no record, if it has none."""
        self._notes["tasks"].setdefault(task, "failed")
        self._note()

    def save_rest(self, results: dict[str, Any], tracker: Any, workdir: Path | None) -> None:
        """Write lm-eval's own file of results, the command, and the method's artefacts."""
        with self._telling():
            write_atomic(self.path / COMMAND_FILE, self._notes["command"] + "\n")
            if workdir is not None and any(path.name[0] != "." for path in workdir.iterdir()):
                artefacts.save(workdir, self.path / ARTEFACTS)
            self._write_results(results, tracker)
            self._drop_strays()

    def _write_results(self, results: dict[str, Any], tracker: Any) -> None:
        """Let lm-eval make its file, and put it in place of those of the same tasks made before."""
        rows = results.pop("samples", {})
        name, target = f"results_{self.time}.json", self.path / self.model
        with scratch_folder(self.path / "results") as folder:
            tracker.general_config_tracker.model_name_sanitized = self.model
            tracker.output_path = str(folder)
            tracker.save_results_aggregated(results=results, samples=rows)
            written = next(iter(folder.glob("*/results_*.json")), None)
            if written is None:  # lm-eval only logs what goes wrong
                raise OSError("lm-eval could not write its results file")
            content = json.loads(written.read_text(encoding="utf-8"), parse_constant=lambda _: None)
        text = json.dumps(redact_json(content), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomic(target / name, text.encode("utf-8", "replace"))
        for old in target.glob("results_*.json"):
            if old.name != name and self._replaces(old, results["results"]):
                remove(old, below=self.output, named=RESULTS)

    def _drop_halves(self) -> None:
        """Remove what a killed run was writing, and put back what it had moved out of the way."""
        for old in self.path.glob(f".{ARTEFACTS}.*.old"):
            if not (self.path / ARTEFACTS).exists() and temporary_of(ARTEFACTS).fullmatch(old.name):
                with suppress(OSError):
                    put(old, self.path / ARTEFACTS)
        named = temporary_of(
            ARTEFACTS, STATUS_FILE, COMMAND_FILE, RECORDS_PREFIX, samples.PREFIX, "results", "results_"
        )
        for path in [*self.path.glob(".*"), *(self.path / self.model).glob(".*")]:
            with suppress(OSError):
                remove(path, below=self.output, named=named, folder=True)

    def _drop_strays(self) -> None:
        """Remove sample files of our tasks that no record names: of replaced records, and of killed runs."""
        reading = ledger.read(self.path, with_foreign=False)
        if reading.problems:
            return  # a line that cannot be read may name any of them
        named = {record.samples.path for record in reading.records if record.samples}
        for task in self._notes["tasks"]:
            for path in (self.path / self.model).glob(f"{samples.PREFIX}{file_name(task)}_*.jsonl"):
                if path.relative_to(self.path).as_posix() not in named:
                    remove(path, below=self.output, named=samples_of(file_name(task)))

    def _note(self) -> None:
        with self._telling():
            write_atomic(
                self.path / STATUS_FILE, json.dumps(redact_json(self._notes), indent=1, ensure_ascii=False) + "\n"
            )

    def _owner(self) -> str:
        with suppress(OSError, ValueError):
            notes = json.loads((self.path / STATUS_FILE).read_text(encoding="utf-8"))
            return f"process {notes['process']} since {notes['started']}"
        return "by another process"

    def _replaces(self, old: Path, tasks: Collection[str]) -> bool:
        """Return whether an older file of results is of this model here, and of ``tasks`` alone."""
        try:
            content = json.loads(old.read_text(encoding="utf-8"))
            return content["model_name_sanitized"] == self.model and set(content["results"]) <= set(tasks)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NotSaved(f"could not save to '{printable(self.path)}': {error.strerror or error}") from error


def _records_in(file: Path) -> dict[str, Record]:
    """Return the records that stand in a file already, by key; of one that cannot be read none."""
    with suppress(OSError, HarnessError):
        return {record.key(): record for record in ledger.read_file(file).records} if file.is_file() else {}
    return {}


def _score(record: Record) -> str:
    return "none" if record.value is None else f"{record.value:.4f}"


def _sample_line(row: Mapping[str, Any]) -> str:
    """Return a row of a sample file as lm-eval writes it, without secrets and without NaN."""
    from lm_eval.utils import handle_non_serializable, sanitize_list

    arguments = {
        f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(request)}
        for i, request in enumerate(row["arguments"])
    }
    texts = {name: sanitize_list(shown(row[name])) for name in ("resps", "filtered_resps")}
    answers = [answer for several in row["resps"] if isinstance(several, list) for answer in several]
    traces = [answer.trace for answer in answers if isinstance(answer, Explained)]
    explained = {"traces": traces} if traces else {}
    content = {**row, **texts, "arguments": arguments, "target": str(row["target"]), **explained}
    values = json.loads(json.dumps(content, default=handle_non_serializable), parse_constant=lambda _: None)
    line = json.dumps(redact_json(values), ensure_ascii=False, allow_nan=False)
    return line.encode("utf-8", "replace").decode() + "\n"
