"""Turn lm-eval's results into records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.methods.inputs import fingerprint
from harness.methods.options import resolved_options
from harness.models.identity import tokenizer_digest
from harness.models.kinds import kind_of
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
from harness.requests import CUT_IN_THINKING
from harness.run import questions
from harness.run.environment import environment, now
from harness.run.groups import GroupScore
from harness.run.identity import plugin_part, settings_of
from harness.run.metrics import Measured, declared_aggregations, names_of

if TYPE_CHECKING:
    from harness.run.applying import Applied
    from harness.run.preparing import Prepared


@dataclass(frozen=True)
class Effort:
    """What asking one task took, and how its texts were made; ``scoring`` is ``Work.describe()``."""

    seconds: float
    peak_bytes: int | None
    truncated_requests: int
    scoring: dict[str, Any] | None
    generation: Mapping[str, Any] | None = None


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
            "environment": environment(str(lm.device), kind_of(run.model).engine()),
            "batch_size": str(run.batch_size),
            "report": applied.report,
            "command": run.command(),
        }

    def of_task(
        self,
        results: Mapping[str, Any],
        name: str,
        measured: Sequence[Measured],
        effort: Effort,
        *,
        drawn: bool,
        notes: Mapping[str | None, Sequence[str]],
    ) -> list[Record]:
        """Return a record for each metric of a task; a metric that is NaN has no value.

        Args:
            results: lm-eval's, of the task.
            notes: sentences on the numbers of one filter, and on all of them under None.
        """
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
            docs=asked.docs,
            requests=asked.requests,
            truncated_requests=effort.truncated_requests,
            **_texts(samples, thinks="think_end_token" in (effort.generation or {})),
        )
        settings = settings_of(self._run, results["n-shot"].get(name))
        records = []
        for one in measured:
            if one.value is not None:
                metric = _metric(results, name, one.name, one.filter)
                part = answers if one.docs == asked.docs else answers.model_copy(update={"scored_docs": one.docs})
                said = [*notes.get(None, ()), *notes.get(one.filter, ()), *one.notes]
                records.append(self._record(task, metric, one.value, one.stderr, part, settings, effort, said))
        return records

    def of_group(self, results: Mapping[str, Any], name: str, scores: Sequence[GroupScore]) -> list[Record]:
        """Return a record for each metric of a group that has a value."""
        return [self._of_members(results, name, score, score.value) for score in scores if score.value is not None]

    def _of_members(self, results: Mapping[str, Any], name: str, score: GroupScore, value: float) -> Record:
        version, tasks = results["versions"].get(name), score.members
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
        scored = None if all(r.counts.scored_docs is None for r in tasks) else sum(r.counts.scored for r in tasks)
        counts = CountsPart(
            docs=sum(record.counts.docs for record in tasks),
            scored_docs=scored,
            requests=sum(record.counts.requests or 0 for record in tasks),
            truncated_requests=sum(record.counts.truncated_requests for record in tasks),
        )
        peaks = [record.cost.evaluate_peak_bytes or 0 for record in tasks]
        made = tasks[0].generation if all(record.generation == tasks[0].generation for record in tasks) else None
        effort = Effort(sum(record.cost.evaluate_seconds for record in tasks), max(peaks) or None, 0, None, made)
        shots, ways = {r.settings.num_fewshot for r in tasks}, {r.metric.higher_is_better for r in tasks}
        metric = MetricPart(
            name=score.name,
            filter=score.filter,
            higher_is_better=ways.pop() if len(ways) == 1 else None,
            aggregation="mean_by_size" if score.by_size else "mean_of_tasks",
        )
        settings = settings_of(self._run, shots.pop() if len(shots) == 1 else None)
        return self._record(task, metric, value, score.stderr, counts, settings, effort, score.notes)

    def invalid(self, task: Any, *, not_finite: int, effort: Effort, notes: Sequence[str]) -> list[Record]:
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
        return [self._record(part, metric, None, None, counts, settings, effort, notes) for metric in metrics]

    def _record(
        self,
        task: TaskPart,
        metric: MetricPart,
        value: float | None,
        stderr: float | None,
        counts: CountsPart,
        settings: SettingsPart,
        effort: Effort,
        notes: Sequence[str],
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
            created=now(),
            status="ok" if value is not None else "invalid",
            task=task,
            metric=metric,
            value=value,
            stderr=stderr,
            counts=counts,
            settings=settings,
            cost=cost,
            generation=None if effort.generation is None else dict(effort.generation),
            notes=list(dict.fromkeys([*self._notes.get(task.name, ()), *notes, *notes_on_texts(counts, effort)])),
            **self.shared,
        )
        return Record.model_validate(_plain(redact_json(record.content())))


def _metric(results: Mapping[str, Any], name: str, metric: str, filter_name: str) -> MetricPart:
    way = results["higher_is_better"].get(name, {}).get(metric)
    return MetricPart(
        name=metric,
        filter=filter_name,
        higher_is_better=way if isinstance(way, bool) else None,
        aggregation=results["aggregations"].get(name, {}).get(metric),
    )


def aggregations_of(task: Any, measured: Sequence[Measured] = ()) -> dict[str, str]:
    """Return lm-eval's names of the functions that make one value of those of the documents, by metric.

    Args:
        measured: what came out: a metric of which the task says nothing is a mean.
    """
    declared = declared_aggregations(task)
    return {one.name: "mean" for one in measured if one.name not in declared} | names_of(declared)


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """Return JSON values that every file can hold: a path that is no text, say, has parts that are no characters."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return dict(json.loads(text.encode("utf-8", "replace")))


def _docs_of(samples: Sequence[dict[str, Any]]) -> str:
    return joined_digest(str(row["doc_hash"]) for row in of_first_filter(samples))


def notes_on_texts(counts: CountsPart, effort: Effort) -> list[str]:
    """Return what is to be told of the texts that a number is made of."""
    if not counts.cut_in_thinking:
        return []
    mark = (effort.generation or {}).get("think_end_token")
    return [
        f"{counts.cut_in_thinking} of {counts.requests} answers ended before '{mark}', while the model was still thinking, and "
        "are empty; --gen_kwargs max_gen_toks=... gives them more room (a model that does not think needs no think_end_token)"
    ]


def _texts(samples: Sequence[dict[str, Any]], *, thinks: bool) -> dict[str, int]:
    """Return how many generated texts are empty, and how many different ones there are; nothing for other tasks.

    Args:
        thinks: count those that ended within thinking, too.
    """
    texts = [text for row in of_first_filter(samples) for answers in row["resps"] for text in answers]
    if not texts or not all(isinstance(text, str) for text in texts):
        return {}
    cut = {"cut_in_thinking": sum(CUT_IN_THINKING in getattr(text, "trace", []) for text in texts)} if thinks else {}
    return {"empty_answers": sum(not text.strip() for text in texts), "distinct_answers": len(set(texts)), **cut}
