"""Records to what model pages on the Hub show: ``.eval_results`` files, and a model card for what a method made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from harness.errors import HarnessError
from harness.names import printable, safe_name
from harness.publishing.files import PlannedFile, planned
from harness.publishing.metrics import is_share
from harness.publishing.selection import Item
from harness.records.labels import method_label
from harness.records.record import Record


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
    from harness.records.record import digest_of

    content = record.content()
    return digest_of({name: content.get(name) for name in ("method", "plugin", "seeds", "model")})[:8]


def _eval_results(folder: PurePosixPath, records: Sequence[Record], source_url: str | None) -> list[PlannedFile]:
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    files = {}
    for record in sorted(records, key=lambda record: record.task.name):
        benchmark = BENCHMARKS.get(record.task.name)
        if benchmark is None or _best(records, record.task.name, benchmark) is not record:
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
        stem = benchmark.file if benchmark.file not in files else f"{benchmark.file}_{safe_name(record.task.name)}"
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
            f"{record.settings.num_fewshot or 0}-shot",
            f"n={record.counts.docs}",
            f"lm-eval {record.environment.lm_eval} {printable(record.task.name)}",
            f"{printable(record.metric.name)},{printable(record.metric.filter)}",
            *([f"stderr {record.stderr:.4f}"] if record.stderr is not None else []),
        ]
    )


def _card(records: Sequence[Record], existing: Path, source_url: str | None) -> str:
    """Return a model card with ``model-index``: the one at ``existing`` with these results, or a new short one."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    first = records[0]
    results = [
        EvalResult(
            task_type="text-generation",
            task_name=record.task.name,
            dataset_type=record.task.name,
            dataset_name=record.task.name,
            dataset_revision=record.task.docs_digest,
            dataset_args={"num_few_shot": record.settings.num_fewshot or 0, "documents": record.counts.docs},
            metric_type=record.metric.name,
            metric_name=f"{record.metric.name} ({record.metric.filter})",
            metric_value=record.value,
            metric_args={"stderr": record.stderr, "record": record.key()},
            source_name="token-harness record" if source_url else None,
            source_url=source_url,
        )
        for record in records
    ]
    name = f"{first.model.name.rpartition('/')[2]}-{method_label(first)}"
    if existing.is_file():
        try:
            card = ModelCard(existing.read_text(encoding="utf-8"), ignore_metadata_errors=True)
        except (OSError, ValueError) as error:
            raise HarnessError(f"the model card {printable(existing)} cannot be read: {printable(error)}") from error
        data: Any = card.data
        data.model_name = data.model_name or name
        data.eval_results = results
        return str(card)
    data = ModelCardData(
        model_name=name, base_model=first.model.name, eval_results=results, tags=["token-harness", method_label(first)]
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_text(first, name)}"


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
