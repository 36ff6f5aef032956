"""Records and sample files of which a test says only what it is about."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.records.record import Record

VERSIONS = ("python", "torch", "transformers", "lm_eval", "peft", "harness", "platform", "device")
HOSTILE = [
    "<script>alert(1)</script>", "<script src=//evil></script>", "</script><script>alert(1)</script>", "<!--<script>", "-->",
    "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", "<svg><script>alert(1)</script></svg>", "<iframe src=//evil>",
    "<style>*{display:none}</style>", "</style><b>x", "</title><b>x", "</textarea><b>x", "</td></tr></table><h1>x",
    "</bdi></button><b>x", "</dialog>", "</details>", "<base href=//evil>", "<meta http-equiv=refresh content=0>",
    "<link rel=stylesheet href=//evil>", "<form action=//evil><input name=x>", "<a href=javascript:alert(1)>x</a>",
    "<math><mi//xlink:href=data:x,x>", "<noscript><p title=</noscript><img src=x onerror=alert(1)>>", "<template><b>",
    '" onmouseover="alert(1)', "' onfocus='alert(1)' autofocus='", '"><b>x', "'><b>x", "` onload=alert(1)", "x\" style=\"a:b",
    "javascript:alert(1)", "data:text/html,<b>x", "vbscript:x", "http://evil.example/", "&lt;script&gt;", "&#60;b&#62;", "&amp;",
    "&", "<", ">", "]]>", "<![CDATA[x]]>", "<?xml ?>", "{{ 7 * 7 }}", "{% raw %}", "{# x #}", "${7*7}", "\\u003cb\\u003e",
    "a\u2028b", "a\u2029b", "\x00\x01\x1b[31mred", "\x1b]8;;http://evil\x07x\x1b]8;;\x07", "\u202egnp.exe", "\u2066x\u2069",
    "a\u200bb\ufeffc", "\ud83d lone", "__proto__", "constructor", "a\nb\r\nc\td",
]  # fmt: skip
UNUSUAL = [
    "שלום עולם",
    "مرحبا",
    "日本語モデル",
    "e\u0301te\u0301",
    "é",
    "🧪👩‍🔬",
    "Ж" * 40,
    "m" * 200,
    "\u0e01\u0e33" * 30,
    "a\u0300\u0301\u0302" * 9,
]


def content(
    value: float | None = 0.5, *, method: str = "m", options: dict[str, Any] | None = None, seed: int = 0, **more: Any
) -> dict[str, Any]:
    """Return a record as JSON values; parts named in ``more`` are merged."""
    whole: dict[str, Any] = {
        "schema_version": 1,
        "created": "2026-01-01T00:00:00Z",
        "status": "invalid" if value is None else "ok",
        "plugin": {} if method == "baseline" else {"name": "p", "version": "1", "code_digest": "c"},
        "method": {"name": method, "options": options or {}},
        "model": {"name": "tiny", "digest": "0123456789abcdef", "dtype": "float32"},
        "tokenizer": {"digest": "d", "vocabulary": 400},
        "task": {"name": "t", "version": "1.0", "docs_digest": "dd"},
        "metric": {"name": "acc", "higher_is_better": True},
        "value": value,
        "counts": {"docs": 40},
        "settings": {},
        "seeds": dict.fromkeys(("random", "numpy", "torch", "fewshot"), seed),
        "environment": dict.fromkeys(VERSIONS, "1"),
        "cost": {"apply_seconds": 1.0, "evaluate_seconds": 2.0},
        "batch_size": "8",
        "command": "harness eval",
    }
    for name, part in more.items():
        whole[name] = whole[name] | part if isinstance(whole.get(name), dict) else part
    return whole


def record(value: float | None = 0.5, **more: Any) -> Record:
    """Return a record."""
    return Record.model_validate(content(value, **more))


def baseline(value: float | None = 0.25, **more: Any) -> Record:
    """Return a record of the untouched model."""
    return record(value, method="baseline", **more)


def write(file: Path, records: Iterable[Record]) -> Path:
    """Write records as a results folder holds them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(one.to_line() + "\n" for one in records), encoding="utf-8")
    return file


def measured(folder: Path, name: str, scores: Mapping[int, float], **more: Any) -> dict[str, Any]:
    """Write a sample file and return the parts of a record that follow from it, for ``record``; parts in ``more`` are merged."""
    values = [scores[number] for number in scores]
    stderr = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    digest = docs_digest(scores)
    made: dict[str, Any] = {
        "value": statistics.fmean(values), "stderr": stderr, "samples": sampled(folder, name, scores),
        "counts": {"docs": len(values)}, "task": {"docs_digest": digest}, "metric": {"aggregation": "mean"},
    }  # fmt: skip
    for part, content in more.items():
        made[part] = made[part] | content if isinstance(made.get(part), dict) else content
    return made


def _joined(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def docs_digest(scores: Mapping[int, float]) -> str:
    """Return the digest that a record gives of the documents of a sample file."""
    return _joined([_joined([doc_hash(number) for number in scores])])


def doc_hash(number: int) -> str:
    """Return the digest that lm-eval gives the document of this number."""
    return hashlib.sha256(json.dumps({"n": number}, indent=2, ensure_ascii=False).encode()).hexdigest()


def sampled(
    folder: Path, name: str, scores: Mapping[int, float], *, metric: str = "acc", **texts: str
) -> dict[str, Any]:
    """Write a sample file and return what a record says of it."""
    rows = [
        {
            "doc_id": number, "doc": {"n": number}, "doc_hash": doc_hash(number), "target": texts.get("target", "yes"),
            "filter": "none",
            "arguments": {"gen_args_0": {"arg_0": texts.get("prompt", "Is it?"), "arg_1": {"until": ["."]}}},
            "resps": [[texts.get("answer", "yes")]], "filtered_resps": [texts.get("answer", "yes")],
            "metrics": [metric], metric: score,
        }
        for number, score in scores.items()
    ]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / name).write_text(text, encoding="utf-8")
    return {"path": name, "sha256": hashlib.sha256(text.encode()).hexdigest(), "rows": len(rows)}
