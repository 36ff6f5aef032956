"""A log of inspect, ``.eval`` or ``.json``: its scores by scorer and reducer, and its samples read one at a time."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.foreign import zips
from harness.foreign.contents import Given, Measured, entries, json_of, number, parsed, part, score_of, with_unknown
from harness.names import printable

TOOL = "inspect_ai"
VERSION = 2
STATED = frozenset({"counts.docs", "settings.limit", "settings.gen_kwargs", "settings.metadata", "settings.model_args"})
MEAN = "mean"
MOST_PARAMETER = 40
ERRORS = ("stderr", "bootstrap_stderr")
# They say how values vary, and are no scores.
NO_SCORES = {*ERRORS, "std", "var"}
# Of these a higher value is better by definition; inspect's files name no direction.
HIGHER = frozenset({"accuracy"})
# How requests are sent, which decides no answer.
_OPERATION = {
    "max_connections", "adaptive_connections", "max_retries", "timeout", "attempt_timeout", "batch", "cache", "cache_prompt",
}  # fmt: skip


@dataclass(frozen=True)
class Log:
    """An open log.

    Attributes:
        header: all of it but samples and reductions.
        reductions: the value of each document by scorer and reducer, as inspect averaged it over epochs.
        samples: how to read each sample, by id and epoch.
    """

    header: dict[str, Any]
    reductions: list[Any]
    samples: Mapping[tuple[int | str, int], Callable[[], dict[str, Any]]]

    def ids(self) -> list[int | str]:
        """Return the ids of the documents, in the order of the data set where the log tells it."""
        known = {sample_id: None for sample_id, _ in self.samples}
        order = [one for one in entries(self.header, "eval", "dataset", "sample_ids") if one in known]
        rest = sorted(known.keys() - set(order), key=lambda one: (isinstance(one, str), one))
        return [*dict.fromkeys(order), *rest]

    def epochs(self) -> int:
        """Return how often each document was asked."""
        return max((epoch for _, epoch in self.samples), default=1)


@dataclass(frozen=True)
class Scorer:
    """One of the scores of a log: what it is called, whose it is, and how it was made one value of several epochs."""

    name: str
    scorer: str
    reducer: str | None
    filter: str


def scorers_of(log: Log) -> list[tuple[Scorer, dict[str, Any]]]:
    """Return the scores of a log, each with what the log says of it; a reducer other than the mean is named in its filter."""
    scorers = []
    for one in entries(log.header, "results", "scores"):
        name, reducer = str(part(one).get("name")), _text(part(one), "reducer")
        chosen = name if reducer in {None, MEAN} else f"{name}/{reducer}"
        scorers.append((Scorer(name, str(part(one).get("scorer") or name), reducer, chosen), part(one)))
    return scorers


def metrics_of(score: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of a score that are scores, by name, each with its value."""
    metrics = part(score, "metrics")
    return {name: part(metric).get("value") for name, metric in metrics.items() if name not in NO_SCORES}


def read(path: Path) -> Given:
    """Return the scores of a log.

    Raises:
        HarnessError: it cannot be read, is of another version, or its run did not end.
    """
    given = Given()
    with opened(path) as log:
        _check_ended(log)
        shared, version, stated = _shared(log, path)
        for scorer, score in scorers_of(log):
            values = metrics_of(score)
            if not values:
                given.problems.append(f"has no metric of scorer '{printable(scorer.filter)}'")
            error = next(
                (
                    number(part(score, "metrics", name).get("value"))
                    for name in ERRORS
                    if name in part(score, "metrics")
                ),
                None,
            )
            for name, value in values.items():
                parts = shared | {
                    "metric": {"name": name, "filter": scorer.filter, "higher_is_better": True if name in HIGHER else None},
                    **score_of(value),
                    "stderr": error if name in {"accuracy", "mean"} else None,
                }  # fmt: skip
                content = with_unknown(
                    TOOL, version, parts, stated=stated, trial=_text(part(log.header, "eval"), "eval_id")
                )
                given.scores.append(Measured(content, path if log.samples else None))
        if not given.scores and not given.problems:
            given.problems.append("has no score: no scorer ran, or there was no sample to score")
    return given


@contextmanager
def opened(path: Path) -> Iterator[Log]:
    """Open a log.

    Raises:
        HarnessError: it cannot be read, is damaged, or of another version.
    """
    if path.suffix == ".eval":
        with zips.opened(path) as members:
            if "header.json" not in members.names:
                raise HarnessError("has no header: its run was stopped before it ended, or still goes on")
            header = parsed(members.read("header.json"))
            reductions = parsed(members.read("reductions.json")) if "reductions.json" in members.names else []
            yield _log(header, reductions, _in_zip(members))
        return
    content = json_of(path)
    samples = [one for one in entries(content, "samples") if isinstance(one, dict)]
    yield _log(content, part(content).get("reductions"), {_key(one): functools.partial(part, one) for one in samples})


def _log(header: Any, reductions: Any, samples: Mapping[tuple[int | str, int], Callable[[], dict[str, Any]]]) -> Log:
    version = part(header).get("version")
    if type(version) is not int or not isinstance(part(header).get("eval"), dict):
        raise HarnessError("is no log of inspect: it has no version, or nothing under 'eval'")
    if version != VERSION:
        advice = (
            "upgrade token-harness"
            if version > VERSION
            else "read it with inspect, and write it anew by `inspect log convert`"
        )
        raise HarnessError(f"is a log of version {version}, where this harness reads version {VERSION}; {advice}")
    return Log(header, reductions if isinstance(reductions, list) else [], samples)


def _in_zip(members: zips.Members) -> dict[tuple[int | str, int], Callable[[], dict[str, Any]]]:
    """Return how to read the samples of a zip file, whose names are ``samples/ID_epoch_N.json``."""
    if "summaries.json" in members.names:
        summaries = parsed(members.read("summaries.json"))
        keys = [_key(one) for one in summaries if isinstance(one, dict)] if isinstance(summaries, list) else []
        names = {f"samples/{sample_id}_epoch_{epoch}.json": (sample_id, epoch) for sample_id, epoch in keys}
    else:
        names = {}
    found: dict[tuple[int | str, int], Callable[[], dict[str, Any]]] = {}
    for name in dict.fromkeys(one for one in members.names if one.startswith("samples/") and one.endswith(".json")):
        key = names.get(name)
        if key is None:
            one = part(parsed(members.read(name)))
            key = _key(one)
        found[key] = lambda name=name: part(parsed(members.read(name)))  # type: ignore[misc]
    return found


def _key(sample: Mapping[str, Any]) -> tuple[int | str, int]:
    sample_id, epoch = sample.get("id"), sample.get("epoch", 1)
    if not isinstance(sample_id, int | str) or isinstance(sample_id, bool) or type(epoch) is not int:
        raise HarnessError("holds a sample without id or epoch")
    return sample_id, epoch


def _check_ended(log: Log) -> None:
    status = log.header.get("status")
    if status != "success":
        raise HarnessError(
            f"is of a run whose status is {printable(status)}, not success, so its scores are not those of the task; "
            "`inspect eval-retry` goes on with it"
        )
    if log.header.get("invalidated"):
        raise HarnessError("was marked invalid in inspect")


def _shared(log: Log, path: Path) -> tuple[dict[str, Any], str | None, set[str]]:
    """Return the parts of a record that all scores of a log share, the version of inspect, and the fields that are stated."""
    spec, plan, docs = part(log.header, "eval"), part(log.header, "plan"), log.ids()
    config, results = part(spec, "config"), part(log.header, "results")
    generation = {**part(plan, "config"), **part(spec, "model_generate_config")}
    limit = config.get("limit")
    arguments = spec.get("task_args_passed", spec.get("task_args"))
    chosen = {name: config[name] for name in ("sample_id",) if config.get(name)}
    if isinstance(limit, list):
        chosen["limit"], limit = limit, None
    version, seed, seconds = spec.get("task_version"), generation.pop("seed", None), _seconds(log.header)
    notes = _notes(log, docs)
    total = results.get("total_samples")
    parts = {
        "created": _text(spec, "created") or "unknown", "run": path.stem, "notes": notes,
        "model": {"name": _text(spec, "model"), "revision": None},
        "method": {"options": {"solver": _solvers(plan)}},
        "task": {"name": _text(spec, "task"), "version": None if version is None else str(version)},
        "counts": {"docs": len(docs) or (total if type(total) is int else 0)},
        "settings": {
            "limit": limit if type(limit) is int else None, "model_args": _without_none(part(spec, "model_args")),
            "gen_kwargs": {name: value for name, value in _without_none(generation).items() if name not in _OPERATION},
            "metadata": {**(arguments if isinstance(arguments, dict) else {}), **chosen},
        },
        "seeds": {"random": seed if type(seed) is int else None},
        "cost": {"evaluate_seconds": seconds},
    }  # fmt: skip
    known = {"task.version": version is not None, "seeds": type(seed) is int, "cost": seconds is not None}
    stated = {*STATED, *(field for field, is_known in known.items() if is_known)}
    found = part(spec, "packages").get("inspect_ai")
    return parts, None if found is None else str(found), stated


def _notes(log: Log, docs: list[int | str]) -> list[str]:
    total, completed = (part(log.header, "results").get(name) for name in ("total_samples", "completed_samples"))
    notes = []
    if type(total) is int and type(completed) is int and completed < total:
        notes.append(f"{total - completed} of {total} samples ended with an error and are in no score")
    if log.epochs() > 1:
        notes.append(f"each of the {len(docs)} documents was asked {log.epochs()} times, and counts once")
    return notes


def _solvers(plan: Mapping[str, Any]) -> str:
    """Return the solvers of a plan in order, with the parameters they were given."""
    said = []
    for step in plan.get("steps") or []:
        passed = part(step, "params_passed")
        given = ", ".join(f"{name}={_short(value)}" for name, value in passed.items())
        said.append(str(part(step).get("solver")) + (f"({given})" if given else ""))
    return " + ".join(said) or "none"


def _short(value: Any) -> str:
    """Return a parameter as text; a long one by its beginning and its digest."""
    text = str(value)
    if len(text) <= MOST_PARAMETER:
        return text
    return f"{text[:MOST_PARAMETER]}… ({hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]})"


def _seconds(header: Mapping[str, Any]) -> float | None:
    stats = part(header, "stats")
    try:
        took = datetime.fromisoformat(str(stats.get("completed_at"))) - datetime.fromisoformat(
            str(stats.get("started_at"))
        )
    except (ValueError, TypeError):
        return None
    return max(took.total_seconds(), 0.0)


def _without_none(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}


def _text(content: Mapping[str, Any], name: str) -> str | None:
    value = content.get(name)
    return None if value is None else str(value)
