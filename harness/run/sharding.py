"""One shard of a run: its answers are kept for the others, and the one that finds those of all shards makes the records."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.models.guards import NotFinite
from harness.names import printable
from harness.progress import say
from harness.run import shards
from harness.run.asking import Asked, Asking, ask, begin, told
from harness.run.baselines import reusable_records
from harness.run.claims import claim_of, claimed
from harness.run.environment import measured_peak
from harness.run.journal import Journal
from harness.run.lm_eval_calls import only_ask
from harness.run.metrics import Metrics
from harness.run.shards import Mark
from harness.run.surroundings import undisturbed
from harness.tasks.warned import heard
from harness.timeouts import limited

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run.applying import Applied
    from harness.run.preparing import Prepared
    from harness.run.shard import Shard
    from harness.run.untouched import Untouched


def whole_of(prepared: Prepared) -> Prepared:
    """Return the run that a shard is a part of."""
    return replace(prepared, run=replace(prepared.run, shard=None))


def ask_shard(prepared: Prepared, applied: Applied, base: Mapping[str, Any], model: Untouched) -> Asked:
    """Ask a shard's part of all tasks, and make the records if it was the last one; else there are none yet.

    Args:
        base: ``describe_model`` of the LM before the method.

    Raises:
        HarnessError: as ``harness.run.asking.ask``.
    """
    shard = prepared.run.shard
    assert shard is not None
    whole = whole_of(prepared)
    asking = begin(whole, applied, base, why=shard.title)
    asked, digests = Asked(), dict[str, str]()
    journal = Journal(whole.output, asking.identity, shard=shard)
    for name in whole.tasks.tasks:
        try:
            broken = _answer(asking, journal, name, claim=claim_of(whole))
        except (Exception, SystemExit) as error:
            asked.failures.append(told(error, name))
            continue
        digests[name] = journal.asked
        asked.failures += [broken] if broken is not None else []
    if len(digests) < len(whole.tasks.tasks):
        say(f"{shard.title} is not answered; the same command goes on with it")
        return asked
    lacking = shards.missing(shards.read(journal.folder), shard.count, digests)
    if not lacking:
        return _put_together(whole, applied, base, model, shard)
    asked.records += _made_meanwhile(whole, model, journal)
    if not asked.records:
        say(shards.sentence(shard, lacking))
    return asked


def _answer(asking: Asking, journal: Journal, name: str, *, claim: str) -> NotFinite | None:
    """Have the shard's part of a task answered, and note that it is; return what was said of scores that are no numbers.

    These, too, are all that the shard has to say: whoever makes the records asks for them again, and they say so.
    """
    prepared, lm, shard = asking.prepared, asking.lm, journal.shard
    assert shard is not None
    task, started, broken = prepared.tasks.tasks[name], time.monotonic(), None
    reused, given = journal.reused, journal.given
    Metrics(task).check()
    lm.start_counting()
    with measured_peak(str(lm.device)) as peak:
        try:
            with (
                undisturbed(f"task '{printable(name)}', or the method while it was asked,", all_of_it=False),
                limited(prepared.run.timeout_task, f"task '{printable(name)}'"),
                journal.answering(lm, name),
                heard(),
            ):
                only_ask(prepared, lm, task, asking.tracker)
        except NotFinite as error:
            broken = error
    shards.add(journal.folder, Mark(shard, name, journal.asked, lm.work, peak.bytes, claim))
    there = f", {journal.reused - reused:,} were there" if journal.reused > reused else ""
    say(f"{printable(name)}: {journal.given - given:,} answers, {time.monotonic() - started:.1f} s{there}")
    return broken


def _put_together(whole: Prepared, applied: Applied, base: Mapping[str, Any], model: Untouched, shard: Shard) -> Asked:
    """Make the records of all shards' answers, unless another process has done so meanwhile."""
    with claimed(whole):
        found = list[Any]()

        def is_due() -> bool:
            found.extend(reusable_records(whole, model, was_waited_for=True, tells=False))
            return not found

        say(f"all {shard.count} shards are answered; {shard.title} makes the records")
        made = ask(whole, applied, base, is_due=is_due)
    return Asked(found) if found else made


def _made_meanwhile(whole: Prepared, model: Untouched, journal: Journal) -> list[Record]:
    """Return the records that a process without a shard made while this one was asking, and forget what it was asking for."""
    found = reusable_records(whole, model, was_waited_for=True, tells=False)
    if found:
        journal.remove({*whole.tasks.tasks})
        say(f"the records were made meanwhile, by a process without --shard ({printable(str(found[0].run))})")
    return found
