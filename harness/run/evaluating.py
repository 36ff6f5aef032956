"""evaluate(run): the whole story, from what a command asks to the records it leaves."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import Failed, HarnessError
from harness.imports import without_collecting
from harness.methods import Baseline
from harness.names import printable
from harness.progress import forget_said, process_count, say, suit_the_terminal
from harness.run.preparing import Prepared, prepare, serves_every_seed
from harness.run.run import Run

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run.applying import Applied
    from harness.run.asking import Asked
    from harness.run.untouched import Bench, Untouched


class SomeFailed(Failed):
    """Some of what a run asked for has no score; ``records`` holds what has."""

    def __init__(self, records: list[Record], failures: Sequence[HarnessError]) -> None:
        """Say what failed, all of it."""
        super().__init__("; ".join(dict.fromkeys(str(failure) for failure in failures)))
        self.records, self.failures = records, failures
        if not records:
            self.exit_status = max(failure.exit_status for failure in failures)


def evaluate(*runs: Run, bench: Bench | None = None, told: Callable[[Prepared], object] = bool) -> list[Record]:
    """Evaluate ``runs`` and return their records, of each those of the baseline first when it was asked for.

    Each task's records are on disk as soon as it has ended. What an interrupted run left is not done again.

    Args:
        runs: they differ in their seeds alone. Each leaves what it would leave alone; one that fails stops none after it.
        bench: keeps the model for the next call, as a sweep does, which also takes what a run that has ended left as done
            where just the same would be made again.
        told: called with a run whose checks have passed, before it is asked.

    Raises:
        HarnessError: a mistake the user can correct; all that can be found without weights comes before loading them.
        SomeFailed: a task has no score; the others were asked, and their records are on disk.
    """
    suit_the_terminal()
    forget_said()
    prepared = prepare(runs[0])
    with without_collecting():
        from harness.run.asking import Asked
        from harness.run.baselines import that_differ
        from harness.run.untouched import Untouched

    model = Untouched(prepared, is_used_again=len(runs) > 1) if bench is None else bench.model(prepared)
    asked = Asked()
    told(prepared)
    for number, run in enumerate(that_differ(prepared, runs, model)):
        part = Asked()
        if len(runs) > 1:
            say(f"seed {run.seeds[0]}")
        try:
            if number:
                model.renew()
                prepared = prepared if serves_every_seed(prepared) else prepare(run)
            _evaluate_one(replace(prepared, run=run), model, part, is_done_once=bench is not None)
        except HarnessError as error:
            if process_count() > 1 or (len(runs) == 1 and not part.records):
                raise  # of several processes, the others wait for this one in vain
            part.failures.append(_told(error, part.records))
        asked.records += [record for record in part.records if record not in asked.records]
        asked.failures += part.failures if len(runs) == 1 else [_of_seed(run, failure) for failure in part.failures]
    if len(asked.failures) == 1 and not asked.records:
        raise asked.failures[0]
    if asked.failures:
        raise SomeFailed(asked.records, asked.failures) from asked.failures[0].__cause__
    return asked.records


def _evaluate_one(prepared: Prepared, model: Untouched, asked: Asked, *, is_done_once: bool) -> None:
    """Evaluate a run, and the baseline before it when it was asked for; their records and failures go into ``asked``."""
    from harness.run.applying import apply_to
    from harness.run.asking import folder_of, note_failed
    from harness.run.baselines import reusable_records
    from harness.run.claims import claimed

    shard = prepared.run.shard
    with claimed(prepared) as was_waited_for:
        if prepared.run.with_baseline and not isinstance(prepared.method, Baseline):
            _ask_untouched(prepared, model, asked)
        if (was_waited_for or shard or is_done_once) and not prepared.run.no_cache:
            found = reusable_records(prepared, model, was_waited_for=True, tells=shard is None)
            asked.records += found
            if found and shard:
                say(
                    f"the records of this run are there, and {shard.title} asks nothing; without --shard they are made anew"
                )
            if found:
                return
        lm = model.lm()
        folder_of(prepared, model.base()).refuse_links()
        try:
            applied = apply_to(prepared, lm)
        except HarnessError as error:
            if asked.records:
                note_failed(prepared, model.base(), error)
            raise
        asked.add(_ask(prepared, applied, model))
        if shard and asked.records:
            _add_baseline(prepared, model, asked)


def _ask_untouched(prepared: Prepared, model: Untouched, asked: Asked) -> None:
    """Ask what a run asks of the untouched model, unless its records are there."""
    from harness.run.applying import Applied
    from harness.run.asking import folder_of
    from harness.run.baselines import baseline_of, reusable_records
    from harness.run.claims import claimed

    untouched = baseline_of(prepared)
    with claimed(untouched) as was_waited_for:
        found = reusable_records(untouched, model, was_waited_for=was_waited_for)
        asked.records += found
        if not found:
            folder_of(prepared, model.base()).refuse_links()  # before anything is asked for nothing
            asked.add(_ask(untouched, Applied(model.lm()), model))


def _ask(prepared: Prepared, applied: Applied, model: Untouched) -> Asked:
    """Ask a run, or its shard."""
    from harness.run.asking import ask
    from harness.run.sharding import ask_shard

    if prepared.run.shard is not None:
        return ask_shard(prepared, applied, model.base(), model)
    return ask(prepared, applied, model.base())


def _add_baseline(prepared: Prepared, model: Untouched, asked: Asked) -> None:
    """Add the untouched model's records where another shard made them while this one made those of the method."""
    from harness.run.baselines import baseline_of, reusable_records

    is_wanted = prepared.run.with_baseline and not isinstance(prepared.method, Baseline)
    if is_wanted and not any(record.method.name == "baseline" for record in asked.records):
        asked.records[:0] = reusable_records(baseline_of(prepared), model, tells=False)


def _told(error: HarnessError, records: Sequence[Record]) -> HarnessError:
    """Return an error that says what there is in spite of it."""
    if not records:
        return error
    folders = ", ".join(dict.fromkeys(printable(record.run) for record in records))
    told = Failed(f"{error}; what was asked before is kept ({folders})")
    told.__cause__ = error.__cause__ or error
    return told


def _of_seed(run: Run, error: HarnessError) -> HarnessError:
    """Return an error that names its seed; several may fail for reasons of their own.

    What its frames hold goes, a model above all: the next seed needs the room.
    """
    told = (Failed if error.exit_status == Failed.exit_status else HarnessError)(f"seed {run.seeds[0]}: {error}")
    told.__cause__ = error.__cause__ or error
    for each in (error, told.__cause__):
        traceback.clear_frames(each.__traceback__)
    return told
