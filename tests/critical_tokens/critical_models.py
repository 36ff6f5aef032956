"""A tiny model, pairs and their files for tests of critical tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.models.finding import resolve
from harness.models.loading import load_lm

PAIRS: tuple[dict[str, Any], ...] = (
    {
        "prompt": "Question: 7 clocks and 1 more?\nAnswer:",
        "chosen": " There are 7 + 1 = 8. The answer is 8.",
        "rejected": " So 7 + 1 = 9. The answer is 9.",
        "first_wrong_char": 12,
        "critical_span": [12, 13],
        "propagated_spans": [[29, 30]],
        "kind": "result",
        "answer": 8,
        "rejected_answer": 9,
    },
    {
        "prompt": "Question: 8 sweets less 2?\nAnswer:",
        "chosen": " The clockmaker has 8 - 2 = 6.",
        "rejected": " The clockmaker has 8 + 2 = 10.",
        "first_wrong_char": 22,
        "critical_span": [22, 23],
        "propagated_spans": [[28, 30]],
        "kind": "operator",
        "answer": 6,
        "rejected_answer": 10,
    },
    {
        "prompt": "Question: 2 cuckoos and 2 more?\nAnswer: ",
        "chosen": "That is 2 + 2 = 4.",
        "rejected": "Then 2 + 2 = 5, as all know.",
        "first_wrong_char": 13,
        "kind": "result",
        "answer": 4,
        "rejected_answer": 5,
    },
)
QUICK = {"contrast_steps": 3, "contrast_learning_rate": 0.02, "contrast_rank": 4, "contrast_batch_size": 2}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]] = PAIRS) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load(folder: Path, **settings: Any) -> Any:
    """Load a tiny model as a user would."""
    return load_lm(resolve({"pretrained": str(folder)}, **settings), device="cpu", batch_size=1)


def report_of(workdir: Path) -> Any:
    """Return the report a method left."""
    return json.loads((workdir / "report.json").read_text(encoding="utf-8"))
