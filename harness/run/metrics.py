"""A task's metrics, each on its own: one that has no value takes no other with it, and says why."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.errors import NoScore
from harness.names import printable
from harness.records.aggregation import AGGREGATIONS
from harness.records.soundness import over_fewer
from harness.records.whole_scores import bootstrapped_error
from harness.redaction import redact
from harness.run import bootstrap

# What lm-eval computes with 100 draws at most, being slow.
SLOW = {"bleu", "chrf", "chrf++", "ter"}
# A row of a sample file holds the metrics beside these; one of such a name would take the other's place.
FIELDS = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash",
}  # fmt: skip
MOST_CHARACTERS = 200


@dataclass(frozen=True)
class Measured:
    """One metric of a task under one filter.

    Attributes:
        value: the score, which may be NaN or infinite; None where there is none, and ``missing`` says why.
        docs: how many documents have the metric.
        failed: the code that should have made the value raised.
        notes: sentences on the number.
    """

    name: str
    filter: str
    value: float | None
    stderr: float | None = None
    docs: int = 0
    missing: str = ""
    failed: bool = False
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name, with the filter where there is one."""
        return printable(self.name if self.filter == "none" else f"{self.name} ({self.filter})")


@dataclass
class Metrics:
    """The metrics of one task while it is asked; ``lost`` holds those that gave nothing for a document, and why.

    ``lost_filters`` holds what there is none of because a filter failed.
    """

    task: Any
    lost: dict[str, str] = field(default_factory=dict)
    lost_filters: list[Measured] = field(default_factory=list)

    def check(self) -> None:
        """Raise ``NoScore`` when all that the task declares is no score: asking it would give none."""
        declared = declared_aggregations(self.task)
        name = printable(self.task.config.task)
        if declared and all(map(is_placeholder, declared.values())):
            metric = printable(next(iter(declared)))
            raise NoScore(
                f"task '{name}' has no score: {metric} stands for answers without one, whatever number lm-eval gives it"
            )

    @contextmanager
    def kept_apart(self) -> Iterator[None]:
        """Within the block a metric that raises for a document is left out, where the task's metrics are lm-eval's."""
        original = self.task.process_results

        def process_results(doc: Any, results: Any) -> dict[str, Any]:
            try:
                found = original(doc, results)
            except Exception as error:
                found = self._one_by_one(original, doc, results, error)
            if not isinstance(found, Mapping):
                kind = type(found).__name__
                raise TypeError(f"process_results gave {kind} for a document, where a dict of metrics is due")
            for metric in FIELDS & set(found):
                self.lost[metric] = "it is called like a field of the sample file"
            return {metric: value for metric, value in found.items() if metric not in self.lost}

        put: dict[str, Any] = {"process_results": process_results}
        if len(getattr(self.task, "_filters", ())) > 1:
            put["apply_filters"] = self._apply_filters
        before = {name: vars(self.task)[name] for name in put if name in vars(self.task)}
        vars(self.task).update(put)
        try:
            yield
        finally:
            for name in put:
                del vars(self.task)[name]
            vars(self.task).update(before)

    def measured(self, rows: Sequence[Mapping[str, Any]], iterations: int) -> list[Measured]:
        """Return every metric of the task over its sample rows, in the order in which they appear.

        Args:
            iterations: draws of a bootstrapped standard error; 0 for no standard error at all.
        """
        values: dict[tuple[Any, str], list[Any]] = {}
        docs: dict[str, int] = {}
        for row in rows:
            docs[row["filter"]] = docs.get(row["filter"], 0) + 1
            for metric in row["metrics"]:
                values.setdefault((metric, row["filter"]), []).append(row[metric])
        functions = declared_aggregations(self.task)
        found = [
            self._measure(metric, filter_name, items, functions, docs[filter_name], iterations)
            for (metric, filter_name), items in values.items()
            if metric not in self.lost
        ]
        lost = [Measured(str(metric), "none", None, missing=why, failed=True) for metric, why in self.lost.items()]
        return found + lost + self.lost_filters

    def _apply_filters(self) -> None:
        """Apply each of the task's filters; one that fails takes no other with it."""
        errors, filters = [], vars(self.task)["_filters"]
        for ensemble in filters:
            try:
                ensemble.apply(self.task.instances)
            except Exception as error:
                errors.append(error)
                why = f"the filter failed: {_cause(error)}"
                self.lost_filters.append(Measured("every metric", ensemble.name, None, missing=why, failed=True))
        if len(errors) == len(filters):
            raise errors[0]

    def _one_by_one(self, original: Callable[..., Any], doc: Any, results: Any, error: Exception) -> dict[str, Any]:
        """Return what each of lm-eval's metrics gives by itself; what raises alone, too, is lost for the whole task."""
        functions = getattr(self.task, "_metric_fn_list", None)
        if not functions or callable(getattr(self.task.config, "process_results", None)):
            raise error
        kept = dict(functions)
        found: dict[str, Any] = {}
        try:
            for metric, function in kept.items():
                functions.clear()
                functions[metric] = function
                try:
                    found |= original(doc, results)
                except Exception as alone:
                    why = f"it failed for a document: {_cause(alone)}"
                    self.lost.setdefault(
                        metric, why if function is not None else "lm-eval knows no metric of this name"
                    )
        finally:
            functions.clear()
            functions.update(kept)
        if not found and len(self.lost) == len(kept):
            raise error
        return found

    def _measure(
        self,
        metric: Any,
        filter_name: str,
        items: list[Any],
        functions: Mapping[str, Any],
        docs: int,
        iterations: int,
    ) -> Measured:
        name, count, notes = str(metric), len(items), []
        function = functions[metric] if metric in functions else mean()
        if metric not in functions:
            notes.append(
                f"the task says no way from its documents to {printable(name)}; the mean was taken, as lm-eval does"
            )
        notes += over_fewer(name, count, docs)
        if is_placeholder(function):
            why = "it stands for answers without a score, whatever number lm-eval gives it"
            return Measured(name, filter_name, None, docs=count, missing=why)
        value, missing, failed, warned = _value(function, items)
        notes += [f"on the way to {printable(name)}: {sentence}" for sentence in warned]
        if value is None:
            return Measured(name, filter_name, None, None, count, missing, failed, tuple(notes))
        stderr, told = _stderr(name, function, items, iterations) if math.isfinite(value) else (None, "")
        return Measured(name, filter_name, value, stderr, count, notes=(*notes, *([told] if told else [])))


def mean() -> Callable[[Sequence[Any]], Any]:
    """Return lm-eval's mean."""
    from lm_eval.api import metrics

    function: Callable[[Sequence[Any]], Any] = metrics.mean
    return function


def declared_aggregations(task: Any) -> dict[str, Any]:
    """Return the functions that make one value of those of the documents, by metric, as the task has them."""
    return dict(task.aggregation() or {})


def is_placeholder(function: Any) -> bool:
    """Return whether an aggregation stands where a score would: that of lm-eval's ``bypass``, 999 by definition."""
    from lm_eval.api import metrics

    return function is metrics.bypass_agg


def names_of(functions: Mapping[str, Any]) -> dict[str, str]:
    """Return lm-eval's names of aggregations, by metric; those that have one."""
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    names = {id(function): name for name, function in dict(AGGREGATION_REGISTRY).items()}
    return {metric: names[id(function)] for metric, function in functions.items() if id(function) in names}


def _value(function: Any, items: list[Any]) -> tuple[float | None, str, bool, list[str]]:
    """Return the value of a metric, or why there is none, whether its code raised, and what was warned of on the way."""
    if not callable(function):
        return None, "lm-eval knows no aggregation of the name that the task gives", False, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = function(items)
        except (Exception, SystemExit) as error:
            return None, f"its aggregation failed: {_cause(error)}", True, []
    said = [w.message for w in caught if issubclass(w.category, UserWarning | RuntimeWarning)]
    number = _as_number(value)
    if number is None:
        kind = "None" if value is None else f"a {type(value).__name__}"
        return None, f"it is no number but {kind}", False, []
    return number, "", False, list(dict.fromkeys(_first_line(message) for message in said))


def _as_number(value: Any) -> float | None:
    """Return a value as a number; None for text, and for what holds several."""
    if value is None or isinstance(value, str | bytes | complex):
        return None
    try:
        return float(value.item() if callable(getattr(value, "item", None)) else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def _stderr(name: str, function: Any, items: list[Any], iterations: int) -> tuple[float | None, str]:
    """Return the standard error that lm-eval gives, or ours of a score that it lacks; a sentence where there is none."""
    from lm_eval.api import metrics

    if iterations <= 0 or len(items) < 2:
        return None, ""
    called = names_of({"": function}).get("", "")
    closed = {id(metrics.mean): metrics.mean_stderr, id(metrics.acc_all): metrics.acc_all_stderr}.get(id(function))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if called in bootstrap.names():
                most = min(iterations, 100) if name in SLOW else iterations
                stderr = _as_number(bootstrap.standard_error(called, function, items, most))
            elif called in AGGREGATIONS and AGGREGATIONS[called].score is not None:
                stderr = _as_number(bootstrapped_error(function, items))
            else:
                stderr = None if closed is None else _as_number(closed(items))
    except (Exception, SystemExit) as error:
        return None, f"{printable(name)} has no standard error: {_cause(error)}"
    return (stderr, "") if stderr is not None and math.isfinite(stderr) else (None, "")


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {_first_line(error)}".rstrip(": ")


def _first_line(text: object) -> str:
    lines = str(text).strip().splitlines()
    return printable(redact(lines[0] if lines else ""))[:MOST_CHARACTERS]
