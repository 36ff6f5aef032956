"""The sheet's claim for tool tokens in shape, on the embedded model and KAMEL with 30 tools; needs the published data."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance

from harness.models import finding, loading
from harness_tool_tokens.method import ToolTokens
from harness_tool_tokens.tasks import data

DRAWS = range(3)


@pytest.fixture(scope="module")
def lm() -> Any:
    """The embedded model."""
    if not os.environ.get("HARNESS_TOOL_DATA"):
        pytest.skip("HARNESS_TOOL_DATA does not name the folder with ToolkenGPT's data")
    return loading.load_lm(finding.resolve({}, quantization="none"), device="cpu", batch_size="auto")


def selection(lm: Any, folder: Path, *, seed: int = 0, **options: Any) -> float:
    """Return the share of the KAMEL-30 questions at which the right relation's row is the best."""
    method = ToolTokens(tools=("kamel_relations.jsonl[:30]",), bias=0.0, **options)
    made: Any = method.apply(lm, seed=seed, workdir=folder)
    known = set(data.kamel_properties(30))
    asked = []
    for number, row in enumerate(row for row in data.kamel_questions(30) if row["property"] in known):
        text = f"Question: {row['question']}\nAnswer: The answer is"
        call = {"tool": row["property"], "start": len(text), "end": len(text)}
        asked.append(Instance("tool_choice", row, (text, {"calls": [call]}), 0, metadata=("kamel", number, 1)))
    answers = made.tool_choice(asked)
    return statistics.mean(call["best"] == call["tool"] for answer in answers for call in answer["calls"])


@pytest.mark.slow
def test_the_head_rows_of_a_name_choose_far_above_chance_and_help_where_examples_are_few(
    lm: Any, tmp_path: Path
) -> None:
    """Acceptance property 20: untrained more than 5 x chance; with 8 rows a relation above a random start in the mean."""
    found: dict[str, list[float]] = {"tools": [], "random_start": []}
    assert selection(lm, tmp_path) > 5 / 30
    for draw in DRAWS:
        for variant, values in found.items():
            folder = tmp_path / f"{variant}-{draw}"
            folder.mkdir()
            rows = {"train_file": "kamel_synthetic_train.jsonl", "shots_per_tool": 8}
            values.append(selection(lm, folder, seed=draw, variant=variant, **rows))
    assert statistics.mean(found["tools"]) > statistics.mean(found["random_start"])
