"""Golden cases of critical tokens: made by a plain numpy program in float64, free to use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data"


def rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of ``NAME.jsonl``."""
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
