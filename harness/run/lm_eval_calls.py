"""lm-eval's evaluator, called for one task at a time, and its results put together again."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.run.chat import template_of
from harness.tasks.warned import heard

if TYPE_CHECKING:
    from harness.run.preparing import Prepared


def simple_evaluate(prepared: Prepared, lm: Any, task: Any, tracker: Any) -> dict[str, Any] | None:
    """Return lm-eval's results of one task, its metrics not yet computed; None in all but the first of several processes."""
    from lm_eval import evaluator

    run = prepared.run
    with _environment_once(), _without_scores(lm), template_of(run, lm):
        results: dict[str, Any] | None = evaluator.simple_evaluate(
            model=lm,
            model_args={"pretrained": prepared.source.name},
            tasks=[task],
            task_manager=prepared.tasks.manager,
            num_fewshot=run.num_fewshot,
            batch_size=run.batch_size,
            device=str(lm.device),
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


class _AllAsked(Exception):
    """A task has had its requests answered."""


def only_ask(prepared: Prepared, lm: Any, task: Any, tracker: Any) -> None:
    """Have lm-eval make the requests of a task and hand them to ``lm``, and stop before it looks at an answer."""

    def stop() -> None:
        raise _AllAsked

    vars(task)["apply_filters"] = stop  # with it begins what is made of the answers
    try:
        simple_evaluate(prepared, lm, task, tracker)
    except _AllAsked:
        pass
    finally:
        del vars(task)["apply_filters"]


@contextmanager
def _without_scores(lm: Any) -> Iterator[None]:
    """Leave the metrics to ``harness.run.metrics``: where lm-eval computes them, one that fails takes all others with it."""
    from lm_eval import evaluator_utils

    original = evaluator_utils._compute_task_aggregations
    evaluator_utils._compute_task_aggregations = lambda *_, **__: ({}, 0)
    is_one_of_several = getattr(lm, "world_size", 1) > 1
    if is_one_of_several:
        gather = lm.gather_object
        lm.gather_object = lambda found, dst=0: gather(_filled_up(found), dst=dst)
    try:
        yield
    finally:
        evaluator_utils._compute_task_aggregations = original
        if is_one_of_several:
            del lm.gather_object


def _filled_up(found: Any) -> Any:
    """Return what a process hands to the first one so that a metric which none of its documents has is an empty list there."""
    if not isinstance(found, dict):
        return found
    return {task: defaultdict(list, part) if isinstance(part, dict) else part for task, part in found.items()}


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
def _environment_once() -> Iterator[None]:
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


def joined(parts: Mapping[str, dict[str, Any]], groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return lm-eval's results of several tasks, asked one by one, as it gives them itself, with the groups' scores."""
    from lm_eval.evaluator_utils import EvalAcc, aggregate_groups

    def of_all(name: str) -> dict[str, Any]:
        return {task: value for part in parts.values() for task, value in part[name].items()}

    together = EvalAcc(
        metrics=of_all("results"),
        configs=of_all("configs"),
        versions=of_all("versions"),
        num_fewshot=of_all("n-shot"),
        higher_is_better=of_all("higher_is_better"),
        samples=of_all("samples"),
        n_samples=of_all("n-samples"),
        groups=dict(groups),
    )
    with heard():  # of groups harness.run.groups says it, with the numbers
        results = aggregate_groups(together)._to_eval_results(samples=together.samples)
    last = list(parts.values())[-1]
    return {**last, **results, "aggregations": of_all("aggregations")}
