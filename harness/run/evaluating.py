"""evaluate(run): the whole story, from what a command asks to the records it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import Failed, HarnessError
from harness.methods import Baseline
from harness.progress import suit_the_terminal
from harness.run.preparing import load, prepare
from harness.run.run import Run

if TYPE_CHECKING:
    from harness.records.record import Record


class SomeFailed(Failed):
    """Some of what a run asked for has no score; ``records`` holds what has."""

    def __init__(self, records: list[Record], failures: Sequence[HarnessError]) -> None:
        """Say what failed, all of it."""
        super().__init__("; ".join(str(failure) for failure in failures))
        self.records, self.failures = records, failures
        if not records:
            self.exit_status = max(failure.exit_status for failure in failures)


def evaluate(run: Run) -> list[Record]:
    """Evaluate ``run`` and return its records, those of the baseline first when it was asked for.

    Each task's records are on disk as soon as it has ended. What an interrupted run left is not done again.

    Raises:
        HarnessError: a mistake the user can correct; all that can be found without weights comes before loading them.
        SomeFailed: a task has no score; the others were asked, and their records are on disk.
    """
    from harness.run import baselines
    from harness.run.applying import Applied, apply_to
    from harness.run.asking import Asked, ask, folder_of
    from harness.run.identity import describe_model

    suit_the_terminal()
    prepared = prepare(run)
    lm = load(prepared)
    base, asked = describe_model(lm), Asked()
    folder_of(prepared, base).refuse_links()
    if run.with_baseline and not isinstance(prepared.method, Baseline):
        untouched = replace(prepared, run=baselines.baseline_run(run), method=Baseline())
        asked.records += baselines.reusable_records(untouched, base, lm)
        if not asked.records:
            asked.add(ask(untouched, Applied(lm), base))
    asked.add(ask(prepared, apply_to(prepared, lm), base))
    if len(asked.failures) == 1 and not asked.records:
        raise asked.failures[0]
    if asked.failures:
        raise SomeFailed(asked.records, asked.failures) from asked.failures[0].__cause__
    return asked.records
