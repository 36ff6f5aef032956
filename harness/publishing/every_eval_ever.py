"""Records to Every Eval Ever 0.3.0: one file for each task of a run, its samples beside it.

Written from the description of the format. The same record gives the same file name and the same bytes, whenever and
wherever it is exported, so an export done again replaces itself.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from harness.errors import HarnessError
from harness.names import printable
from harness.publishing import every_eval_ever_samples
from harness.publishing.files import PlannedFile, planned
from harness.publishing.lm_eval_files import data_source
from harness.publishing.metrics import error_method, meaning
from harness.publishing.selection import Item, where
from harness.records import intervals
from harness.records.bounds import INFINITE
from harness.records.labels import method_label
from harness.records.record import Record

SCHEMA_VERSION = "0.3.0"
RELATIONSHIPS = ("first_party", "third_party", "collaborative", "other")
AVAILABILITIES = ("open_weights", "closed_weights", "unknown")
_FORBIDDEN = re.compile(r'[<>:"\\|?*\x00-\x1f]')
_RESERVED = {"con", "prn", "aux", "nul", "data", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class Submitter:
    """What records do not say: where the file belongs, and who evaluated what.

    Attributes:
        developer: who made the models whose name has no owner.
    """

    collection: str = "token-harness"
    developer: str | None = None
    organization: str = "individual"
    relationship: str = "third_party"
    availability: str = "unknown"


def export(items: Sequence[Item], submitter: Submitter) -> list[PlannedFile]:
    """Return the files for ``items``, sample files before what points to them.

    Raises:
        HarnessError: a model has no owner and no developer was given, or a name suits no path.
    """
    runs: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        runs.setdefault((item.record.run_key(), item.record.task.name), []).append(item)
    return [file for run in runs.values() for file in _files(run, submitter)]


def _files(items: Sequence[Item], submitter: Submitter) -> Iterable[PlannedFile]:
    first = items[0].record
    model_id = _model_id(first, submitter)
    folder = PurePosixPath("data", _component(submitter.collection, "collection"), *model_id.split("/"))
    name = _uuid(first)
    seconds = _seconds(items[0])
    identity = every_eval_ever_samples.Identity(
        schema_version=SCHEMA_VERSION,
        evaluation_id=f"{first.task.name}/{model_id}/{seconds}-{first.run_key()}",
        model_id=model_id,
        evaluation_name=first.task.name,
    )
    content = {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": identity.evaluation_id,
        "evaluation_timestamp": str(seconds),
        "retrieved_timestamp": str(seconds),
        "source_metadata": _source(first, submitter),
        "eval_library": _library(first),
        "model_info": _model(first, model_id, submitter),
        "evaluation_results": [_result(item, str(seconds)) for item in items],
    }
    samples = every_eval_ever_samples.sample_file(items, identity, folder / f"{name}_samples.jsonl")
    if samples is not None:
        content["detailed_evaluation_results"] = samples.reference()
        yield samples.file
    text = json.dumps(
        every_eval_ever_samples.whole(without_none(content)), ensure_ascii=False, allow_nan=False, indent=2
    )
    yield planned(folder / f"{name}.json", text + "\n")


def without_none(value: Any) -> Any:
    """Return JSON without keys whose value is None: here a field that is not known is left out."""
    if isinstance(value, Mapping):
        return {key: without_none(inner) for key, inner in value.items() if inner is not None}
    return [without_none(inner) for inner in value] if isinstance(value, list) else value


def result_id(record: Record) -> str:
    """Return what joins a result and its samples: lm-eval's own key of the number."""
    return f"{record.metric.name},{record.metric.filter}"


def _uuid(record: Record) -> str:
    """Return the name of the file: the same for the same measurement, in the form of a random UUID as they want it."""
    digest = hashlib.sha256(f"token-harness\n{record.run_key()}\n{record.task.name}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def _model_id(record: Record, submitter: Submitter) -> str:
    owner, slash, name = record.model.name.strip("/").partition("/")
    if not slash:
        owner, name = submitter.developer or "", owner
        if not owner:
            raise HarnessError(
                f"model '{printable(record.model.name)}' has no owner, and this format files results by owner and "
                "model; say who made it with --developer NAME"
            )
    return f"{_component(owner, 'developer')}/{_component(name.replace('/', '_'), 'model')}"


def _component(name: str, what: str) -> str:
    cleaned = _FORBIDDEN.sub("_", name.strip().replace("/", "_")).rstrip(". ")[:100]
    if not cleaned or cleaned in {".", ".."} or cleaned.split(".")[0].lower() in _RESERVED or cleaned == "unknown":
        raise HarnessError(f"{what} '{printable(name)}' cannot name a folder of this format; give another one")
    return cleaned


def _seconds(item: Item) -> int:
    try:
        created = datetime.fromisoformat(item.record.created)
    except ValueError as error:
        raise HarnessError(f"{where(item.origin)}: '{printable(item.record.created)}' is no time") from error
    return int((created if created.tzinfo else created.replace(tzinfo=UTC)).timestamp())


def _source(record: Record, submitter: Submitter) -> dict[str, Any]:
    plugin = record.plugin
    return {
        "source_name": f"token-harness {record.environment.harness}",
        "source_type": "evaluation_run",
        "source_organization_name": submitter.organization,
        "evaluator_relationship": submitter.relationship,
        "additional_details": texts(
            plugin=f"{plugin.name}=={plugin.version}" if plugin.name else None,
            plugin_distribution=plugin.distribution,
            plugin_code_digest=plugin.code_digest,
            harness_commit=record.environment.harness_commit,
        ),
    }


def _library(record: Record) -> dict[str, Any]:
    details = record.environment.model_dump(exclude={"lm_eval"})
    return {
        "name": "lm_eval",
        "version": record.environment.lm_eval,
        "additional_details": texts(**details, batch_size=record.batch_size),
    }


def _model(record: Record, model_id: str, submitter: Submitter) -> dict[str, Any]:
    owner, name = model_id.split("/")
    suffix = "" if record.is_baseline else f" + {method_label(record)}"
    details = record.model.model_dump(exclude={"name"}) | {
        "deployment_type": "self_deployed",
        "model_availability": submitter.availability,
        "method": record.method.name,
        "method_options": record.method.options or None,
        "tokenizer_digest_after_method": record.tokenizer.digest,
        "vocabulary": record.tokenizer.vocabulary,
        "report": record.report or None,
    }
    return {
        "name": name + suffix,
        "id": model_id,
        "developer": owner,
        "inference_engine": {"name": "transformers", "version": record.environment.transformers},
        "additional_details": texts(**details),
    }


def _result(item: Item, seconds: str) -> dict[str, Any]:
    record = item.record
    value = float(record.value or 0.0)
    found = meaning(record.metric.name, value)
    lower_is_better = record.metric.higher_is_better is False
    return {
        "evaluation_result_id": result_id(record),
        "evaluation_name": record.task.name,
        "source_data": data_source(item),
        "evaluation_timestamp": seconds,
        "metric_config": {
            "evaluation_description": f"{record.metric.name} (filter {record.metric.filter}) of {record.task.name}",
            "metric_id": found.identifier,
            "metric_name": record.metric.name,
            "metric_kind": found.kind,
            "metric_unit": found.unit,
            "lower_is_better": lower_is_better,
            "score_type": "continuous",
            "min_score": _bound(found.low),
            "max_score": _bound(found.high),
            "additional_details": texts(
                filter=record.metric.filter,
                aggregation=record.metric.aggregation,
                bounds=None if found.is_known else "unknown",
                direction="unknown" if record.metric.higher_is_better is None else None,
            ),
        },
        "score_details": {"score": value, "details": _details(record), "uncertainty": _uncertainty(record)},
        "generation_config": _generation(record),
    }


def _details(record: Record) -> dict[str, str]:
    return texts(
        record_key=record.key(),
        record_digest=record.digest(),
        baseline_comparison_key=record.comparison_key(),
        **record.counts.model_dump(),
        **{f"cost_{name}": cost for name, cost in record.cost.model_dump(exclude={"scoring"}).items()},
    )


def _uncertainty(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = {"num_samples": record.counts.docs}
    if record.stderr is not None:
        found["standard_error"] = {"value": record.stderr, "method": error_method(record.metric.aggregation)}
    interval = intervals.interval(intervals.of_record(record)) if record.value is not None else None
    if interval is not None:
        found["confidence_interval"] = {
            "lower": interval.low,
            "upper": interval.high,
            "confidence_level": 0.95,
            "method": interval.method,
        }
    return found


def _generation(record: Record) -> dict[str, Any]:
    wishes = record.settings.gen_kwargs if record.generation is None else record.generation
    arguments: dict[str, Any] = {"execution_command": record.command or None}
    for name in ("temperature", "top_p", "top_k"):
        if isinstance(wishes.get(name), int | float) and not isinstance(wishes[name], bool):
            arguments[name] = wishes[name]
    longest = wishes.get("max_gen_toks", wishes.get("max_new_tokens"))
    if type(longest) is int and longest > 0:
        arguments["max_tokens"] = longest
    return {
        "generation_args": arguments,
        "additional_details": texts(
            **record.settings.model_dump(), **{f"seed_{name}": seed for name, seed in record.seeds.model_dump().items()}
        ),
    }


def _bound(value: float) -> float | str:
    return value if abs(value) != INFINITE else ("Infinity" if value > 0 else "-Infinity")


def texts(**values: Any) -> dict[str, str]:
    """Return ``values`` as the texts this format wants, what is None or empty left out."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
        for name, value in values.items()
        if value is not None and value != {}
    }
