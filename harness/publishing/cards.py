"""Records to what model pages on the Hub show: ``.eval_results`` files, and a model card for what a method made."""

from __future__ import annotations

import json
import numbers
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from harness.errors import HarnessError
from harness.names import printable, safe_name
from harness.publishing.files import PlannedFile, planned
from harness.publishing.metrics import is_share
from harness.publishing.selection import Item
from harness.records.labels import method_label
from harness.records.record import Record, digest_of

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

# Of a setting's value, in words.
MOST_CHARACTERS = 60


@dataclass(frozen=True)
class Benchmark:
    """A data set on the Hub that shows results, and the number of ours that goes there."""

    file: str
    dataset: str
    task: str
    metrics: tuple[tuple[str, str], ...]


_GPQA = Benchmark("gpqa_diamond", "Idavidrein/gpqa", "gpqa_diamond", (
    ("exact_match", "flexible-extract"), ("exact_match", "strict-match"), ("acc_norm", "none"), ("acc", "none"),
))  # fmt: skip
_GSM8K = Benchmark(
    "gsm8k", "openai/gsm8k", "gsm8k", (("exact_match", "strict-match"), ("exact_match", "flexible-extract"))
)
_MMLU_PRO = Benchmark("mmlu_pro", "TIGER-Lab/MMLU-Pro", "mmlu_pro", (("exact_match", "custom-extract"),))
_HLE = Benchmark("hle", "cais/hle", "hle", (("exact_match", "none"), ("acc", "none")))
# Benchmarks that others registered with the Hub, by lm-eval's task; no other is shown there.
BENCHMARKS = {
    "gsm8k": _GSM8K,
    "gsm8k_cot": _GSM8K,
    "gsm8k_cot_zeroshot": _GSM8K,
    "mmlu_pro": _MMLU_PRO,
    "hle": _HLE,
    **{
        f"gpqa_diamond_{way}": _GPQA
        for way in ("zeroshot", "n_shot", "cot_zeroshot", "cot_n_shot", "generative_n_shot")
    },
}


def export(items: Sequence[Item], folder: Path, *, source_url: str | None) -> list[PlannedFile]:
    """Return the files for the model pages, one folder for each model a record speaks of.

    Args:
        folder: where they will go: a model card that is there keeps its text and gains the results.
        source_url: where the whole records can be read.

    Raises:
        HarnessError: no record belongs on a model page, or a card there cannot be read.
    """
    files = []
    for name, records in _by_model(items).items():
        files += _eval_results(PurePosixPath(name), records, source_url)
        made = [record for record in records if not record.is_baseline]
        if made:
            path = PurePosixPath(name, "README.md")
            files.append(planned(path, _card(made, folder / path, source_url)))
    if not files:
        known = ", ".join(sorted(BENCHMARKS))
        raise HarnessError(
            "none of these records belongs on a model page: the untouched model's scores are shown there only for "
            f"registered benchmarks ({known}), and no method made a model"
        )
    return files


def _by_model(items: Sequence[Item]) -> dict[str, list[Record]]:
    """Group by the model that was scored: the base model, or what a method with its options and seeds made of it."""
    groups: dict[str, list[Record]] = {}
    for item in items:
        record = item.record
        name = record.model.name.strip("/").replace("/", "__")
        if not record.is_baseline:
            name += f"-{method_label(record)}-{_state(record)}"
        groups.setdefault(safe_name(name), []).append(record)
    return groups


def _state(record: Record) -> str:
    """Return eight digits that tell states of a method apart: options, code, seeds and the model it was given."""
    content = record.content()
    return digest_of({name: content.get(name) for name in ("method", "plugin", "seeds", "model")})[:8]


def _eval_results(folder: PurePosixPath, records: Sequence[Record], source_url: str | None) -> list[PlannedFile]:
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    files: dict[str, str] = {}
    for record in sorted(
        records, key=lambda record: (record.task.name, record.settings.num_fewshot or 0, _asked(record))
    ):
        benchmark = BENCHMARKS.get(record.task.name)
        alike = [other for other in records if _asked(other) == _asked(record)]
        if benchmark is None or _best(alike, record.task.name, benchmark) is not record:
            continue
        scale = 100.0 if is_share(record.metric.name) else 1.0
        entry = EvalResultEntry(
            dataset_id=benchmark.dataset,
            task_id=benchmark.task,
            value=round(float(record.value or 0.0) * scale, 4),
            date=record.created,
            source_url=source_url,
            source_name="token-harness record" if source_url else None,
            notes=_notes(record),
        )
        # Several ways of asking one benchmark are files of their own, as the page wants it.
        names = [benchmark.file, f"{benchmark.file}_{safe_name(record.task.name)}"]
        stem = next((name for name in names if name not in files), f"{names[1]}_{_asked(record)}")
        files[stem] = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True)
    return [planned(folder / ".eval_results" / f"{stem}.yaml", text) for stem, text in files.items()]


def _best(records: Sequence[Record], task: str, benchmark: Benchmark) -> Record | None:
    """Return the record of the number that a page shows for this benchmark: it has room for one."""
    for metric, filter_name in benchmark.metrics:
        for record in records:
            if (record.task.name, record.metric.name, record.metric.filter) == (task, metric, filter_name):
                return record
    return None


def _notes(record: Record) -> str:
    """Return what the format has no field for, in one line."""
    options = ", ".join(f"{name}={value}" for name, value in record.method.options.items() if value is not None)
    return "; ".join(
        [
            f"method={method_label(record)}" + (f" ({printable(options)})" if options else ""),
            record.model.quantization if record.model.quantization != "none" else record.model.dtype,
            *([f"revision {printable(record.model.revision)}"] if record.model.revision else []),
            *_settings_words(record),
            f"n={record.counts.docs}",
            f"lm-eval {record.environment.lm_eval} {printable(record.task.name)}",
            f"{printable(record.metric.name)},{printable(record.metric.filter)}",
            *([f"stderr {record.stderr:.4f}"] if record.stderr else []),
        ]
    )


def _settings_words(record: Record) -> list[str]:
    """Return how a task was asked, a few words each: shots first, then every setting that is not as by default."""
    settings = record.settings
    words = [f"{settings.num_fewshot or 0}-shot"]
    words += [f"shots drawn with seed {record.fewshot_seed}"] if record.fewshot_seed is not None else []
    unusual = settings.model_dump(mode="json", exclude={"num_fewshot"}, exclude_defaults=True)
    for name, value in unusual.items():
        shown = printable(value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False))
        said = shown if len(shown) <= MOST_CHARACTERS else f"{shown[: MOST_CHARACTERS - 1]}…"
        words.append(name.replace("_", " ") + ("" if value is True else f" {said}"))
    return words


def _asked(record: Record) -> str:
    """Return eight digits for everything but the metric: model, method, task, documents, prompts, settings, seeds."""
    return digest_of({"run": record.run_key(), "settings": _dataset_args(record)})[:8]


def _dataset_args(record: Record) -> dict[str, Any]:
    """Return how the task was asked and of what, as plain JSON without None, which a card cannot hold."""
    model = record.model
    told = {
        "num_few_shot": record.settings.num_fewshot or 0,
        "few_shot_seed": record.fewshot_seed,
        "documents": record.counts.docs,
        "task_version": record.task.version,
        "prompts_digest": record.task.prompts_digest,
        **record.settings.model_dump(mode="json", exclude={"num_fewshot"}, exclude_defaults=True),
        "model_revision": model.revision,
        "quantization": None if model.quantization == "none" else model.quantization,
        "dtype": model.dtype,
        "method_options": dict(record.method.options) or None,
        "seed": record.seeds.random,
    }
    return dict(_plain(told))


def _plain(value: Any) -> Any:
    """Return JSON values of Python's own types, None left out: others write a card that no safe reader takes."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value if inner is not None]
    if isinstance(value, str | bool):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else str(value)


def eval_results(records: Sequence[Record], source_url: str | None) -> list[EvalResult]:
    """Return the results of a card, as they are read back from it.

    The hub's library merges results of one data set, configuration and revision, and gives all the settings of the first. So
    records that were asked otherwise in anything have a ``dataset_config`` of their own, by words and eight digits.
    """
    from huggingface_hub import EvalResult

    found = [
        EvalResult(
            task_type="text-generation",
            task_name=record.task.name,
            dataset_type=record.task.name,
            dataset_name=record.task.name,
            dataset_config=f"{', '.join(_settings_words(record))} [{_asked(record)}]",
            dataset_revision=record.task.docs_digest,
            dataset_args=_dataset_args(record),
            metric_type=record.metric.name,
            metric_name=f"{record.metric.name} ({record.metric.filter})",
            metric_value=_plain(record.value),
            metric_args=_plain({"filter": record.metric.filter, "stderr": record.stderr, "record": record.key()}),
            source_name="token-harness record" if source_url else None,
            source_url=source_url,
        )
        for record in records
    ]
    return sorted(
        found, key=lambda result: (result.task_name or "", result.dataset_config or "", result.metric_name or "")
    )


def _card(records: Sequence[Record], existing: Path, source_url: str | None) -> str:
    """Return a model card with ``model-index``: the one at ``existing`` with these results, or a new short one."""
    from huggingface_hub import ModelCard, ModelCardData

    first, results = records[0], eval_results(records, source_url)
    name = f"{first.model.name.rpartition('/')[2]}-{method_label(first)}"
    if existing.is_file():
        try:
            text = existing.read_text(encoding="utf-8")
            card = ModelCard(text, ignore_metadata_errors=True)
            index = _model_index(text)
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise HarnessError(f"the model card {printable(existing)} cannot be read: {printable(error)}") from error
        data: Any = card.data
        data["model-index"] = _with_results(index, data.model_name or name, results)
        data.eval_results = data.model_name = None  # which would be written in its place
        return str(card)
    data = ModelCardData(
        model_name=name, base_model=first.model.name, eval_results=results, tags=["token-harness", method_label(first)]
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_text(first, name)}"


def _model_index(text: str) -> list[dict[str, Any]]:
    """Return the results in a card's front matter as they stand there; the hub's class would merge some of them.

    Raises:
        ValueError: it has some of another form.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    found = REGEX_YAML_BLOCK.search(text)
    index = (yaml.safe_load(found.group(2)) or {}).get("model-index") or [] if found else []
    parts = index if isinstance(index, list) else [index]
    if not all(isinstance(part, dict) and isinstance(part.get("results"), list) for part in parts):
        raise ValueError("its model-index is no list of models with results")
    return parts


def _with_results(index: list[dict[str, Any]], name: str, results: Sequence[EvalResult]) -> list[dict[str, Any]]:
    """Return a model index with these results added; of those there the same measurements are replaced, no others."""
    from huggingface_hub.repocard_data import eval_results_to_model_index

    keys = {result.metric_args["record"] for result in results if result.metric_args}
    [new] = eval_results_to_model_index(name, list(results))
    kept = [{**part, "results": list(_others(part["results"], keys))} for part in index]
    if not kept:
        return [new]
    return [*kept[:-1], {**kept[-1], "results": kept[-1]["results"] + new["results"]}]


def _others(results: Sequence[Any], keys: Set[str]) -> Iterator[Any]:
    """Yield the results of a card without the metrics that are one of the measurements ``keys``."""
    for result in results:
        metrics = result.get("metrics") if isinstance(result, dict) else None
        left = [metric for metric in metrics or () if _record_key(metric) not in keys]
        if left or not metrics:
            yield {**result, "metrics": left} if left else result


def _record_key(metric: Any) -> str | None:
    args = metric.get("args") if isinstance(metric, dict) else None
    key = args.get("record") if isinstance(args, dict) else None
    return key if isinstance(key, str) else None


def _text(record: Record, name: str) -> str:
    options = [f"| {_cell(option)} | {_cell(value)} |" for option, value in record.method.options.items()]
    plugin = f"`{record.plugin.distribution}` {record.plugin.version}" if record.plugin.name else "no plugin"
    return "\n".join(
        [
            f"# {_cell(name)}",
            "",
            f"What the method `{_cell(record.method.name)}` ({plugin}) made of `{_cell(record.model.name)}`, "
            f"model digest `{record.model.digest[:16]}`, seed {record.seeds.random}. "
            f"The scores in the front matter are those of token-harness {record.environment.harness} with lm-eval "
            f"{record.environment.lm_eval}.",
            "",
            "| option | value |",
            "|---|---|",
            *options,
            "",
        ]
    )


def _cell(value: Any) -> str:
    shown = printable("none" if value is None else value)
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "'")):
        shown = shown.replace(character, escaped)
    return shown
