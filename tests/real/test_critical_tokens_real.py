"""Critical tokens on the embedded default model: some twenty minutes of one core (`make test-slow`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def stories(path: Path, count: int, **settings: Any) -> Path:
    from harness_critical_tokens.stories import write_stories

    rows = write_stories(count, seed=0, **settings)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_scores_find_planted_errors_in_familiar_and_in_other_words(tmp_path: Path) -> None:
    """Property 34: the base does not see the error, p and q do; off the training phrasing the log ratio alone holds."""
    from harness.models.finding import resolve
    from harness.models.loading import load_lm
    from harness_critical_tokens.score_method import Score

    train = stories(tmp_path / "train.jsonl", 400, styles="plain", split="train")
    options: dict[str, Any] = {"contrast_steps": 70, "contrast_batch_size": 4, "contrast_learning_rate": 1e-3}
    found, known = {}, None
    for style in ("plain", "notes"):
        pairs = stories(tmp_path / f"{style}.jsonl", 50, styles=style, split="test")
        source = options | {"train_file": train} if known is None else {"adapters": known}
        workdir = tmp_path / f"work-{style}"
        workdir.mkdir()
        lm = load_lm(resolve({}), device="cpu", batch_size=1)
        Score(pairs_file=pairs, **source).apply(lm, seed=0, workdir=workdir)
        known = known or workdir
        found[style] = json.loads((workdir / "report.json").read_text(encoding="utf-8"))["identification"]
    same, other = found["plain"], found["notes"]
    assert same["contrastive"]["hit_at_1"] >= 0.5 and same["probability"]["hit_at_1"] <= 0.25
    assert other["log_ratio"]["hit_at_1"] >= max(0.3, other["positive"]["hit_at_1"] + 0.2)
    assert all(each["log_ratio"]["share"] > each["contrastive"]["share"] for each in (same, other))
