"""Turn lm-eval's results into records."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from harness.methods.inputs import fingerprint
from harness.methods.options import resolved_options
from harness.models.identity import tokenizer_digest
from harness.records.asked import joined_digest, of_first_filter, of_samples
from harness.records.record import (
    CostPart,
    CountsPart,
    MethodPart,
    MetricPart,
    ModelPart,
    Record,
    SeedsPart,
    SettingsPart,
    TaskPart,
    TokenizerPart,
)
from harness.redaction import redact_json
from harness.run import questions
from harness.run.environment import environment
from harness.run.identity import plugin_part, settings_of

if TYPE_CHECKING:
    from harness.run.applying import Applied
    from harness.run.preparing import Prepared


@dataclass(frozen=True)
class Effort:
    """What asking one task took; ``scoring`` is ``Work.describe()``."""

    seconds: float
    peak_bytes: int | None
    truncated_requests: int
    scoring: dict[str, Any] | None


class RecordMaker:
    """Makes the records of one method on one model."""

    def __init__(self, prepared: Prepared, applied: Applied, base: Mapping[str, Any], *, run_name: str) -> None:
        """Note what all records of the run share; ``base`` is ``describe_model`` of the LM before the method."""
        run, method, source, lm = prepared.run, prepared.method, prepared.source, applied.lm
        self._run, self._applied, self._notes = run, applied, prepared.tasks.notes
        self.shared: dict[str, Any] = {
            "run": run_name,
            "plugin": plugin_part(prepared.plugin, method),
            "method": MethodPart(
                name=method.name, options=resolved_options(method), inputs=fingerprint(method)[:16] or None
            ),
            "model": ModelPart(
                name=source.name,
                revision=source.revision,
                digest=source.digest,
                quantization=source.quantization,
                weights_changed=applied.weights_changed,
                **base,
            ),
            "tokenizer": TokenizerPart(
                digest=tokenizer_digest(lm.tokenizer),
                vocabulary=len(lm.tokenizer),
                prefix_token_id=lm.prefix_token_id,
            ),
            "seeds": SeedsPart(**dict(zip(("random", "numpy", "torch", "fewshot"), run.seeds, strict=True))),
            "environment": environment(str(lm.device)),
            "batch_size": str(run.batch_size),
            "report": applied.report,
            "command": run.command(),
        }

    def of_task(self, results: Mapping[str, Any], name: str, effort: Effort, *, drawn: bool) -> list[Record]:
        """Return a record for each metric of a task in lm-eval's ``results``; a metric that is NaN has no value."""
        samples, counts = results["samples"][name], results["n-samples"][name]
        asked = of_samples(samples)
        task = TaskPart(
            name=name,
            version=str(results["versions"].get(name)),
            docs_digest=asked.docs_digest,
            prompts_digest=asked.prompts_digest,
            size=counts["original"],
            drawn=drawn,
        )
        answers = CountsPart(
            docs=counts["effective"],
            requests=asked.requests,
            truncated_requests=effort.truncated_requests,
            **_texts(samples),
        )
        settings = settings_of(self._run, results["n-shot"].get(name))
        return [
            self._record(task, metric, value, stderr, answers, settings, effort)
            for metric, value, stderr in _numbers(results, name)
        ]

    def of_group(self, results: Mapping[str, Any], name: str, members: Sequence[Record]) -> list[Record]:
        """Return a record for each metric of a group that has a value.

        Args:
            members: the records of the tasks below it; a metric's are those that have it.
        """
        records = []
        for metric, value, stderr in _numbers(results, name):
            same = (metric.name, metric.filter)
            tasks = [record for record in members if (record.metric.name, record.metric.filter) == same]
            if tasks and all(record.value is not None for record in tasks):
                records.append(self._of_members(results, name, metric, value, stderr, tasks))
        return records

    def _of_members(
        self,
        results: Mapping[str, Any],
        name: str,
        metric: MetricPart,
        value: float,
        stderr: float | None,
        tasks: Sequence[Record],
    ) -> Record:
        version = results["versions"].get(name)
        task = TaskPart(
            name=name,
            version=tasks[0].task.version if version in (None, "N/A") else str(version),
            group=True,
            docs_digest=joined_digest(_docs_of(results["samples"][record.task.name]) for record in tasks),
            prompts_digest=joined_digest(str(record.task.prompts_digest) for record in tasks),
            size=sum(record.task.size or 0 for record in tasks),
            members=[record.task.name for record in tasks],
            drawn=any(record.task.drawn for record in tasks),
        )
        counts = CountsPart(
            docs=sum(record.counts.docs for record in tasks),
            requests=sum(record.counts.requests or 0 for record in tasks),
            truncated_requests=sum(record.counts.truncated_requests for record in tasks),
        )
        peaks = [record.cost.evaluate_peak_bytes or 0 for record in tasks]
        effort = Effort(sum(record.cost.evaluate_seconds for record in tasks), max(peaks) or None, 0, None)
        settings = settings_of(self._run, results["n-shot"].get(tasks[0].task.name))
        return self._record(task, metric, value, stderr, counts, settings, effort)

    def invalid(self, task: Any, *, not_finite: int, effort: Effort) -> list[Record]:
        """Return the records of a task some of whose scores are no numbers: they say so, and have no value."""
        asked = questions.of_task(task, self._run)
        part = TaskPart(
            name=str(task.config.task),
            version=str(task.VERSION),
            docs_digest=asked.docs_digest,
            prompts_digest=asked.prompts_digest,
            size=len(task.eval_docs),
            drawn=questions.draws_answers(task, self._run),
        )
        counts = CountsPart(
            docs=asked.docs,
            requests=asked.requests,
            not_finite=not_finite,
            truncated_requests=effort.truncated_requests,
        )
        settings = settings_of(self._run, task.config.num_fewshot)
        ways, names = task.higher_is_better(), aggregations_of(task)
        filters = [ensemble.name for ensemble in getattr(task, "_filters", [])] or ["none"]
        metrics = [
            MetricPart(
                name=metric, filter=filter_name, higher_is_better=ways.get(metric), aggregation=names.get(metric)
            )
            for filter_name in filters
            for metric in task.aggregation()
        ]
        return [self._record(part, metric, None, None, counts, settings, effort) for metric in metrics]

    def _record(
        self,
        task: TaskPart,
        metric: MetricPart,
        value: float | None,
        stderr: float | None,
        counts: CountsPart,
        settings: SettingsPart,
        effort: Effort,
    ) -> Record:
        applied = self._applied
        if value is not None and not math.isfinite(value):
            value, counts = None, counts.model_copy(update={"not_finite": max(1, counts.not_finite)})
        cost = CostPart(
            apply_seconds=round(applied.seconds, 2),
            evaluate_seconds=round(effort.seconds, 2),
            apply_peak_bytes=applied.peak_bytes,
            evaluate_peak_bytes=effort.peak_bytes,
            tokens_trained=applied.report.get("tokens_trained"),
            reused=applied.reused,
            scoring=effort.scoring,
        )
        record = Record(
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            status="ok" if value is not None else "invalid",
            task=task,
            metric=metric,
            value=value,
            stderr=stderr,
            counts=counts,
            settings=settings,
            cost=cost,
            notes=list(self._notes.get(task.name, ())),
            **self.shared,
        )
        return Record.model_validate(_plain(redact_json(record.content())))


def leaf_tasks(name: str, results: Mapping[str, Any]) -> list[str]:
    """Return the tasks below a group, or the task itself."""
    children = results.get("group_subtasks", {}).get(name)
    if not children:
        return [name]
    return [leaf for child in children for leaf in leaf_tasks(child, results)]


def _numbers(results: Mapping[str, Any], name: str) -> Iterator[tuple[MetricPart, float, float | None]]:
    """Yield metric, value and standard error of each number of a task or group."""
    metrics = results["results"][name]
    for key, value in metrics.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, str):
            continue
        stderr = metrics.get(f"{metric}_stderr,{filter_name}")
        part = MetricPart(
            name=metric,
            filter=filter_name,
            higher_is_better=results["higher_is_better"].get(name, {}).get(metric),
            aggregation=results["aggregations"].get(name, {}).get(metric),
        )
        is_number = isinstance(stderr, int | float) and math.isfinite(stderr)
        yield part, float(value), float(stderr) if is_number else None


def aggregations_of(task: Any) -> dict[str, str]:
    """Return lm-eval's names of the functions that make one value of those of the documents, by metric."""
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    names = {id(function): name for name, function in dict(AGGREGATION_REGISTRY).items()}
    found = {metric: names.get(id(function)) for metric, function in task.aggregation().items()}
    return {metric: name for metric, name in found.items() if name is not None}


def group_aggregations_of(group: Any) -> dict[str, str]:
    """Return how a group makes its value of those of its tasks: by their size, or each task alike."""
    return {
        entry.metric: "mean_by_size" if entry.weight_by_size else "mean_of_tasks"
        for entry in group.aggregate_metric_list or []
    }


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """Return JSON values that every file can hold: a path that is no text, say, has parts that are no characters."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return dict(json.loads(text.encode("utf-8", "replace")))


def _docs_of(samples: Sequence[dict[str, Any]]) -> str:
    return joined_digest(str(row["doc_hash"]) for row in of_first_filter(samples))


def _texts(samples: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return how many generated texts are empty, and how many different ones there are; nothing for other tasks."""
    texts = [text for row in of_first_filter(samples) for answers in row["resps"] for text in answers]
    if not texts or not all(isinstance(text, str) for text in texts):
        return {}
    return {"empty_answers": sum(not text.strip() for text in texts), "distinct_answers": len(set(texts))}
