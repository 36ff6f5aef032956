"""Files of Every Eval Ever: an evaluation's scores, and the instances beside it as rows in lm-eval's form."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.foreign.contents import (
    UNKNOWN,
    Given,
    Measured,
    json_of,
    number,
    parsed,
    part,
    score_of,
    time_of,
    with_unknown,
)
from harness.names import printable
from harness.plain_files import open_plain

TOOL = "Every Eval Ever"
# Of the form 0.MINOR.PATCH; what is in it has stood there since 0.2.
MAJOR, MINORS = 0, range(2, 4)
MOST_LINE_BYTES = 100_000_000
ENDING = "_samples.jsonl"
_VERSION = re.compile(r"(\d+)\.(\d+)(\.\d+)?")
# What our own export tells of a record, by field.
_SETTINGS = (
    "num_fewshot", "limit", "samples_digest", "apply_chat_template", "fewshot_as_multiturn", "system_instruction", "gen_kwargs",
    "metadata", "model_args",
)  # fmt: skip
_OF_THE_MODEL = ("digest", "dtype", "quantization")
_SEEDS = ("random", "numpy", "torch", "fewshot")


def read(path: Path) -> Given:
    """Return the scores of an evaluation's file.

    Raises:
        HarnessError: it is no whole JSON, or of a version that is not known here.
    """
    content, given = json_of(path), Given()
    _check_version(content)
    results = content.get("evaluation_results")
    samples = _samples(content, path)
    for one in results if isinstance(results, list) else ():
        details = part(one, "score_details")
        if number(details.get("score")) is None:
            given.problems.append(f"has a result of '{printable(part(one).get('evaluation_name'))}' without a score")
            continue
        given.scores.append(Measured(_content(content, one, path), samples))
    if not given.scores and not given.problems:
        given.problems.append("has no result under 'evaluation_results'")
    return given


def names_of(result: Mapping[str, Any]) -> tuple[str, str]:
    """Return metric and filter of a result; of a file that knows no filter ``none``."""
    config = part(result, "metric_config")
    joined = str(part(result).get("evaluation_result_id") or "")
    name = config.get("metric_name") or config.get("metric_id") or joined.partition(",")[0] or "score"
    return str(name), str(part(config, "additional_details").get("filter") or "none")


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the instances at ``path``: one for each document and filter, with all metrics it has there.

    Raises:
        HarnessError: a line is no such instance, or the file beside it cannot be read.
    """
    evaluation = json_of(evaluation_of(path))
    by_id = {
        str(part(one).get("evaluation_result_id")): names_of(one) for one in evaluation.get("evaluation_results") or []
    }  # fmt: skip
    only = next(iter(by_id.values())) if len(by_id) == 1 else None
    found: dict[tuple[str, str], dict[str, Any]] = {}
    order: dict[str, int] = {}
    for line_number, line in enumerate(_lines(path), start=1):
        names = by_id.get(str(line.get("evaluation_result_id"))) or only
        score = number(part(line, "evaluation").get("score"))
        if names is None or score is None or "sample_id" not in line:
            raise HarnessError(f"has in line {line_number} no instance with id and score of a result of its file")
        sample_id = str(line["sample_id"])
        order.setdefault(sample_id, len(order))
        row = found.setdefault((sample_id, names[1]), _row(line, sample_id, order[sample_id], names[1]))
        if names[0] in row:
            raise HarnessError(f"has sample '{printable(sample_id)}' twice for {printable(names[0])}")
        row["metrics"].append(names[0])
        row[names[0]] = score
    yield from sorted(found.values(), key=lambda row: row["doc_id"])


def evaluation_of(samples: Path) -> Path:
    """Return the file of the evaluation that instances belong to."""
    return samples.with_name(samples.name.removesuffix(ENDING) + ".json")


def _check_version(content: Any) -> None:
    told = str(part(content).get("schema_version"))
    found = _VERSION.fullmatch(told)
    if found is None or int(found[1]) != MAJOR or int(found[2]) not in MINORS:
        raise HarnessError(
            f"is of version {printable(told)} of Every Eval Ever, where this harness reads 0.2 and 0.3; upgrade token-harness"
        )


def _content(evaluation: dict[str, Any], result: Any, path: Path) -> dict[str, Any]:
    library, model = part(evaluation, "eval_library"), part(evaluation, "model_info")
    more, config, details = (
        part(model, "additional_details"),
        part(result, "metric_config"),
        part(result, "score_details"),
    )
    data, told = part(result, "source_data"), part(result, "generation_config", "additional_details")
    uncertainty = part(details, "uncertainty")
    settings = {name: _value(told[name]) for name in _SETTINGS if name in told}
    seeds = {name: _value(told[f"seed_{name}"]) for name in _SEEDS if f"seed_{name}" in told}
    task_version = part(data, "additional_details").get("task_version")
    docs = uncertainty.get("num_samples", data.get("samples_number"))
    metric, chosen = names_of(result)
    lower = config.get("lower_is_better")
    is_known = part(config, "additional_details").get("direction") != UNKNOWN and isinstance(lower, bool)
    method = more.get("method") or str(library.get("name") or TOOL)
    parts = {
        "created": time_of(evaluation.get("evaluation_timestamp") or evaluation.get("retrieved_timestamp")),
        "run": path.stem,
        "model": {
            "name": str(model.get("id") or model.get("name") or UNKNOWN), "parameters": _whole(more.get("parameters")),
            **{name: more.get(name) for name in _OF_THE_MODEL},
        },
        "method": {"name": method, "options": _object(more.get("method_options"))},
        "task": {"name": str(result.get("evaluation_name") or UNKNOWN), "version": task_version},
        "metric": {
            "name": metric, "filter": chosen, "higher_is_better": not lower if is_known else None,
            "aggregation": part(config, "additional_details").get("aggregation"),
        },
        **score_of(details.get("score")),
        "stderr": number(part(uncertainty, "standard_error").get("value")),
        "counts": {"docs": docs if type(docs) is int and docs >= 0 else None},
        "settings": settings, "seeds": seeds,
        "report": {"record_digest": part(details, "details").get("record_digest")},
    }  # fmt: skip
    stated = _stated(settings, seeds, more) | ({"task.version"} if task_version else set())
    stated |= {"counts.docs"} if type(docs) is int else set()
    tool = str(library.get("name") or UNKNOWN)
    version = f"{library.get('version') or UNKNOWN} (in a file of {TOOL})"
    trial = None if "seeds" in stated else str(evaluation.get("evaluation_id"))
    return with_unknown(tool, version, parts, stated=stated, trial=trial)


def _stated(settings: Mapping[str, Any], seeds: Mapping[str, Any], model: Mapping[str, Any]) -> set[str]:
    """Return the fields of settings, seeds and model that a file states."""
    stated = {f"settings.{name}" for name in settings} | {f"model.{name}" for name in _OF_THE_MODEL if name in model}
    return stated | ({"seeds"} if len(seeds) == len(_SEEDS) else set())


def _samples(content: Any, path: Path) -> Path | None:
    """Return the instances beside a file, whichever of the names that the form allows they have."""
    told = str(part(content, "detailed_evaluation_results").get("file_path") or "").rpartition("/")[2]
    names = [name for name in (f"{path.stem}{ENDING}", told) if name == f"{path.stem}{ENDING}"]
    return next((path.with_name(name) for name in names if path.with_name(name).exists()), None)


def _row(line: Mapping[str, Any], sample_id: str, place: int, chosen: str) -> dict[str, Any]:
    given, output, more = part(line, "input"), part(line, "output"), part(line, "metadata")
    doc = {"id": sample_id, "input": given.get("raw"), "reference": given.get("reference")}
    text = json.dumps(doc, indent=2, ensure_ascii=False)
    references = given.get("reference") or [""]
    texts = [str(one) for one in output.get("raw") or []] or [_last(line)]
    is_number = sample_id.isascii() and sample_id.isdigit() and len(sample_id) < 18
    digest = more.get("doc_hash")
    return {
        "doc_id": int(sample_id) if is_number else place,
        **({} if is_number else {"doc_name": sample_id}),
        **({} if isinstance(digest, str) else {"doc": doc}),
        "target": str(references[0] if isinstance(references, list) else references),
        "arguments": {"gen_args_0": {"arg_0": str(given.get("raw", "")), "arg_1": {}}},
        "resps": [texts], "filtered_resps": [texts[0] if len(texts) == 1 else " / ".join(texts)],
        "filter": chosen, "metrics": [],
        "doc_hash": digest if isinstance(digest, str) else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
    }  # fmt: skip


def _last(line: Mapping[str, Any]) -> str:
    """Return the last thing that was said in a conversation."""
    messages = line.get("messages")
    content = part(messages[-1]).get("content") if isinstance(messages, list) and messages else None
    return content if isinstance(content, str) else ""


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with open_plain(path) as file:
            while line := file.readline(MOST_LINE_BYTES):
                if line.strip():
                    yield part(parsed(line))
    except OSError as error:
        raise HarnessError(f"cannot be read ({printable(error.strerror or error)})") from error


def _value(text: Any) -> Any:
    """Return what a text of this form stands for, in which all details are texts."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


def _whole(text: Any) -> int | None:
    value = _value(text)
    return value if type(value) is int else None


def _object(text: Any) -> dict[str, Any]:
    value = _value(text)
    return value if isinstance(value, dict) else {}
