"""lm-eval's ``results_TIME.json``, with the ``samples_TASK_TIME.jsonl`` that lie beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.arguments import parse_args
from harness.errors import HarnessError
from harness.foreign.contents import UNKNOWN, Given, Measured, entries, json_of, part, score_of, time_of, with_unknown
from harness.foreign.contents import number as finite
from harness.names import printable

TOOL = "lm_eval"
STATED = frozenset(
    {"task.version", "counts.docs", "settings.num_fewshot", "settings.limit", "settings.apply_chat_template",
     "settings.fewshot_as_multiturn", "settings.system_instruction", "settings.gen_kwargs", "settings.model_args"}
)  # fmt: skip
SEEDS = ("random", "numpy", "torch", "fewshot")
# What names the model, and has a field of its own.
_OF_THE_MODEL = {"pretrained", "tokenizer", "revision", "dtype", "model"}
_VERSIONS = {
    "torch": re.compile(r"^PyTorch version: (\S+)", re.MULTILINE),
    "python": re.compile(r"^Python version: (\S+)", re.MULTILINE),
}


def read(path: Path) -> Given:
    """Return the scores of a results file.

    Raises:
        HarnessError: it is no whole JSON, or not of a form that is known here.
    """
    content, given = json_of(path), Given()
    results = part(content, "results")
    if not results or not isinstance(content.get("config"), dict):
        raise HarnessError(
            "has no scores under 'results', or no 'config', as lm-eval 0.4 writes them; a later version may write others: "
            "upgrade token-harness"
        )
    shared = _shared(content, path)
    groups = {name for name, tasks in part(content, "group_subtasks").items() if isinstance(tasks, list) and tasks}
    for task, row in results.items():
        found = (
            list(_scores(content, task, row, shared, path, is_group=task in groups)) if isinstance(row, dict) else []
        )
        if not found:
            given.problems.append(f"has no number of task '{printable(task)}'")
        given.scores += found
    return given


def _scores(
    content: dict[str, Any], task: str, row: Mapping[str, Any], shared: Mapping[str, Any], path: Path, *, is_group: bool
) -> Iterator[Measured]:
    of_task, stated = _of_task(content, task, shared, is_group=is_group)
    samples = None if is_group else _samples(path, task)
    config, ways = part(content, "configs", task), part(content, "higher_is_better", task)
    for key, value in row.items():
        metric, comma, chosen = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        way = ways.get(metric)
        parts = of_task | {
            "metric": {
                "name": metric, "filter": chosen, "aggregation": _aggregation(config, metric),
                "higher_is_better": way if isinstance(way, bool) else None,
            },
            **score_of(value),
            "stderr": finite(row.get(f"{metric}_stderr,{chosen}")),
        }  # fmt: skip
        yield Measured(with_unknown(TOOL, shared["version"], parts, stated=stated), samples)


def _of_task(
    content: dict[str, Any], task: str, shared: Mapping[str, Any], *, is_group: bool
) -> tuple[dict[str, Any], set[str]]:
    """Return the parts of a record that all metrics of a task or group share, and the fields that are stated of it."""
    members = _leaves(part(content, "group_subtasks"), task, ()) if is_group else None
    docs = part(content, "n-samples", task)
    asked, size = _sum(content, members) if members else (_count(docs, "effective"), _count(docs, "original"))
    version, seconds = part(content, "versions").get(task), _seconds(content)
    parts = shared["parts"] | {
        "task": {
            "name": task, "version": None if version in (None, "N/A") else str(version), "group": is_group, "size": size,
            "members": members, "drawn": bool(part(content, "configs", task, "generation_kwargs").get("do_sample")),
        },
        "counts": {"docs": asked or 0},
        "settings": shared["parts"]["settings"] | {"num_fewshot": part(content, "n-shot").get(task)},
        "cost": {"evaluate_seconds": seconds},
    }  # fmt: skip
    unstated = {"counts.docs"} if asked is None else set()
    unstated |= {"task.version"} if version in (None, "N/A") else set()
    return parts, {*shared["stated"], *(("cost",) if seconds is not None else ())} - unstated


def _shared(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return what all scores of a file have in common: version of lm-eval, parts of a record, and the fields it states."""
    config = content["config"]
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        arguments = _given(arguments)
    arguments = arguments if isinstance(arguments, dict) else {}
    dtype = str(config.get("model_dtype") or UNKNOWN).removeprefix("torch.")
    bits = next((f"{bits}bit" for bits in (4, 8) if str(arguments.get(f"load_in_{bits}bit")) == "True"), None)
    revision = config.get("model_revision")
    seeds = {name: config.get(f"{name}_seed") for name in SEEDS}
    settings = {
        "limit": config.get("limit"),
        "apply_chat_template": content.get("chat_template") is not None,
        "fewshot_as_multiturn": content.get("fewshot_as_multiturn") if content.get("chat_template") else None,
        "system_instruction": content.get("system_instruction"),
        "gen_kwargs": _kwargs(config.get("gen_kwargs")),
        "model_args": {name: value for name, value in arguments.items() if name not in _OF_THE_MODEL},
    }
    name = arguments.get("pretrained") or content.get("model_name") or config.get("model")
    model = {
        "name": str(name or UNKNOWN), "revision": None if revision in (None, "main") else str(revision),
        "digest": config.get("model_sha") or None, "dtype": dtype, "quantization": bits,
        "parameters": config.get("model_num_parameters") or None,
    }  # fmt: skip
    stated = {*STATED, *(field for field, known in (
        ("model.digest", model["digest"]), ("model.dtype", dtype != UNKNOWN), ("model.quantization", bits),
        ("seeds", all(seed is not None for seed in seeds.values())),
    ) if known)}  # fmt: skip
    version = content.get("lm_eval_version")
    parts = {
        "created": time_of(content.get("date")), "run": path.stem, "model": model, "settings": settings, "seeds": seeds,
        "environment": _environment(content), "batch_size": str(config.get("batch_size") or UNKNOWN),
    }  # fmt: skip
    return {"version": None if version is None else str(version), "parts": parts, "stated": stated}


def _environment(content: Mapping[str, Any]) -> dict[str, Any]:
    told = str(content.get("pretty_env_info"))
    versions = {name: found[1] for name, pattern in _VERSIONS.items() if (found := pattern.search(told))}
    return versions | {
        "transformers": _text(content.get("transformers_version")), "lm_eval": _text(content.get("lm_eval_version")),
        "device": _text(content["config"].get("device")),
    }  # fmt: skip


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _seconds(content: Mapping[str, Any]) -> float | None:
    """Return what a run of one task took; what it took for each of several is not stated."""
    try:
        seconds = float(content.get("total_evaluation_time_seconds") or "")
    except (TypeError, ValueError):
        return None
    return seconds if len(part(content, "results")) == 1 and seconds >= 0 else None


def _samples(path: Path, task: str) -> Path | None:
    ending = path.stem.removeprefix("results")
    found = path.with_name(f"samples_{task}{ending}.jsonl")
    return found if "/" not in task and found.exists() else None


def _aggregation(config: Mapping[str, Any], metric: str) -> str | None:
    """Return lm-eval's name of the function behind a metric; None of a task's own, which stands there as code."""
    if metric == "bypass":
        return "bypass"
    for one in entries(config, "metric_list"):
        name = one.get("aggregation") if isinstance(one, dict) and one.get("metric") == metric else None
        if isinstance(name, str) and name.isidentifier():
            return name
    return None


def _leaves(groups: Mapping[str, Any], name: str, above: tuple[str, ...]) -> list[str]:
    """Return the tasks below a group in their order, those of groups below it included."""
    below = groups.get(name)
    if not isinstance(below, list) or not below or name in above:
        return [name]
    return list(dict.fromkeys(leaf for one in below for leaf in _leaves(groups, str(one), (*above, name))))


def _sum(content: dict[str, Any], tasks: list[str]) -> tuple[int | None, int | None]:
    """Return how many documents of tasks were asked, and how many there are."""
    counts = [part(content, "n-samples", task) for task in tasks]
    return _total([_count(one, "effective") for one in counts]), _total([_count(one, "original") for one in counts])


def _count(docs: Mapping[str, Any], name: str) -> int | None:
    found = docs.get(name)
    return found if type(found) is int and found >= 0 else None


def _total(numbers: list[Any]) -> int | None:
    return sum(numbers) if all(type(number) is int for number in numbers) else None


def _kwargs(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else _given(value) if isinstance(value, str) else {}


def _given(text: str) -> dict[str, Any]:
    """Return the arguments of a command line, as one text where they are none that can be taken apart."""
    try:
        return parse_args(text, flag="model_args")
    except HarnessError:
        return {"given": text}
