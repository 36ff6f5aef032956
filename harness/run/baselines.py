"""The untouched model's side of a comparison: its run, and its records when an earlier run left them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.names import printable
from harness.progress import say
from harness.records import ledger
from harness.records.asked import Questions, joined_digest
from harness.records.run_notes import ended
from harness.run import questions
from harness.tasks.fit import give_tokenizer

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run.preparing import Prepared
    from harness.run.run import Run


def baseline_run(run: Run) -> Run:
    """Return the run that evaluates the untouched model on the same tasks."""
    return replace(run, method="baseline" if run.plugin else None, method_args={}, with_baseline=False, no_cache=False)


def reusable_records(prepared: Prepared, base: Mapping[str, Any], lm: Any) -> list[Record]:
    """Return the baseline's records of an earlier run into the same folder, or nothing when one is missing.

    A record serves when model, tasks with their versions, documents, prompts, settings and the versions of the software
    all agree.
    """
    from harness.run.identity import run_name

    if any(questions.draws_answers(task, prepared.run) for task in prepared.tasks.tasks.values()):
        return []  # drawn answers differ by seed
    folder = prepared.run.output_path / run_name(prepared, base)
    reading = ledger.read(folder) if folder.is_dir() else ledger.Reading()
    if reading.problems or not reading.records or not ended(folder):
        return []
    give_tokenizer(prepared.tasks.tasks, lm.tokenizer)
    here = _software(prepared.run)
    usable = [r for r in reading.records if r.status == "ok" and r.environment.model_dump(include=set(here)) == here]
    found: dict[str, Record] = {}
    for name, task in prepared.tasks.tasks.items():
        asked = _built(task, prepared.run, lm)
        found |= {r.key(): r for r in usable if r.task.name == name and _asks_the_same(r, task, prepared.run, asked)}
    for name in prepared.tasks.groups:
        found |= {r.key(): r for r in usable if r.task.name == name and _follows(r, list(found.values()))}
    wanted = {*prepared.tasks.tasks, *(name for name, group in prepared.tasks.groups.items() if group.has_aggregation)}
    if not wanted <= {record.task.name for record in found.values()}:
        return []
    say(f"the baseline's records of an earlier run are reused ({printable(folder)})")
    return list(found.values())


def _built(task: Any, run: Run, lm: Any) -> Questions | None:
    try:
        return questions.build(task, run, lm)
    except Exception:  # a task of an unusual kind is evaluated again rather than trusted
        return None


def _asks_the_same(record: Record, task: Any, run: Run, asked: Questions | None) -> bool:
    """Return whether ``run`` would ask of ``task`` what ``record`` was asked: version, shots, documents and prompts."""
    return (
        asked is not None
        and not record.task.group
        and record.task.version == str(task.VERSION)
        and record.settings.num_fewshot == questions.shots(task, run)
        and record.fewshot_seed in {None, run.seeds[3]}
        and (record.task.docs_digest, record.task.prompts_digest) == (asked.docs_digest, asked.prompts_digest)
    )


def _follows(record: Record, tasks: list[Record]) -> bool:
    """Return whether a group's record is that of the tasks' records found."""
    same = (record.metric.name, record.metric.filter)
    prompts = {r.task.name: r.task.prompts_digest for r in tasks if (r.metric.name, r.metric.filter) == same}
    members = record.task.members or []
    return all(name in prompts for name in members) and record.task.prompts_digest == joined_digest(
        str(prompts[name]) for name in members
    )


def _software(run: Run) -> dict[str, Any]:
    """Return the versions, code and device that a record of this moment would name."""
    from harness.models.kinds import kind_of
    from harness.run.environment import environment
    from harness.run.identity import asked_by

    device = kind_of(run.model).device(run.device)
    return environment(device).model_dump(include=set(asked_by("baseline")))
