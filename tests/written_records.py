"""Records and sample files written as the harness writes them: a baseline and a method on two tasks and their group."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import statistics
from pathlib import Path
from typing import Any

from harness.records import ledger, samples
from harness.records.record import Record

TASKS = {"colours_warm": [1, 0, 1, 1, 0], "colours_cold": [0, 0, 1]}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def joined(parts: list[str]) -> str:
    return sha256("\n".join(parts))[:16]


def rows_of(task: str, *, bias: float = 0.0) -> list[dict[str, Any]]:
    """Rows as lm-eval writes them for a choice of two, of which the first is right; ``bias`` makes a model another."""
    rows = []
    for number, acc in enumerate(TASKS[task]):
        doc, prompt = {"question": f"{task} {number}"}, f"Question: {task} {number}? Answer:"
        answers = (
            [["-1.5", "False"], [str(-2.5 - bias), "False"]]
            if acc
            else [["-3.25", "False"], [str(-2.0 - bias), "False"]]
        )
        rows.append(
            {
                "doc_id": number,
                "doc": doc,
                "target": "0",
                "arguments": {f"gen_args_{i}": {"arg_0": prompt, "arg_1": f" {word}"} for i, word in enumerate("ab")},
                "resps": [[answer] for answer in answers],
                "filtered_resps": answers,
                "filter": "none",
                "metrics": ["acc"],
                "doc_hash": sha256(json.dumps(doc, indent=2, ensure_ascii=False)),
                "prompt_hash": sha256(prompt),
                "target_hash": sha256("0"),
                "acc": float(acc),
            }
        )
    return rows


def write_samples(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Publish a sample file; return the part of a record that names it."""
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    digest = hashlib.sha256(content).hexdigest()
    path = folder / samples.published_name(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0))
    return {"path": samples.published_name(digest), "sha256": digest, "rows": len(rows)}


def record(name: str, values: list[float], rows: list[dict[str, Any]], **more: Any) -> Record:
    """One record as the harness writes it."""
    fields: dict[str, Any] = {
        "schema_version": 1,
        "created": "2026-11-24T16:26:19Z",
        "run": "baseline-0123456789",
        "method": {"name": "baseline"},
        "model": {"name": "tiny", "digest": "ab" * 32, "dtype": "float32", "weights_changed": 0},
        "tokenizer": {"digest": "cd" * 32, "vocabulary": 400},
        "task": {
            "name": name,
            "version": "1.0",
            "docs_digest": joined([joined([row["doc_hash"] for row in rows])]),
            "size": len(values),
        },
        "metric": {"name": "acc", "higher_is_better": True, "aggregation": "mean"},
        "value": statistics.fmean(values),
        "stderr": statistics.stdev(values) / math.sqrt(len(values)),
        "counts": {"docs": len(values), "requests": 2 * len(values)},
        "settings": {"num_fewshot": 0},
        "seeds": {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234},
        "environment": {"python": "3", "torch": "2", "transformers": "5", "lm_eval": "0.4.13", "peft": "0", "harness": "0.1.0",
                        "platform": "Linux", "device": "cpu"},
        "batch_size": "8",
        "command": "harness eval --tasks colours --model_args pretrained=./tiny --seed 0,1234,1234,1234",
    }  # fmt: skip
    return Record.model_validate(fields | more)


def group_record() -> Record:
    docs = [len(values) for values in TASKS.values()]
    errors = [statistics.stdev(values) / math.sqrt(len(values)) for values in TASKS.values()]
    pooled = sum((n - 1) * n * e * e for n, e in zip(docs, errors, strict=True)) / (sum(docs) - len(docs))
    rows = [row for task in TASKS for row in rows_of(task)]
    made = record("colours", [value for values in TASKS.values() for value in values], rows)
    task = made.task.model_copy(update={"group": True, "members": list(TASKS)})
    metric = made.metric.model_copy(update={"aggregation": "mean_by_size"})
    return made.model_copy(update={"task": task, "metric": metric, "stderr": math.sqrt(pooled / sum(docs))})


def other_method(folder: Path) -> list[Record]:
    method = {"name": "softly", "options": {"steps": 8}}
    changes: dict[str, Any] = {
        "run": "softly-0123456789",
        "plugin": {"name": "softly", "distribution": "softly", "version": "1", "code_digest": "ef"},
        "method": method,
        "model": {"name": "tiny", "digest": "ab" * 32, "dtype": "float32", "weights_changed": 32},
        "cost": {"apply_seconds": 2.5, "evaluate_seconds": 1.25, "apply_peak_bytes": 5000000, "tokens_trained": 4096},
        "report": {"growth": {"before": 100, "after": 150}},
        "command": "harness eval --tasks colours --plugin softly --method_args steps=8 --model_args pretrained=./tiny "
        "--seed 0,1234,1234,1234",
    }
    made = []
    for task, values in TASKS.items():
        rows = rows_of(task, bias=0.125)
        made.append(record(task, [float(v) for v in values], rows, samples=write_samples(folder, rows), **changes))
    return made


def write_board(folder: Path) -> Path:
    """Write a ledger of five records (two tasks, their group, two tasks of a method) and their sample files."""
    folder.mkdir()
    made = []
    for task, values in TASKS.items():
        rows = rows_of(task)
        made.append(record(task, [float(v) for v in values], rows, samples=write_samples(folder, rows)))
    ledger.append(folder / "board.jsonl", [*made, group_record(), *other_method(folder)])
    return folder


def write_results(folder: Path) -> Path:
    """Write a results folder of two runs, the baseline and a method, each with what ``harness eval`` leaves."""
    baseline = [record(task, [float(v) for v in TASKS[task]], rows_of(task)) for task in TASKS]
    rows = {("baseline", task): rows_of(task) for task in TASKS}
    others = other_method(folder.parent / "unused")
    for made in others:
        changed = rows_of(made.task.name, bias=0.125)
        changed[0].update(filtered_resps=[["-4.0", "False"], ["-1.0", "False"]], acc=0.0)
        rows[made.method.name, made.task.name] = changed
    for made in [*baseline, *others]:
        run = folder / str(made.run)
        content = "".join(json.dumps(row) + "\n" for row in rows[made.method.name, made.task.name])
        path = run / "tiny" / f"samples_{made.task.name}_2026.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        part = {"path": f"tiny/{path.name}", "sha256": sha256(content), "rows": content.count("\n")}
        values = [row["acc"] for row in rows[made.method.name, made.task.name]]
        score = {"value": statistics.fmean(values), "stderr": statistics.stdev(values) / math.sqrt(len(values))}
        written = Record.model_validate(made.content() | {"samples": part} | score)
        ledger.write(run / f"records_{made.task.name}-0.jsonl", [written])
        notes = {"status": "finished", "started": "2026-11-24T16:00:00Z", "ended": "2026-11-24T16:01:00Z", "tasks": {}}
        (run / "run.json").write_text(json.dumps(notes), encoding="utf-8")
    artefacts = folder / "softly-0123456789" / "artefacts"
    (artefacts / "adapter").mkdir(parents=True)
    (artefacts / "adapter" / "weights.safetensors").write_bytes(b"\0" * 1234)
    (artefacts / "report.json").write_text('{"growth": 0.5}', encoding="utf-8")
    return folder
