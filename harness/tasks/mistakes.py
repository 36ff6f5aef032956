"""Mistakes in task files, told in the words of the file instead of Python's."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.errors import HarnessError
from harness.names import cause_of, printable, suggestion
from harness.tasks.documents import impossible, in_file, is_lm_evals

# What lm-eval computes for each kind of answer; names it knows else it drops there in silence.
COMPUTED = {
    "loglikelihood": {"perplexity", "acc"},
    "loglikelihood_rolling": {"word_perplexity", "byte_perplexity", "bits_per_byte"},
    "multiple_choice": {
        "acc", "acc_bytes", "acc_mutual_info", "acc_norm", "brier_score", "exact_match", "f1", "likelihood", "mcc",
    },
}  # fmt: skip
OF_LOGLIKELIHOODS = (COMPUTED["multiple_choice"] - {"exact_match", "f1", "mcc"}) | COMPUTED["loglikelihood_rolling"]
# What a value has to be, by key: what YAML makes of a slip there lm-eval takes, and fails with somewhere else.
MAPPINGS = ("generation_kwargs", "metadata", "dataset_kwargs", "fewshot_config")
TEXTS = ("description", "target_delimiter", "fewshot_delimiter", "gen_prefix", "dataset_path")
FUNCTIONS = ("process_docs", "process_results", "custom_dataset")
SPLITS = ("test_split", "validation_split", "training_split")


def of_loading(error: BaseException) -> str | None:
    """Return what is wrong with a task that lm-eval could not build; None when it is not one of the usual mistakes."""
    unknown = re.search(
        r"(TaskConfig|FewshotConfig)\.__init__\(\) got an unexpected keyword argument '(.+)'", str(error)
    )
    if unknown:
        return _unknown_key(unknown[1], unknown[2])
    config, task = _half_built(error.__traceback__)
    wrong = next(_of_kinds(config), None)
    if wrong is not None or task is None:
        return wrong
    try:
        files = _of_files(task.config) if isinstance(error, UnicodeDecodeError) else ()
        return next(itertools.chain(files, _of_config(task.config), _of_data(task)), None)
    except Exception:  # whatever else is wrong is told as it came
        return None


def check_task(task: Any) -> None:
    """Raise ``HarnessError`` for what lm-eval takes and fails with, or drops, when all has been answered."""
    if not hasattr(task, "fewshot_cfg"):
        return
    sentences = itertools.chain(_of_config(task.config), _of_metrics(task), _of_filters(task), _of_fields(task))
    for sentence in sentences:
        raise HarnessError(f"task '{printable(task.task_name)}'{in_file(task)}: {sentence}")


def _half_built(trace: TracebackType | None) -> tuple[Any, Any]:
    """Return the configuration and the task that were being built where an error was raised."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.config.task import TaskConfig

    config = task = None
    while trace is not None:
        one = trace.tb_frame.f_locals.get("self")
        if isinstance(one, TaskConfig):
            config = one
        if isinstance(one, ConfigurableTask):
            task, config = one, getattr(one, "config", config)
        trace = trace.tb_next
    return config, task


def _unknown_key(kind: str, key: str) -> str:
    from lm_eval.config.task import FewshotConfig, TaskConfig

    known = [part.name for part in fields(TaskConfig if kind == "TaskConfig" else FewshotConfig)]
    where = "" if kind == "TaskConfig" else "fewshot_config has "
    return f"{where}the key '{printable(key)}', which lm-eval does not know; {suggestion(key, known)}"


def _of_kinds(config: Any) -> Iterator[str]:
    """Yield the keys whose value is of a kind that nothing can be made of: a list for a mapping, text for a function."""
    kinds = (
        (MAPPINGS, lambda value: not isinstance(value, str | int | float | list), "a mapping"),
        (TEXTS, lambda value: isinstance(value, str) or callable(value), "text"),
        ((*SPLITS, "fewshot_split"), lambda value: not isinstance(value, list | Mapping), "the name of one split"),
        (FUNCTIONS, callable, "a function (!function FILE.NAME)"),
    )
    for keys, is_right, due in kinds:
        for key in keys:
            value = getattr(config, key, None)
            if value is not None and not is_right(value):
                yield f"{key} is {printable(value)}, where {due} is due"


def _of_config(config: Any) -> Iterator[str]:
    from lm_eval.api.registry import filter_registry, metric_registry
    from lm_eval.api.samplers import SAMPLER_REGISTRY
    from lm_eval.api.task import ALL_OUTPUT_TYPES

    yield from _of_kinds(config)
    if config.output_type not in ALL_OUTPUT_TYPES:
        yield f"output_type is '{printable(config.output_type)}'; {suggestion(str(config.output_type), ALL_OUTPUT_TYPES)}"
    if config.output_type == "multiple_choice" and config.doc_to_choice is None and config.use_prompt is None:
        yield "output_type is multiple_choice, and doc_to_choice is missing"
    for key in ("doc_to_text", "doc_to_target"):
        if getattr(config, key) is None and config.use_prompt is None:
            yield f"{key} is missing"
    for key, least in {"num_fewshot": 0, "repeats": 1}.items():
        value = getattr(config, key)
        if value is not None and (type(value) is not int or value < least):
            yield f"{key} is {printable(value)}; give a whole number of {least} or more"
    if config.metric_list is not None and not _are_mappings(config.metric_list, "metric"):
        yield "metric_list has to be a list of mappings, each with 'metric'"
    for entry in () if callable(config.process_results) else config.metric_list or ():
        name = entry["metric"]
        if (
            isinstance(name, str)
            and name not in metric_registry
            and not entry.get("hf_evaluate")
            and "aggregation" not in entry
        ):
            yield f"no metric is called '{printable(name)}'; {suggestion(name, metric_registry)}"
    if config.filter_list is not None:
        if not _are_mappings(config.filter_list, "name", "filter"):
            yield "filter_list has to be a list of mappings, each with 'name' and 'filter'"
        for one in config.filter_list:
            if not _are_mappings(one["filter"], "function"):
                yield f"filter '{printable(one['name'])}' has to be a list of mappings, each with 'function'"
            for step in one["filter"]:
                name = step["function"]
                if isinstance(name, str) and name not in filter_registry:
                    yield f"no filter function is called '{printable(name)}'; {suggestion(name, filter_registry)}"
    shots = config.fewshot_config
    if isinstance(shots.sampler, str) and shots.sampler not in SAMPLER_REGISTRY:
        yield f"no few-shot sampler is called '{printable(shots.sampler)}'; {suggestion(shots.sampler, SAMPLER_REGISTRY)}"
    if shots.samples is not None and not isinstance(shots.samples, list) and not callable(shots.samples):
        yield "fewshot_config.samples has to be a list of documents, or a function that returns one"


def _are_mappings(values: Any, *keys: str) -> bool:
    return isinstance(values, list) and all(
        isinstance(one, Mapping) and all(key in one for key in keys) for one in values
    )


def _of_data(task: Any) -> Iterator[str]:
    """Yield what is wrong with the data of a task that could not be built."""
    config = task.config
    if not hasattr(task, "dataset"):
        if config.dataset_path is None and config.custom_dataset is None:
            yield "it has neither dataset_path nor custom_dataset"
        yield from _of_files(config)
        return
    if not isinstance(task.dataset, Mapping):
        yield f"its data are {type(task.dataset).__name__}, where a mapping from names of splits to data sets is due"
    splits = sorted(map(str, task.dataset))
    named = {key: getattr(config, key) for key in SPLITS} | {"fewshot_split": task.fewshot_cfg.split}
    for key, split in named.items():
        if split is not None and split not in task.dataset:
            there = (
                f"the split{'s' if len(splits) > 1 else ''} {', '.join(map(printable, splits))}"
                if splits
                else "no splits"
            )
            yield f"the data has {there}; {key} is '{printable(split)}'"
    if config.test_split is None and config.validation_split is None:
        yield "it names neither test_split nor validation_split, so there is nothing to ask"
    yield from _of_documents(task)


def _of_documents(task: Any) -> Iterator[str]:
    split = task.config.test_split or task.config.validation_split
    docs, processed = task.eval_docs, task.config.process_docs is not None
    if not hasattr(docs, "features"):
        kind = type(docs).__name__
        source = "process_docs returns" if processed else f"split '{printable(split)}' is"
        yield f"{source} {'nothing' if docs is None else kind}, where a datasets.Dataset is due"
    if not len(docs):
        yield (
            f"no documents are left after process_docs, of {len(task.dataset[split]):,}"
            if processed and len(task.dataset[split])
            else f"split '{printable(split)}' has no documents"
        )
    task.features = list(docs.features)
    yield from _of_fields(task)
    sentence = impossible(task, docs[0]) or _empty_choice(task, docs[0])
    if sentence is not None:
        yield f"document 0 {sentence}"


def _empty_choice(task: Any, doc: Any) -> str | None:
    choices = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else []
    if "" in choices:
        return f"has an empty choice, number {choices.index('')}"
    target = task.doc_to_target(doc)
    if isinstance(target, int) and choices and not -1 < target < len(choices):
        return f"has the answer {target}, but {len(choices)} choices, counted from 0"
    return None


def _of_files(config: Any) -> Iterator[str]:
    """Yield what is wrong with local files of JSON, or that they are not there."""
    named = (config.dataset_kwargs or {}).get("data_files")
    groups = named.values() if isinstance(named, Mapping) else [named]
    for name in itertools.chain.from_iterable(group if isinstance(group, list) else [group] for group in groups):
        if not isinstance(name, str) or "://" in name or any(c in name for c in "*?["):
            continue
        path = Path((config.dataset_kwargs or {}).get("data_dir") or "", name)
        if not path.is_file():
            yield f"there is no data file '{printable(path)}'; a relative path starts at the working folder, {Path.cwd()}"
        elif not path.stat().st_size:
            yield f"data file '{printable(path)}' is empty"
        elif config.dataset_path == "json" and path.suffix in {".json", ".jsonl"}:
            yield from _of_lines(path)


def _of_lines(path: Path) -> Iterator[str]:
    with path.open("rb") as lines:
        if next(iter(lines), b"").lstrip().startswith(b"["):
            return  # one list over all lines
        lines.seek(0)
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line.decode("utf-8")) if line.strip() else {}
            except UnicodeDecodeError:
                yield f"data file '{printable(path)}' is no UTF-8 in line {number}"
                return
            except (ValueError, RecursionError) as error:
                cause = printable(getattr(error, "msg", error))
                yield f"data file '{printable(path)}' has no valid JSON in line {number}: {cause}"
                return
            if not isinstance(row, dict):
                yield f"data file '{printable(path)}' has a {type(row).__name__} in line {number}, where an object is due"
                return


def _of_metrics(task: Any) -> Iterator[str]:
    from lm_eval.api.registry import AGGREGATION_REGISTRY, metric_registry

    if callable(task.config.process_results):
        known: set[str] | None = None
    else:
        known = COMPUTED.get(str(task.OUTPUT_TYPE))
    for entry in task.config.metric_list or []:
        name = entry["metric"]
        if not isinstance(name, str):
            continue
        if task._metric_fn_list.get(name) is None and not callable(task.config.process_results):
            yield f"no metric is called '{printable(name)}'; {suggestion(name, metric_registry)}"
        aggregation = entry.get("aggregation")
        if task._aggregation_list.get(name) is None:
            yield f"no aggregation is called '{printable(aggregation)}'; {suggestion(str(aggregation), AGGREGATION_REGISTRY)}"
        if is_lm_evals(task) or entry.get("hf_evaluate"):
            continue
        if known is not None and name not in known:
            yield (
                f"metric '{printable(name)}' is not computed where output_type is {task.OUTPUT_TYPE}; there "
                f"{'are' if len(known) > 1 else 'is'} {', '.join(sorted(known))}"
            )
        if known is None and name in OF_LOGLIKELIHOODS and not callable(task.config.process_results):
            yield f"metric '{printable(name)}' needs log-likelihoods, but output_type is {task.OUTPUT_TYPE}"


def _of_filters(task: Any) -> Iterator[str]:
    for ensemble in getattr(task, "_filters", []):
        for build in ensemble.filters:
            try:
                build()
            except Exception as error:  # a wrong pattern, an argument too many
                yield f"filter '{printable(ensemble.name)}' cannot be made: {cause_of(error)}"


def _of_fields(task: Any) -> Iterator[str]:
    """Yield fields that are named and are not there: lm-eval takes such a name for the text itself."""
    if task.config.use_prompt is not None or is_lm_evals(task):
        return
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        value = getattr(task.config, key)
        if isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*", value) and value not in task.features:
            yield (
                f"{key} is '{value}', but the documents have {', '.join(map(printable, task.features[:12]))}; for that very "
                f"word as text, write {{{{ '{value}' }}}}"
            )
