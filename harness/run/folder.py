"""The folder of a run: each task's samples and records, whole and on disk as soon as the task has ended."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from harness.errors import Failed
from harness.folders import link_tree, new_folder, write_atomic
from harness.names import printable, safe_name
from harness.progress import say
from harness.records import ledger, samples
from harness.records.record import Record, SamplesPart
from harness.records.run_notes import ARTEFACTS, STATUS_FILE
from harness.redaction import redact_json
from harness.requests import Explained

if TYPE_CHECKING:
    from harness.run.run import Run
RECORDS_PREFIX = "records_"


class NotSaved(Failed):
    """The disk refuses a run's files."""


class RunFolder:
    """One run's folder below the output folder. Methods raise ``NotSaved`` when the disk refuses."""

    def __init__(self, output: Path, name: str, *, model: str) -> None:
        """Name the folder; ``model`` names the one inside for lm-eval's own files."""
        self.output, self.path, self.model = output, output / name, safe_name(model)
        self.time = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
        self._notes: dict[str, Any] = {}

    @contextmanager
    def owned(self, run: Run) -> Iterator[None]:
        """Keep other processes out of the folder, and note in it what runs, since when, and how it ended."""
        self.output.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.output / f".{self.path.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"this run is active already ({self._owner()}); waiting for it to end")
            lock.acquire()
        self._notes = {
            "status": "running", "command": run.command(), "started": _now(), "ended": None,
            "process": os.getpid(), "tasks": {},
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
        except BaseException:
            self._notes["status"] = "failed"
            raise
        finally:
            self._notes["ended"] = _now()
            with suppress(NotSaved):
                self._note()
            lock.release()

    def save_task(self, task: str, rows: Sequence[dict[str, Any]] | None, records: Sequence[Record]) -> list[Record]:
        """Write the samples of a task, then its records, in place of those of the same measurement made before.

        Returns:
            The records as written, with path, digest and number of rows of the sample file.
        """
        with self._telling():
            if rows is not None:
                path = self.path / self.model / f"{samples.PREFIX}{safe_name(task)}_{self.time}.jsonl"
                write_atomic(path, (_sample_line(row) for row in rows))
                part = SamplesPart(
                    path=path.relative_to(self.path).as_posix(), sha256=samples.sha256(path), rows=len(rows)
                )
                records = [record.model_copy(update={"samples": part}) for record in records]
            file = self.path / f"{RECORDS_PREFIX}{safe_name(task)}-{records[0].run_key()[:8]}.jsonl"
            before = ledger.read_file(file).records if file.exists() else []
            ledger.write(file, records)
            if [record.digest() for record in ledger.read_file(file).records] != [r.digest() for r in records]:
                raise OSError(errno.EIO, f"{file.name} does not read back as it was written")
            self._drop_samples(before, kept=records)
        self._notes["tasks"][task] = "ok" if all(record.status == "ok" for record in records) else "invalid"
        self._note()
        return list(records)

    def note_failure(self, task: str) -> None:
        """Note that a task or group has no record, if it has none."""
        self._notes["tasks"].setdefault(task, "failed")
        self._note()

    def save_rest(self, results: dict[str, Any], tracker: Any, workdir: Path | None) -> None:
        """Write lm-eval's own file of results, the command, and the method's artefacts."""
        with self._telling():
            write_atomic(self.path / "command.txt", self._notes["command"] + "\n")
            if workdir is not None and any(path.name[0] != "." for path in workdir.iterdir()):
                with new_folder(self.path / ARTEFACTS) as folder:
                    link_tree(workdir, folder)
            self._write_results(results, tracker)
            self._drop_strays()

    def _write_results(self, results: dict[str, Any], tracker: Any) -> None:
        """Let lm-eval make its file, and put it in place of those of the same tasks made before."""
        rows = results.pop("samples", {})
        name, target = f"results_{self.time}.json", self.path / self.model
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".results.") as folder:
            tracker.general_config_tracker.model_name_sanitized = self.model
            tracker.output_path = folder
            tracker.save_results_aggregated(results=results, samples=rows)
            written = next(iter(Path(folder).glob("*/results_*.json")), None)
            if written is None:  # lm-eval only logs what goes wrong
                raise OSError("lm-eval could not write its results file")
            content = json.loads(written.read_text(encoding="utf-8"), parse_constant=lambda _: None)
        text = json.dumps(redact_json(content), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomic(target / name, text.encode("utf-8", "replace"))
        for old in target.glob("results_*.json"):
            if old.name != name and set(_tasks_in(old)) <= set(results["results"]):
                old.unlink(missing_ok=True)

    def _drop_samples(self, before: Sequence[Record], *, kept: Sequence[Record]) -> None:
        """Remove the sample files of replaced records."""
        still = {record.samples.path for record in kept if record.samples}
        for path in {record.samples.path for record in before if record.samples} - still:
            with suppress(OSError):
                (self.path / path).unlink(missing_ok=True)

    def _drop_halves(self) -> None:
        """Remove what a killed run was writing."""
        for path in [*self.path.glob(".*"), *(self.path / self.model).glob(".*.partial")]:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _drop_strays(self) -> None:
        """Remove sample files that no record names: those of a run that was killed before it wrote the records."""
        named = {record.samples.path for record in ledger.read(self.path).records if record.samples}
        for path in (self.path / self.model).glob(f"{samples.PREFIX}*.jsonl"):
            if path.relative_to(self.path).as_posix() not in named:
                path.unlink(missing_ok=True)

    def _note(self) -> None:
        with self._telling():
            write_atomic(self.path / STATUS_FILE, json.dumps(self._notes, indent=1, ensure_ascii=False) + "\n")

    def _owner(self) -> str:
        with suppress(OSError, ValueError):
            notes = json.loads((self.path / STATUS_FILE).read_text(encoding="utf-8"))
            return f"process {notes['process']} since {notes['started']}"
        return "by another process"

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NotSaved(f"could not save to '{printable(self.path)}': {error.strerror or error}") from error


def _sample_line(row: Mapping[str, Any]) -> str:
    """Return a row of a sample file as lm-eval writes it, without secrets and without NaN."""
    from lm_eval.utils import handle_non_serializable, sanitize_list

    arguments = {
        f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(request)}
        for i, request in enumerate(row["arguments"])
    }
    texts = {name: sanitize_list(row[name]) for name in ("resps", "filtered_resps")}
    answers = [answer for several in row["resps"] if isinstance(several, list) for answer in several]
    traces = [answer.trace for answer in answers if isinstance(answer, Explained)]
    explained = {"traces": traces} if traces else {}
    content = {**row, **texts, "arguments": arguments, "target": str(row["target"]), **explained}
    values = json.loads(json.dumps(content, default=handle_non_serializable), parse_constant=lambda _: None)
    line = json.dumps(redact_json(values), ensure_ascii=False, allow_nan=False)
    return line.encode("utf-8", "replace").decode() + "\n"


def _tasks_in(results_file: Path) -> list[str]:
    try:
        return list(json.loads(results_file.read_text(encoding="utf-8"))["results"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
