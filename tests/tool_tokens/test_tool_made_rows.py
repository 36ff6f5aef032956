"""Rows that the method makes: the same bytes whatever the cache held, and tokens counted as they were trained on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answered import training_row, write_lines

from harness_tool_tokens.method import ROWS_FILE

pytestmark = pytest.mark.usefixtures("own_cache")


def test_rows_are_the_same_to_the_byte_whatever_the_cache_held(
    apply: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demand: states of a text do not depend on the texts beside it, so rows do not depend on what ran before."""
    words = "and then he wound the clocks of the bank in the order in which he had bought them"
    rows = [
        training_row(n, f"Q: What is {n} {words[: 5 * n % 83]}?\nA: It is {n}+2=", str(n + 2), " it is.", tool)
        for n, tool in zip(range(24), itertools.cycle(["add", "multiply", "divide"]))
    ]
    train_file = write_lines(tmp_path / "rows.jsonl", rows)

    def made(cache: str, shots: int) -> bytes:
        monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / cache))
        lm = apply(train_file=train_file, shots_per_tool=shots, steps=200)
        content: bytes = (lm.workdir / ROWS_FILE).read_bytes()
        return content

    fresh = made("one", 6)
    assert made("two", 6) == fresh
    few = [made("three", shots) for shots in (1, 3)]
    assert made("three", 6) == fresh and fresh not in few
    assert made("one", 6) == fresh  # all of it out of the cache


@pytest.mark.parametrize("settings", [{"steps": 0}, {"steps": "0 epochs"}, {"steps": 3}])
def test_tokens_that_were_trained_on_are_counted_by_what_was_done(
    apply: Callable[..., Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Demand: without a step no token was trained on; three steps of one text each are one pass over three texts."""
    rows = [training_row(n, f"Q: What is {n}+2?\nA: {n}+2=", str(n + 2), ".") for n in range(3)]
    lm = apply(train_file=write_lines(tmp_path / "rows.jsonl", rows), **settings)
    report = json.loads((lm.workdir / "report.json").read_text(encoding="utf-8"))
    if settings["steps"] != 3:
        assert report["tokens_trained"] == 0
    else:
        ids = [lm.tokenizer.encode(row["text"]) for row in rows]
        assert 0 < report["tokens_trained"] <= sum(len(one) + 1 for one in ids)
