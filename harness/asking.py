"""Have lm-eval ask the tasks, one after the other, and keep each one's scores as soon as they are there."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import Failed, HarnessError
from harness.journal import Journal
from harness.names import printable
from harness.progress import is_first_process, quiet, say
from harness.results import (
    Effort,
    RecordMaker,
    aggregations_of,
    group_aggregations_of,
    leaf_tasks,
    run_identity,
    run_name,
)
from harness.run_folder import NotSaved, RunFolder
from harness.timeouts import limited

if TYPE_CHECKING:
    from harness.applying import Applied
    from harness.records.record import Record
    from harness.run import Prepared

# What is left of a task's samples once they are on disk: lm-eval digests these for its results file.
KEPT_OF_SAMPLES = ("doc_hash", "prompt_hash", "target_hash")


@dataclass
class Asked:
    """The records of what could be asked, and a sentence for each task that has no score."""

    records: list[Record] = field(default_factory=list)
    failures: list[HarnessError] = field(default_factory=list)

    def add(self, other: Asked) -> None:
        """Take in what another method gave."""
        self.records += other.records
        self.failures += other.failures


def ask(prepared: Prepared, applied: Applied, base: Mapping[str, Any]) -> Asked:
    """Ask and score with lm-eval and save, task by task; no records in any but the first of several processes.

    A task that fails is told and the next ones are asked. Answers of an interrupted run are not asked for again.

    Args:
        base: ``describe_model`` of the LM before the method.

    Raises:
        HarnessError: the LM cannot answer a task.
        NotSaved: the disk refuses; the scores are printed.
    """
    from harness import tasks

    lm: Any = applied.lm
    tasks.check_fit(prepared.tasks.tasks, lm)
    tasks.give_tokenizer(prepared.tasks.tasks, lm.tokenizer)
    say(f"evaluating {printable(prepared.method.name)} on {', '.join(map(printable, prepared.tasks.requested))}")
    asking = _Asking(prepared, applied, base)
    if not is_first_process():
        return asking.run()
    with asking.folder.owned(prepared.run):
        return asking.run()


class _Asking:
    """One method on one model, asked all tasks."""

    def __init__(self, prepared: Prepared, applied: Applied, base: Mapping[str, Any]) -> None:
        from lm_eval.loggers import EvaluationTracker

        self.prepared, self.applied, self.lm = prepared, applied, applied.lm
        name = run_name(prepared, base)
        self.tracker = EvaluationTracker()
        self.folder = RunFolder(prepared.run.output_path, name, model=prepared.source.name)
        self.maker = RecordMaker(prepared, applied, base, run_name=name)
        environment = self.maker.shared["environment"].model_dump()
        tokenizer = self.maker.shared["tokenizer"].model_dump()
        identity = run_identity(prepared, base) | {"environment": environment, "tokenizer": tokenizer}
        self.journal = Journal(prepared.run.output_path, identity, rank=getattr(self.lm, "rank", 0))
        self.parts: dict[str, dict[str, Any]] = {}
        self.asked = Asked()
        self.total: Any = None

    def run(self) -> Asked:
        """Ask the tasks one after the other, then make the groups' scores of theirs."""
        from harness.models.guards import NotFinite

        names = list(self.prepared.tasks.tasks)
        for number, name in enumerate(names, start=1):
            started = time.monotonic()
            try:
                self._ask_task(name)
            except HarnessError as error:
                self._note_failure(error)
            if len(names) > 1:
                say(f"{number} of {len(names)} tasks: {printable(name)}, {time.monotonic() - started:.1f} s")
        if not is_first_process():
            return Asked()
        if self.journal.reused:
            say(f"{self.journal.reused:,} answers were there from an interrupted run and not asked for again")
        if self.total is not None and self.total.pushed_tokens:
            say(self.total.sentence())
        if self.parts:
            self._finish()
        if all(isinstance(failure, NotFinite) for failure in self.asked.failures):
            self.journal.remove()  # nothing is left that asking again would mend
        return self.asked

    def _ask_task(self, name: str) -> None:
        from harness.models.guards import NotFinite
        from harness.records.environment import measured_peak

        task, started = self.prepared.tasks.tasks[name], time.monotonic()
        if hasattr(self.lm, "start_counting"):
            self.lm.start_counting()
        try:
            with (
                measured_peak(str(getattr(self.lm, "device", "cpu"))) as peak,
                limited(self.prepared.run.timeout_task, f"task '{printable(name)}'"),
                self.journal.answering(self.lm),
            ):
                results = _simple_evaluate(self.prepared, self.lm, task, self.tracker)
        except NotFinite as error:
            docs = len({instance.doc_id for instance in task.instances})
            effort = self._effort(name, time.monotonic() - started, None)
            self._keep(name, None, self.maker.invalid(task, docs=docs, not_finite=error.count, effort=effort))
            raise
        effort = self._effort(name, time.monotonic() - started, peak.bytes)
        if results is None:
            return  # one process of several: the first has the results of all
        results["samples"][name] = _in_order(results["samples"][name])
        results["aggregations"] = {name: aggregations_of(task)}
        records = self._keep(name, results["samples"][name], self.maker.of_task(results, name, effort))
        kept = [{key: row[key] for key in KEPT_OF_SAMPLES} for row in results["samples"][name]]
        self.parts[name] = {**results, "samples": {name: kept}}
        without = [record.metric.name for record in records if record.value is None]
        if without:
            raise Failed(
                f"metric '{printable(without[0])}' of task '{printable(name)}' is NaN or infinite: it is no score"
            )

    def _effort(self, name: str, seconds: float, peak: int | None) -> Effort:
        if hasattr(self.lm, "join_counts"):
            self.lm.join_counts()
        cut, work = getattr(self.lm, "truncated", {}).get(name, 0), getattr(self.lm, "work", None)
        if cut:
            say(
                f"{cut} requests of {printable(name)} were longer than the context of {self.lm.max_length} tokens and were "
                "cut on the left"
            )
        if work is not None:
            self.total = work.plus(self.total)
        return Effort(seconds, peak, cut, None if work is None else work.describe())

    def _keep(self, name: str, rows: list[dict[str, Any]] | None, records: list[Record]) -> list[Record]:
        """Save the records of a task or group; print all scores so far when the disk refuses."""
        if not is_first_process():
            return []
        try:
            records = self.folder.save_task(name, rows if self.prepared.run.log_samples else None, records)
        except NotSaved:
            from harness.summary import print_summary

            print_summary([*self.asked.records, *records], [])  # the scores must not die with the disk
            raise
        self.asked.records += records
        return records

    def _finish(self) -> None:
        """Add the groups, and write lm-eval's own file."""
        groups = self.prepared.tasks.groups
        whole = {
            name: group
            for name, group in groups.items()
            if {t.task_name for t in group.get_all_tasks()} <= self.parts.keys()
        }
        results = _joined(self.parts, whole)
        for name in results.get("groups", {}):
            members = [record for record in self.asked.records if record.task.name in leaf_tasks(name, results)]
            if any(record.value is None for record in members):
                continue
            results["aggregations"][name] = group_aggregations_of(groups[name])
            self._keep(name, None, self.maker.of_group(results, name, members))
        for name in groups.keys() - whole.keys():
            self._note_failure(Failed(f"group '{printable(name)}' has no score, because a task of it has none"))
        results.pop("aggregations")
        self.folder.save_rest(results, self.tracker, self.applied.workdir)

    def _note_failure(self, error: HarnessError) -> None:
        if isinstance(error, NotSaved):
            raise error
        self.asked.failures.append(error)


def _joined(parts: Mapping[str, dict[str, Any]], groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return lm-eval's results of several tasks, asked one by one, as it gives them itself, with the groups' scores."""
    from lm_eval.evaluator_utils import EvalAcc, aggregate_groups

    def of_all(name: str) -> dict[str, Any]:
        return {task: value for part in parts.values() for task, value in part[name].items()}

    joined = EvalAcc(
        metrics=of_all("results"),
        configs=of_all("configs"),
        versions=of_all("versions"),
        num_fewshot=of_all("n-shot"),
        higher_is_better=of_all("higher_is_better"),
        samples=of_all("samples"),
        n_samples=of_all("n-samples"),
        groups=dict(groups),
    )
    results = aggregate_groups(joined)._to_eval_results(samples=joined.samples)
    last = list(parts.values())[-1]
    return {**last, **results, "aggregations": of_all("aggregations")}


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a task's samples by filter and document: several processes hand them over mixed."""
    filters = list(dict.fromkeys(row["filter"] for row in rows))
    return sorted(rows, key=lambda row: (filters.index(row["filter"]), row["doc_id"]))


def _simple_evaluate(prepared: Prepared, lm: Any, task: Any, tracker: Any) -> dict[str, Any] | None:
    from lm_eval import simple_evaluate

    run = prepared.run
    with quiet("lm_eval"), _asked_once():
        results: dict[str, Any] | None = simple_evaluate(
            model=lm,
            model_args={"pretrained": prepared.source.name},
            tasks=[task],
            task_manager=prepared.tasks.manager,
            num_fewshot=run.num_fewshot,
            batch_size=run.batch_size,
            device=str(getattr(lm, "device", "cpu")),
            limit=run.limit,
            samples=dict(run.samples) if run.samples else None,
            bootstrap_iters=run.bootstrap_iters,
            log_samples=True,
            evaluation_tracker=tracker,
            system_instruction=run.system_instruction,
            apply_chat_template=run.apply_chat_template,
            fewshot_as_multiturn=run.fewshot_as_multiturn,
            gen_kwargs=dict(run.gen_kwargs) or None,
            random_seed=run.seeds[0],
            numpy_random_seed=run.seeds[1],
            torch_random_seed=run.seeds[2],
            fewshot_random_seed=run.seeds[3],
            confirm_run_unsafe_code=run.confirm_run_unsafe_code,
        )
    return results


def _has_commit(folder: Path) -> bool:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "HEAD"],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


_ENVIRONMENT: dict[str, Any] = {}


@contextmanager
def _asked_once() -> Iterator[None]:
    """Ask git and pip what is installed once a process: lm-eval asks with every call, which takes seconds.

    Outside a repository its question for a commit makes git print an error; there the answer is None anyway.
    """
    from lm_eval import evaluator

    git, add = evaluator.get_git_commit_hash, evaluator.add_env_info
    cwd = Path.cwd()
    is_repository = any((folder / ".git").exists() for folder in [cwd, *cwd.parents]) and _has_commit(cwd)

    def add_once(storage: dict[str, Any]) -> None:
        if not _ENVIRONMENT:
            add(_ENVIRONMENT)
        storage.update(_ENVIRONMENT)

    evaluator.get_git_commit_hash = git if is_repository else lambda: None
    evaluator.add_env_info = add_once
    try:
        yield
    finally:
        evaluator.get_git_commit_hash, evaluator.add_env_info = git, add
