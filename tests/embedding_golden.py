"""Golden cases of embeddings and of the metrics over them: made by independent programs, free to use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "contextual_embeddings" / "data"


def rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of ``NAME.jsonl``."""
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def vocabulary() -> dict[str, Any]:
    """Return the toy vocabulary of the targets: token texts, special ids, stop words."""
    found: dict[str, Any] = json.loads((FOLDER / "toy_vocabulary.json").read_text(encoding="utf-8"))
    return found
