"""Have lm-eval ask the tasks, one after the other, and keep each one's scores as soon as they are there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.errors import Failed, HarnessError, NoScore
from harness.models.embedding import corpus_of
from harness.names import described, printable
from harness.progress import is_first_process, process_count, say, say_once
from harness.records.asked import of_first_filter
from harness.run import shards
from harness.run.chat import fitted
from harness.run.claims import claim_of
from harness.run.folder import NotSaved, RunFolder
from harness.run.groups import GroupScore
from harness.run.groups import scores as group_scores
from harness.run.identity import deciding, run_name, software_of
from harness.run.journal import Journal
from harness.run.journal import folder_of as journal_folder
from harness.run.lm_eval_calls import joined, simple_evaluate
from harness.run.metrics import Measured, Metrics
from harness.run.questions import draws_answers, notes_of
from harness.run.results import Effort, RecordMaker, aggregations_of
from harness.run.surroundings import undisturbed
from harness.tasks.warned import NO_SYSTEM, Heard, heard
from harness.timeouts import limited

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run.applying import Applied
    from harness.run.preparing import Prepared

# What is left of a task's samples once they are on disk: lm-eval digests these for its results file.
KEPT_OF_SAMPLES = ("filter", "doc_hash", "prompt_hash", "target_hash")


@dataclass
class Asked:
    """The records of what could be asked, and a sentence for each task that has no score."""

    records: list[Record] = field(default_factory=list)
    failures: list[HarnessError] = field(default_factory=list)

    def add(self, other: Asked) -> None:
        """Take in what another method gave."""
        self.records += other.records
        self.failures += other.failures


def ask(
    prepared: Prepared, applied: Applied, base: Mapping[str, Any], *, is_due: Callable[[], bool] | None = None
) -> Asked:
    """Ask and score with lm-eval and save, task by task; no records in any but the first of several processes.

    A task that fails is told and the next ones are asked, unless there are several processes.
    Answers of an interrupted run are not asked for again.

    Args:
        base: ``describe_model`` of the LM before the method.
        is_due: whether another process has not made the records meanwhile; None: nobody else would.

    Raises:
        HarnessError: the LM cannot answer a task.
        NotSaved: the disk refuses; the scores are printed.
    """
    asking = begin(prepared, applied, base)
    if not is_first_process():
        return asking.run()
    answers, software = journal_folder(prepared.output, asking.identity).name, software_of(asking.identity)
    run, claim, asked = asking.prepared.run, claim_of(prepared), Asked()
    with asking.folder.owned(run, claim=claim, answers=answers, software=software, is_due=is_due) as is_ours:
        if is_ours:
            asked = asking.run()
    if is_ours:
        asking.forget()
    return asked


def begin(prepared: Prepared, applied: Applied, base: Mapping[str, Any], *, why: str = "") -> Asking:
    """Return what asks, when the LM is known to answer all tasks.

    Args:
        why: what part of it is meant, for the line that is said.

    Raises:
        HarnessError: the LM cannot answer a task.
    """
    from harness.tasks import fit

    lm: Any = applied.lm
    fit.check_fit(prepared.tasks.tasks, lm)
    fit.give_tokenizer(prepared.tasks.tasks, lm.tokenizer)
    names, part = ", ".join(map(printable, prepared.tasks.requested)), f", {why}" if why else ""
    say(f"evaluating {printable(prepared.method.name)} on {names}{part}")
    fitting = fitted(prepared.run, prepared.tasks.tasks, lm)
    return Asking(replace(prepared, run=fitting.run), applied, base, fitting.notes)


def folder_of(prepared: Prepared, base: Mapping[str, Any]) -> RunFolder:
    """Return the folder of a run, which need not be there yet; ``base`` is ``describe_model`` of the LM before the method."""
    return RunFolder(prepared.output, run_name(prepared, base), model=prepared.source.name)


def note_failed(prepared: Prepared, base: Mapping[str, Any], error: HarnessError) -> None:
    """Note in a run's folder that its method failed, so that there is nothing to ask."""
    with suppress(HarnessError), folder_of(prepared, base).owned(prepared.run, claim=claim_of(prepared)):
        raise error


class Asking:
    """One method on one model, asked all tasks."""

    def __init__(
        self, prepared: Prepared, applied: Applied, base: Mapping[str, Any], left_out: Mapping[str, str]
    ) -> None:
        from lm_eval.loggers import EvaluationTracker

        self.prepared, self.applied, self.lm, self.left_out = prepared, applied, applied.lm, left_out
        self.tracker = EvaluationTracker()
        self.folder = folder_of(prepared, base)
        self.maker = RecordMaker(prepared, applied, base, run_name=self.folder.path.name)
        tokenizer, device = self.maker.shared["tokenizer"].model_dump(), str(self.lm.device)
        here = deciding(prepared, base, device=device, tokenizer=tokenizer, made=applied.digest)
        self.identity = here.picked("journal")
        self.parts: dict[str, dict[str, Any]] = {}
        self.lost: dict[str, list[str]] = {}
        self.asked = Asked()
        self.total: Any = None

    def run(self) -> Asked:
        """Ask the tasks one after the other, then make the groups' scores of theirs."""
        self.journal = Journal(self.prepared.output, self.identity, rank=self.lm.rank)
        self.marks = shards.read(self.journal.folder)
        names = list(self.prepared.tasks.tasks)
        for number, name in enumerate(names, start=1):
            started = time.monotonic()
            try:
                self._ask_task(name)
            except NotSaved:
                raise
            except (Exception, SystemExit) as error:  # to leave is no way to end what others asked for
                if process_count() > 1:
                    raise  # the others wait for this one in vain; with it, the launcher ends them
                self._note_failure(name, told(error, name))
            if len(names) > 1:
                say(f"{number} of {len(names)} tasks: {printable(name)}, {time.monotonic() - started:.1f} s")
        if not is_first_process():
            return Asked()
        if self.journal.reused:
            whose = "other processes" if self.marks else "an interrupted run"
            say(f"{self.journal.reused:,} answers were there from {whose} and not asked for again")
        if self.total is not None and self.total.pushed_tokens:
            say(self.total.sentence())
        if self.parts:
            self._finish()
        return self.asked

    def forget(self) -> None:
        """Remove the answers, after the run has noted its end; they stay where asking again may mend a failure."""
        if all(isinstance(failure, NoScore) for failure in self.asked.failures):
            self.journal.remove({*self.prepared.tasks.tasks})

    def _ask_task(self, name: str) -> None:
        from harness.models.guards import NotFinite
        from harness.run.environment import measured_peak

        task, started, run = self.prepared.tasks.tasks[name], time.monotonic(), self.prepared.run
        metrics, measured = Metrics(task), list[Measured]()
        metrics.check()
        self.lm.start_counting()
        try:
            with (
                undisturbed(f"task '{printable(name)}', or the method while it was asked,", all_of_it=False),
                measured_peak(str(self.lm.device)) as peak,
                limited(run.timeout_task, f"task '{printable(name)}'"),
                self.journal.answering(self.lm, name),
                heard() as warned,
                metrics.kept_apart(),
            ):
                results = simple_evaluate(self.prepared, self.lm, task, self.tracker)
                if results is not None:
                    measured = metrics.measured(results["samples"][name], run.bootstrap_iters)
        except NotFinite as error:
            if process_count() == 1:
                effort = self._effort(name, time.monotonic() - started, None)
                notes = self._notes(name, task, warned)[None]
                self._keep(name, None, self.maker.invalid(task, not_finite=error.count, effort=effort, notes=notes))
            raise
        effort = self._effort(name, time.monotonic() - started, peak.bytes)
        if results is None:
            return  # one process of several: the first has the results of all
        self._take(name, task, results, measured, effort, self._notes(name, task, warned))

    def _take(
        self,
        name: str,
        task: Any,
        results: dict[str, Any],
        measured: Sequence[Measured],
        effort: Effort,
        notes: Mapping[str | None, Sequence[str]],
    ) -> None:
        """Make and keep the records of a task, and say which of its metrics has none."""
        rows = results["samples"][name] = _in_order(results["samples"][name])
        results["aggregations"] = {name: aggregations_of(task, measured)}
        drawn = draws_answers(task, self.prepared.run)
        records = self.maker.of_task(results, name, measured, effort, drawn=drawn, notes=notes)
        missing = [one for one in measured if one.value is None]
        for one in missing:
            say(f"metric '{one.title}' of task '{printable(name)}' is left out: {one.missing}")
        if not records:
            why = f" ({missing[0].title}: {missing[0].missing})" if missing else ""
            raise NoScore(f"task '{printable(name)}' has no metric that is a number{why}")
        self._say_notes(records)
        self._keep(name, rows, records)
        self.lost[name] = [one.name for one in missing]
        self.parts[name] = _as_lm_eval(name, results, measured, rows)
        failed = next((one for one in missing if one.failed), None)
        if failed is not None:
            raise NoScore(f"metric '{failed.title}' of task '{printable(name)}' has no value: {failed.missing}")
        without = [record.metric.name for record in records if record.value is None]
        if without:
            raise NoScore(
                f"metric '{printable(without[0])}' of task '{printable(name)}' is NaN or infinite: it is no score"
            )

    def _notes(self, name: str, task: Any, warned: Heard) -> dict[str | None, list[str]]:
        """Return the sentences on all numbers of a task, and on those of one filter; pass on what nobody here knows."""
        for text in warned.others:
            say_once(f"lm-eval warns of task '{printable(name)}': {text}")
        notes, of_template = notes_of(task, self.prepared.run), self.left_out.get(name)
        heard_notes = [note for note in warned.notes if of_template is None or note != NO_SYSTEM]
        return {
            **notes,
            None: [*([of_template] if of_template else []), *heard_notes, *notes[None], *self._cut_of_corpus(name)],
        }

    def _cut_of_corpus(self, name: str) -> list[str]:
        """Return a note where texts of a task's corpus were cut: they are no requests of its documents, but decide its scores."""
        cut = self.lm.truncated.get(corpus_of(name), 0)
        return (
            [f"texts of the corpus that are longer than the model reads, and were cut at their end: {cut:,}"]
            if cut
            else []
        )

    def _say_notes(self, records: Sequence[Record]) -> None:
        """Say each note once, whichever number it is on first."""
        for record in records:
            for note in record.notes:
                say_once(f"note on {printable(record.task.name)}: {printable(note)}", named=note)

    def _effort(self, name: str, seconds: float, peak: int | None) -> Effort:
        self.lm.join_counts()
        marks = [mark for mark in self.marks if mark.task == name and mark.asked == self.journal.asked]
        cut, work = self.lm.truncated.get(name, 0), shards.work_of(marks, self.lm.work)
        peak = max([*([peak] if peak else []), *(mark.peak_bytes for mark in marks if mark.peak_bytes)], default=None)
        if cut:
            say(
                f"{cut} requests of {printable(name)} were longer than the context of {self.lm.max_length} tokens and were "
                f"cut {self.lm.cut_side}"
            )
        if work is not None:
            self.total = work.plus(self.total)
        return Effort(
            seconds + self.journal.earlier_seconds(name),
            peak,
            cut,
            None if work is None else work.describe(),
            self.lm.generation.get(name),
        )

    def _keep(self, name: str, rows: list[dict[str, Any]] | None, records: list[Record]) -> list[Record]:
        """Save the records of a task or group; print all scores so far when the disk refuses."""
        if not is_first_process():
            return []
        try:
            records = self.folder.save_task(name, rows if self.prepared.run.log_samples else None, records)
        except NotSaved:
            from harness.run.summary import print_summary

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
            if {task.task_name for task in group.get_all_tasks()} <= self.parts.keys()
        }
        results = joined(self.parts, whole)
        for name, group in groups.items():
            if name not in whole:
                self._note_failure(
                    name, NoScore(f"group '{printable(name)}' has no score, because a task of it has none")
                )
            elif group.has_aggregation:
                self._add_group(name, group, results)
        results.pop("aggregations")
        self.folder.save_rest(results, self.tracker, self.applied.workdir)

    def _add_group(self, name: str, group: Any, results: dict[str, Any]) -> None:
        documents = {task: [row["doc_hash"] for row in rows] for task, rows in results["samples"].items()}
        scores = list(group_scores(group, self.asked.records, documents, self.lost))
        records = self.maker.of_group(results, name, scores)
        _correct(results, name, scores)
        if records:
            self._say_notes(records)
            self._keep(name, None, records)
        for score in scores:
            if score.missing:
                metric = printable(score.name if score.filter == "none" else f"{score.name} ({score.filter})")
                sentence = f"group '{printable(name)}' has no {metric}, because {score.missing}"
                self._note_failure(name, NoScore(sentence))

    def _note_failure(self, name: str, error: HarnessError) -> None:
        self.asked.failures.append(error)
        self.folder.note_failure(name)


def told(error: BaseException, name: str) -> HarnessError:
    """Return an error as one for people: a task's and a method's own code may raise anything."""
    if isinstance(error, HarnessError):
        return error
    failed = Failed(f"task '{printable(name)}' failed: {described(error)}")
    failed.__cause__ = error
    return failed


def _as_lm_eval(
    name: str, results: dict[str, Any], measured: Sequence[Measured], rows: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return what lm-eval would give of a task, its metrics among it, with as much of the samples as it digests."""
    docs = len(of_first_filter(rows))
    entry = {**results["results"][name], "sample_len": docs}
    for one in measured:
        if one.value is not None:
            entry[f"{one.name},{one.filter}"] = one.value
            entry[f"{one.name}_stderr,{one.filter}"] = "N/A" if one.stderr is None else one.stderr
    counts = {name: {**results["n-samples"][name], "effective": docs}}
    kept = [{key: row[key] for key in KEPT_OF_SAMPLES} for row in rows]
    return {**results, "results": {name: entry}, "n-samples": counts, "samples": {name: kept}}


def _correct(results: dict[str, Any], name: str, scores: Sequence[GroupScore]) -> None:
    """Put a group's scores where lm-eval has its own, which weigh a task by documents without the metric."""
    for part in (results["results"], results.get("groups", {})):
        entry = part.get(name)
        if entry is None:
            continue
        for key in [key for key in entry if "," in key]:
            del entry[key]
        for score in scores:
            if score.value is not None:
                entry[f"{score.name},{score.filter}"] = score.value
                entry[f"{score.name}_stderr,{score.filter}"] = "N/A" if score.stderr is None else score.stderr


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a task's samples by filter and document: several processes hand them over mixed."""
    filters = list(dict.fromkeys(row["filter"] for row in rows))
    return sorted(rows, key=lambda row: (filters.index(row["filter"]), row["doc_id"]))
