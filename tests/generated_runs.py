"""Runs of a task that generates, for pages: documents with a raw answer, and what each filter made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compared_runs import make_record

from harness.records import ledger, samples


def write_generated(folder: Path, method: str, rows: Sequence[dict[str, Any]], seed: int = 0) -> Path:
    """Write a run whose task generates: documents with raw answer, and what each filter made of it."""
    lines = []
    for name in rows[0]["filters"]:
        for number, row in enumerate(rows):
            doc = {"question": f"q{number}"}
            lines.append({
                "doc_id": number, "doc": doc, "target": "42", "filter": name, "metrics": ["exact_match"],
                "arguments": {"gen_args_0": {"arg_0": row.get("prompt", f"Question {number}?"), "arg_1": {"until": ["."]}}},
                "resps": [[row["raw"]]], "filtered_resps": [row["filters"][name]],
                "doc_hash": hashlib.sha256(json.dumps(doc, indent=2, ensure_ascii=False).encode()).hexdigest(),
                "exact_match": float(row["filters"][name] == "42"), **row.get("more", {}),
            })  # fmt: skip
    run = folder / f"{method}-{seed}"
    path = run / "tiny" / "samples_sums.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    part = {"path": "tiny/samples_sums.jsonl", "sha256": samples.sha256(path), "rows": len(lines)}
    records = []
    for name in rows[0]["filters"]:
        values = [float(row["filters"][name] == "42") for row in rows]
        made = make_record("sums", "exact_match", sum(values) / len(values), docs=len(values), method=method, run=run.name,
                           samples=part, docs_digest=None, seed=seed)  # fmt: skip
        records.append(made.model_copy(update={"metric": made.metric.model_copy(update={"filter": name})}))
    ledger.write(run / "records_sums.jsonl", records)
    return run


def answer(raw: str, **filters: str) -> dict[str, Any]:
    return {"raw": raw, "filters": {name.replace("_", "-"): text for name, text in filters.items()}}
