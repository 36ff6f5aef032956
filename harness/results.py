"""Turn lm-eval's results into records, and a run into a folder that appears whole or not at all."""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from harness.errors import HarnessError
from harness.folders import link_tree, new_folder, write_atomic
from harness.methods import resolved_options
from harness.models.identity import bits_per_weight, parameter_count, sha256_of, tokenizer_digest
from harness.names import printable, safe_name
from harness.records import ledger
from harness.records.environment import environment
from harness.records.record import (
    CostPart,
    CountsPart,
    MethodPart,
    MetricPart,
    ModelPart,
    PluginPart,
    Record,
    SamplesPart,
    SeedsPart,
    SettingsPart,
    TaskPart,
    TokenizerPart,
)

if TYPE_CHECKING:
    from harness.applying import Applied
    from harness.methods import Method
    from harness.models.loading import ModelSource
    from harness.plugins import Plugin
    from harness.run import Run

ARTEFACTS = "artefacts"


def make_records(
    results: Mapping[str, Any],
    *,
    run: Run,
    plugin: Plugin | None,
    method: Method,
    source: ModelSource,
    applied: Applied,
    base: Mapping[str, Any],
    seconds: float,
    peak_bytes: int | None,
) -> list[Record]:
    """Return one record for each metric of each task and group in lm-eval's ``results``.

    Args:
        base: ``describe_model`` of the LM before the method.

    Raises:
        HarnessError: a metric is NaN or infinite.
    """
    from harness.applying import fingerprint

    lm: Any = applied.lm
    shared: dict[str, Any] = {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "plugin": _plugin_part(plugin, method),
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
            prefix_token_id=getattr(lm, "prefix_token_id", None),
        ),
        "seeds": SeedsPart(**dict(zip(("random", "numpy", "torch", "fewshot"), run.seeds, strict=True))),
        "environment": environment(str(getattr(lm, "device", "cpu"))),
        "batch_size": str(run.batch_size),
        "cost": CostPart(
            apply_seconds=round(applied.seconds, 2),
            evaluate_seconds=round(seconds, 2),
            apply_peak_bytes=applied.peak_bytes,
            evaluate_peak_bytes=peak_bytes,
            tokens_trained=applied.report.get("tokens_trained"),
            reused=applied.reused,
            scoring=lm.work.describe() if hasattr(lm, "work") else None,
        ),
        "report": applied.report,
        "command": command(run),
    }
    truncated = getattr(lm, "truncated", {})
    records = []
    for numbers, docs in _numbers(results, run):
        cut = sum(truncated.get(task, 0) for task in _leaf_tasks(numbers["task"].name, results))
        records.append(Record(**shared, **numbers, counts=CountsPart(docs=docs, truncated_requests=cut)))
    return records


def describe_model(lm: Any) -> dict[str, Any]:
    """Return dtype, measured bits per weight and parameter count of the model in ``lm``, before a method changes it."""
    model, digest = getattr(lm, "model", None), tokenizer_digest(lm.tokenizer)
    if model is None:
        return {"dtype": "none", "bits_per_weight": None, "parameters": None, "tokenizer_digest": digest}
    return {
        "tokenizer_digest": digest,
        "dtype": str(model.dtype).removeprefix("torch."),
        "bits_per_weight": round(bits_per_weight(model), 3),
        "parameters": parameter_count(model),
    }


def save(results: dict[str, Any], records: list[Record], tracker: Any, run: Run, applied: Applied) -> list[Record]:
    """Write the run's folder and add its records to ``records.jsonl`` of the output folder.

    Args:
        tracker: lm-eval's ``EvaluationTracker``, which saw the run.

    Returns:
        The records as written, with the path and digest of their sample files.

    Raises:
        HarnessError: the disk refuses; nothing half-written is left.
    """
    output = run.output_path
    folder = output / run_folder_name(records)
    samples = results.pop("samples", {})
    try:
        # One lock for folder and records: of two runs that end together neither removes what the other points to.
        with FileLock(output / ".results.lock"):
            with new_folder(folder) as temporary:
                files = _write_lm_eval_files(results, samples, tracker, temporary, log_samples=run.log_samples)
                write_atomic(temporary / "command.txt", records[0].command + "\n")
                if applied.workdir is not None and any(p.name[0] != "." for p in applied.workdir.iterdir()):
                    link_tree(applied.workdir, temporary / ARTEFACTS)
                digests = {task: sha256_of(temporary / path) for task, path in files.items()}
            records = [_with_samples(record, folder.name, files, digests) for record in records]
            ledger.merge(output / ledger.RECORDS_FILE, records)
    except OSError as error:
        raise HarnessError(f"could not save to '{printable(output)}': {error.strerror or error}") from error
    return records


def run_folder_name(records: Sequence[Record]) -> str:
    """Return the name of a run's folder: readable, and the same for the same method on the same tasks."""
    record = records[0]
    parts = [record.plugin.name or "", record.method.name] if not record.is_baseline else ["baseline"]
    name = safe_name("-".join(dict.fromkeys(part for part in parts if part)))
    return f"{name}-{joined_digest(sorted({r.run_key() for r in records}))[:10]}"


def command(run: Run) -> str:
    """Return the command line that repeats ``run``, every given option spelled out."""
    return shlex.join(["harness", "eval", *run.words()])


def _numbers(results: Mapping[str, Any], run: Run) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield task, metric, value, error and settings of each number, and how many documents are behind it."""
    digests = {task: _docs_digest(samples) for task, samples in results["samples"].items()}
    for name, metrics in {**results["results"], **results.get("groups", {})}.items():
        children = _leaf_tasks(name, results)
        docs = sum(results["n-samples"][child]["effective"] for child in children)
        version = results["versions"].get(name)
        task = TaskPart(
            name=name,
            version=str(results["versions"].get(children[0]) if version in (None, "N/A") else version),
            group=children != [name],
            docs_digest=joined_digest([digests[child] for child in children]),
        )
        for key, value in metrics.items():
            metric, comma, filter_name = key.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, str):
                continue
            if not math.isfinite(value):
                raise HarnessError(
                    f"metric '{printable(metric)}' of task '{printable(name)}' is {value}: it is no score"
                )
            stderr = metrics.get(f"{metric}_stderr,{filter_name}")
            higher = results["higher_is_better"].get(name, {}).get(metric)
            yield (
                {
                    "task": task,
                    "metric": MetricPart(name=metric, filter=filter_name, higher_is_better=higher),
                    "value": float(value),
                    "stderr": float(stderr) if isinstance(stderr, int | float) and math.isfinite(stderr) else None,
                    "settings": settings_of(run, results["n-shot"].get(children[0])),
                },
                docs,
            )


def settings_of(run: Run, num_fewshot: int | None) -> SettingsPart:
    """Return what of ``run`` decides prompts and answers; ``num_fewshot`` is the number the task really used."""
    return SettingsPart(
        num_fewshot=num_fewshot,
        limit=run.limit,
        samples_digest=joined_digest([str(sorted(run.samples.items()))]) if run.samples else None,
        apply_chat_template=run.apply_chat_template,
        fewshot_as_multiturn=run.fewshot_as_multiturn if run.apply_chat_template else None,
        system_instruction=run.system_instruction,
        gen_kwargs=dict(run.gen_kwargs),
        metadata=dict(run.metadata),
        model_args={
            k: v
            for k, v in run.model_args.items()
            if k not in {"pretrained", "tokenizer", "dtype", "revision", "share_prefixes"}
        },
    )


def _leaf_tasks(name: str, results: Mapping[str, Any]) -> list[str]:
    """Return the tasks below a group, or the task itself."""
    children = results.get("group_subtasks", {}).get(name)
    if not children:
        return [name]
    return [leaf for child in children for leaf in _leaf_tasks(child, results)]


def _docs_digest(samples: list[dict[str, Any]]) -> str:
    return joined_digest([str(sample["doc_hash"]) for sample in samples])


def joined_digest(parts: list[str]) -> str:
    """Return one short digest of several, in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _plugin_part(plugin: Plugin | None, method: Method) -> PluginPart:
    # The untouched model is the same whichever plugin brought the tasks.
    if plugin is None or method.name == "baseline":
        return PluginPart()
    return PluginPart(
        name=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        code_digest=plugin.code_digest[:16],
    )


def _write_lm_eval_files(
    results: dict[str, Any], samples: Mapping[str, Any], tracker: Any, folder: Path, *, log_samples: bool
) -> dict[str, str]:
    """Let lm-eval write its own files into ``folder``; return the sample file of each task, relative to it.

    Raises:
        OSError: a file is not there afterwards: lm-eval only logs what goes wrong.
    """
    general = tracker.general_config_tracker
    general.model_name_sanitized = safe_name(str(general.model_name))
    tracker.output_path = str(folder)
    tracker.save_results_aggregated(results=results, samples=dict(samples))
    if not list(folder.glob("*/results_*.json")):
        raise OSError("lm-eval could not write its results file (no space left, or a name the disk refuses)")
    files: dict[str, str] = {}
    for task, rows in samples.items() if log_samples else ():
        tracker.save_results_samples(task_name=safe_name(task), samples=rows)
        written = list(folder.glob(f"*/samples_{safe_name(task)}_{tracker.date_id}.jsonl"))
        if not written or sum(1 for _ in written[0].open("rb")) != len(rows):
            raise OSError(f"lm-eval could not write the samples of '{printable(task)}' (no space left?)")
        files[task] = written[0].relative_to(folder).as_posix()
    return files


def _with_samples(record: Record, folder: str, files: Mapping[str, str], digests: Mapping[str, str]) -> Record:
    task = record.task.name
    if task not in files:
        return record
    return record.model_copy(update={"samples": SamplesPart(path=f"{folder}/{files[task]}", sha256=digests[task])})
