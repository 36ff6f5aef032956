"""Folders of results for the tests of ``harness compare``: records and sample files as a run leaves them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.records import ledger, samples
from harness.records.aggregation import group_errors
from harness.records.record import Record


def write_run(
    folder: Path,
    scores: Mapping[str, Mapping[str, Sequence[Any]]],
    *,
    method: str = "baseline",
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    with_samples: bool = True,
    groups: Mapping[str, Sequence[str]] | None = None,
    weigh_alike: bool = False,
    values: Mapping[str, float] | None = None,
    aggregations: Mapping[str, str | None] | None = None,
    better: Mapping[str, bool | None] | None = None,
    first_document: int = 0,
    answers: Sequence[str] | None = None,
    **more: Any,
) -> list[Record]:
    """Write one run: for each task its metrics, for each metric the value of each document.

    Args:
        groups: names of groups and the tasks below each.
        weigh_alike: groups weigh each task alike, not by its documents.
        values: scores of metrics that are no means.
        first_document: the content of the documents is that of a data set from there on.
        answers: generated texts; else each document is a choice between two answers.
        more: parts of the records to change.
    """
    run = f"{method}-{hashlib.sha256(repr((options, seed, more)).encode()).hexdigest()[:10]}"
    found: dict[str, dict[str, Record]] = {}
    for task, metrics in scores.items():
        rows = [_row(task, first_document, i, metrics, answers) for i in range(len(next(iter(metrics.values()))))]
        part = _write_samples(folder / run, task, rows) if with_samples else None
        docs_digest = _joined([_joined([row["doc_hash"] for row in rows])])
        found[task] = {
            metric: make_record(
                task, metric, _value(metric, column, values), docs=len(column), docs_digest=docs_digest, method=method,
                options=options, seed=seed, run=run, stderr=_stderr(column), samples=part,
                aggregation=(aggregations or {}).get(metric, "mean"), better=(better or {}).get(metric, True), more=more,
            )
            for metric, column in metrics.items()
        }  # fmt: skip
    for group, members in (groups or {}).items():
        common = {"method": method, "options": options, "seed": seed, "run": run, "more": more}
        found[group] = _group(group, members, scores, weigh_alike=weigh_alike, common=common)
    for task, records in found.items():
        ledger.write(folder / run / f"records_{task}.jsonl", list(records.values()))
    return [record for records in found.values() for record in records.values()]


def _group(
    group: str, members: Sequence[str], scores: Mapping[str, Mapping[str, Sequence[Any]]], *, weigh_alike: bool,
    common: Mapping[str, Any],
) -> dict[str, Record]:  # fmt: skip
    found = {}
    for metric in scores[members[0]]:
        columns = [np.asarray(scores[task][metric], dtype=float) for task in members]
        mean = np.mean([c.mean() for c in columns]) if weigh_alike else np.concatenate(columns).mean()
        docs = sum(map(len, columns))
        found[metric] = make_record(
            group, metric, float(mean), docs=docs, docs_digest="group", group=list(members), **common,
            stderr=_group_stderr(columns, weigh_alike=weigh_alike),
        )  # fmt: skip
    return found


def _group_stderr(columns: Sequence[Any], *, weigh_alike: bool) -> float | None:
    errors = [_stderr(column) for column in columns]
    if None in errors:
        return None
    return group_errors([error or 0.0 for error in errors], [len(column) for column in columns])[int(weigh_alike)]


def _joined(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def make_record(
    task: str, metric: str, value: float | None, *, docs: int, docs_digest: str | None = "d", method: str = "baseline",
    options: Mapping[str, Any] | None = None, seed: int = 0, run: str | None = None, stderr: float | None = None,
    samples: dict[str, Any] | None = None, aggregation: str | None = "mean", better: bool | None = True,
    group: list[str] | None = None, more: Mapping[str, Any] | None = None,
) -> Record:  # fmt: skip
    """Return one record; ``more`` changes parts of it."""
    plugin = {} if method == "baseline" else {"name": method, "version": "1", "code_digest": "c0de"}
    content: dict[str, Any] = {
        "schema_version": 1, "created": "2026-01-01T00:00:00Z", "run": run, "plugin": plugin,
        "method": {"name": method, "options": dict(options or {})},
        "model": {"name": "tiny", "digest": "0123456789abcdef", "dtype": "float32"},
        "tokenizer": {"digest": "d", "vocabulary": 400},
        "task": {"name": task, "version": "1.0", "docs_digest": docs_digest, "group": group is not None, "members": group},
        "metric": {"name": metric, "higher_is_better": better, "aggregation": aggregation},
        "value": value, "stderr": stderr, "counts": {"docs": docs}, "samples": samples,
        "seeds": {"random": seed, "numpy": seed, "torch": seed, "fewshot": seed},
        "environment": dict.fromkeys(
            ("python", "torch", "transformers", "lm_eval", "peft", "harness", "platform", "device"), "1"
        ),
        "batch_size": "8",
        "cost": {"apply_seconds": 10.0, "evaluate_seconds": 2.0, "apply_peak_bytes": 2_000_000, "tokens_trained": 640},
    }  # fmt: skip
    for name, part in (more or {}).items():
        content[name] = content[name] | part if isinstance(content.get(name), dict) else part
    return Record.model_validate(content)


def _row(
    task: str, start: int, number: int, metrics: Mapping[str, Sequence[Any]], texts: Sequence[str] | None
) -> dict[str, Any]:
    content = f"{task} {start + number}"
    value = next(iter(metrics.values()))[number]
    liked = isinstance(value, int | float) and value > 0.5
    prompt = f"Question {content}?"
    if texts is None:
        asked = {f"gen_args_{i}": {"arg_0": prompt, "arg_1": f" {word}"} for i, word in enumerate(("right", "wrong"))}
        filtered: Any = [["-1.0" if liked else "-3.0", "False"], ["-2.0", "False"]]
    else:
        asked, filtered = {"gen_args_0": {"arg_0": prompt, "arg_1": {"until": ["\n"]}}}, [texts[number]]
    return {
        "doc_id": number, "doc": {"text": content}, "target": "0" if texts is None else "truth", "arguments": asked,
        "resps": [[answer] for answer in filtered], "filtered_resps": filtered, "filter": "none",
        "metrics": list(metrics), "doc_hash": _doc_hash(content),
        **{name: column[number] for name, column in metrics.items()},
    }  # fmt: skip


def _doc_hash(content: str) -> str:
    return hashlib.sha256(json.dumps({"text": content}, indent=2, ensure_ascii=False).encode()).hexdigest()


def _write_samples(folder: Path, task: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    path = folder / "tiny" / f"{samples.PREFIX}{task}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"path": f"tiny/{path.name}", "sha256": samples.sha256(path), "rows": len(rows)}


def _value(metric: str, column: Sequence[Any], values: Mapping[str, float] | None) -> float:
    return values[metric] if values and metric in values else float(np.mean(column))


def _stderr(column: Sequence[Any]) -> float | None:
    try:
        return float(np.std(np.asarray(column, dtype=float), ddof=1)) / math.sqrt(len(column))
    except (TypeError, ValueError):
        return None
