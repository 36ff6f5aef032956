"""Runs to an experiment tracker, through lm-eval's own loggers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.errors import HarnessError
from harness.names import printable, safe_name
from harness.publishing.lm_eval_files import LmEvalRun
from harness.records import answers
from harness.redaction import redact

TRACKERS = ("trackio", "wandb")


def track(runs: list[LmEvalRun], tracker: str, options: dict[str, Any], *, say: Callable[[str], None]) -> None:
    """Log results and samples of each run, without secrets, one run of the tracker for each.

    Args:
        options: what the tracker's ``init`` takes, such as ``project``.

    Raises:
        HarnessError: the tracker is not installed, or refuses.
    """
    _check_installed(tracker)
    for run in runs:
        say(f"logging {printable(run.run)} to {tracker}")
        name = {"name": f"{run.run} {run.model}"} if "name" not in options or len(runs) > 1 else {}
        try:
            _log(run, tracker, {"project": "token-harness"} | options | name)
        except Exception as error:  # a foreign package, with errors of its own
            raise HarnessError(
                f"{tracker} failed with {type(error).__name__}: {printable(redact(str(error)))[:300]}"
            ) from error


def _check_installed(tracker: str) -> None:
    from importlib.util import find_spec

    if find_spec(tracker) is None:
        raise HarnessError(f"{tracker} is not installed; `pip install {tracker}` brings it")


def _log(run: LmEvalRun, tracker: str, options: dict[str, Any]) -> None:
    results = run.read()
    rows = {task: [_as_in_memory(row) for row in run.rows(path)] for task, path in _sample_files(run, results).items()}
    if tracker == "trackio":
        from lm_eval.loggers import TrackioLogger

        logger: Any = TrackioLogger(options)
    else:
        from lm_eval.loggers import WandbLogger

        logger = WandbLogger(options)
    logger.post_init(results)
    logger.log_eval_result()
    logger.log_eval_samples(rows)
    (logger.finish if tracker == "trackio" else logger.run.finish)()


def _as_in_memory(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as lm-eval's loggers want it: in its files, arguments have names and numbers are text."""
    return row | {
        "arguments": answers.requests(row),
        "resps": _numbers(row.get("resps")),
        "filtered_resps": _numbers(row.get("filtered_resps")),
    }


def _numbers(value: Any) -> Any:
    """Return answers with log-likelihoods as numbers: a pair of texts, the second a truth value, is one."""
    if not isinstance(value, list):
        return value
    if len(value) == 2 and value[1] in ("True", "False") and isinstance(value[0], str):
        try:
            return (float(value[0]), value[1] == "True")
        except ValueError:
            return value
    return [_numbers(inner) for inner in value]


def _sample_files(run: LmEvalRun, results: dict[str, Any]) -> dict[str, Any]:
    """Return the sample file of each task, by the name the results give it."""
    time = run.results.stem.removeprefix("results_")
    by_name = {path.name: path for path in run.samples}
    wanted = {task: f"samples_{safe_name(task)}_{time}.jsonl" for task in results.get("results", {})}
    return {task: by_name[name] for task, name in wanted.items() if name in by_name}
