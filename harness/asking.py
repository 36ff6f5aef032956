"""Have lm-eval ask the tasks and score the answers, and keep what comes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import printable
from harness.progress import quiet, say

if TYPE_CHECKING:
    from harness.applying import Applied
    from harness.records.record import Record
    from harness.run import Prepared


def ask(prepared: Prepared, applied: Applied, base: Mapping[str, Any]) -> list[Record]:
    """Ask and score with lm-eval, save, and return the records; none in any but the first of several processes.

    Args:
        base: ``describe_model`` of the LM before the method.

    Raises:
        HarnessError: the LM cannot answer a task, a score is no number, or the disk refuses.
    """
    from lm_eval.loggers import EvaluationTracker

    from harness import tasks
    from harness.records.environment import measured_peak
    from harness.results import make_records, save

    lm: Any = applied.lm
    tasks.check_fit(prepared.tasks.tasks, lm)
    tasks.give_tokenizer(prepared.tasks.tasks, lm.tokenizer)
    say(f"evaluating {printable(prepared.method.name)} on {', '.join(map(printable, prepared.tasks.requested))}")
    tracker, started = EvaluationTracker(), time.monotonic()
    with measured_peak(str(getattr(lm, "device", "cpu"))) as peak:
        results = _simple_evaluate(prepared, lm, tracker)
    if hasattr(lm, "join_counts"):
        lm.join_counts()
    if results is None:
        return []  # one process of several: the first has the results of all
    records = make_records(
        results, run=prepared.run, plugin=prepared.plugin, method=prepared.method, source=prepared.source,
        applied=applied, base=base, seconds=time.monotonic() - started, peak_bytes=peak.bytes,
    )  # fmt: skip
    work = getattr(lm, "work", None)
    if work is not None and work.pushed_tokens:
        say(work.sentence())
    cut = sum(getattr(lm, "truncated", {}).values())
    if cut:
        say(f"{cut} requests were longer than the context of {lm.max_length} tokens and were cut on the left")
    try:
        return save(results, records, tracker, prepared.run, applied)
    except HarnessError:
        from harness.summary import print_summary

        print_summary(records, [])  # the scores must not die with the disk
        raise


def _simple_evaluate(prepared: Prepared, lm: Any, tracker: Any) -> dict[str, Any] | None:
    from lm_eval import simple_evaluate

    run = prepared.run
    if hasattr(lm, "start_counting"):
        lm.start_counting()
    with quiet("lm_eval"), _without_git_noise():
        results: dict[str, Any] | None = simple_evaluate(
            model=lm,
            model_args={"pretrained": prepared.source.name},
            tasks=list(prepared.tasks.built),
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


@contextmanager
def _without_git_noise() -> Iterator[None]:
    """Outside a repository lm-eval's question for a commit makes git print an error; there the answer is None anyway."""
    from lm_eval import evaluator

    cwd = Path.cwd()
    if any((folder / ".git").exists() for folder in [cwd, *cwd.parents]):
        yield
        return
    original = evaluator.get_git_commit_hash
    evaluator.get_git_commit_hash = lambda: None
    try:
        yield
    finally:
        evaluator.get_git_commit_hash = original
