"""Records that are there already: the untouched model's of an earlier run, and a run's own of a process just waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import HarnessError
from harness.methods import Baseline
from harness.models.tokenizer_only import TokenizerOnly
from harness.names import printable
from harness.progress import say
from harness.records import ledger
from harness.records.asked import Questions, joined_digest
from harness.records.run_notes import ended
from harness.run import questions
from harness.run.chat import fitted
from harness.run.claims import folders_of
from harness.seeds import seed_for_task
from harness.tasks.fit import give_tokenizer

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run.preparing import Prepared
    from harness.run.run import Run
    from harness.run.untouched import Untouched


class Asked(Protocol):
    """What tells how an LM would be asked: the untouched model, or one whose weights were not read."""

    @property
    def is_loaded(self) -> bool:
        """Whether the LM is there already."""

    def lm(self) -> Any:
        """Return the LM."""


def baseline_of(prepared: Prepared) -> Prepared:
    """Return the run that evaluates the untouched model on the same tasks."""
    run = prepared.run
    method = "baseline" if run.plugin else None
    run = replace(run, method=method, method_args={}, with_baseline=False, no_cache=False)
    return replace(prepared, run=run, method=Baseline())


def reusable_records(
    prepared: Prepared, model: Asked, *, was_waited_for: bool = False, tells: bool = True
) -> list[Record]:
    """Return the records that a run has left in the output folder, or nothing when one of those due is missing.

    A record serves when model, tasks with their versions, documents, prompts, settings and the versions of the software
    all agree. Weights are not loaded for it.

    Args:
        was_waited_for: a process made the records while this one waited, of the same run with the same seeds, so that
            drawn answers serve as well.
        tells: off where nothing is evaluated, so that nothing is reused.
    """
    if not was_waited_for and any(
        questions.draws_answers(task, prepared.run) for task in prepared.tasks.tasks.values()
    ):
        return []  # drawn answers differ by seed
    for folder in filter(ended, folders_of(prepared)):
        found = _usable(prepared, folder, model)
        if found and tells:
            whose = f"{printable(prepared.method.name)}'s" if was_waited_for else "the baseline's"
            when = "the run that has just ended" if was_waited_for else "an earlier run"
            say(f"{whose} records of {when} are reused ({printable(prepared.run.output_path / folder.name)})")
        if found:
            return found
    return []


def that_differ(prepared: Prepared, runs: Sequence[Run], model: Untouched) -> list[Run]:
    """Return the runs that differ in more than seeds that decide nothing; the last one stands for those it is equal to.

    The untouched model gives the same answers whatever the seed, unless they are drawn or the seed makes other prompts. So
    commands given one after the other leave the records of the last one.
    """
    tasks = prepared.tasks.tasks.values()
    if len(runs) == 1 or not isinstance(prepared.method, Baseline):
        return list(runs)
    if any(questions.draws_answers(task, prepared.run) or questions.shots(task, prepared.run) for task in tasks):
        return list(runs)
    lm = _asked_lm(prepared, model)
    give_tokenizer(prepared.tasks.tasks, lm.tokenizer)
    kept = {}
    for run in runs:
        seed_for_task(run.seeds)
        asked = [_built(task, run, lm) for task in tasks]
        kept[tuple(asked) if None not in asked else run.seeds] = run
    left_out = [str(run.seeds[0]) for run in runs if run not in kept.values()]
    if left_out:
        say(f"seed {', '.join(left_out)} would ask and answer the same: the untouched model draws nothing here")
    return list(kept.values())


def _asked_lm(prepared: Prepared, model: Asked) -> Any:
    """Return an LM that tells what tasks would ask: a tokenizer does, or for prompts as chat an LM without its weights."""
    if model.is_loaded:
        return model.lm()
    if prepared.run.apply_chat_template:
        from harness.models.kinds import kind_of

        try:
            return kind_of(prepared.run.model).unread(prepared.source)
        except HarnessError:  # code of a checkpoint's own may want its weights
            return model.lm()
    return TokenizerOnly(prepared.source.load_tokenizer())


def _usable(prepared: Prepared, folder: Path, model: Asked) -> list[Record]:
    reading = ledger.read(folder, with_foreign=False)
    if reading.problems or not reading.records:
        return []
    lm = _asked_lm(prepared, model)
    give_tokenizer(prepared.tasks.tasks, lm.tokenizer)
    run = fitted(prepared.run, prepared.tasks.tasks, lm).run
    here = _software(run)
    usable = [r for r in reading.records if r.status == "ok" and r.environment.model_dump(include=set(here)) == here]
    found: dict[str, Record] = {}
    for name, task in prepared.tasks.tasks.items():
        asked = _built(task, run, lm)
        found |= {r.key(): r for r in usable if r.task.name == name and _asks_the_same(r, task, run, asked)}
    for name in prepared.tasks.groups:
        found |= {r.key(): r for r in usable if r.task.name == name and _follows(r, list(found.values()))}
    wanted = {*prepared.tasks.tasks, *(name for name, group in prepared.tasks.groups.items() if group.has_aggregation)}
    return list(found.values()) if wanted <= {record.task.name for record in found.values()} else []


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

    kind = kind_of(run.model)
    return environment(kind.device(run.device), kind.engine()).model_dump(include=set(asked_by("baseline")))
