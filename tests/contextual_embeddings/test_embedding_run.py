"""The method in a whole run: found by its entry point, twice the same, with its report, and no log-probabilities."""

from __future__ import annotations

import json

import pytest

from harness import HarnessError
from harness.run import Run, evaluate


def test_two_runs_leave_equal_records(tiny_decoder, tiny_encoder, make_plugin, tmp_path, monkeypatch) -> None:
    """Property 11: same seed, same record; property 25: tasks of other requests are refused before weights are read."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HARNESS_EMBEDDING_DATA", str(tmp_path))
    make_plugin("embeddings_here", "from harness_contextual_embeddings import harness_methods  # noqa: F401")
    pairs = [{"text1": f"a clock {n}", "text2": f"{'the clock' * (n % 2)} {n}!", "score": n % 3} for n in range(4)]
    (tmp_path / "sts_b_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
    rows = [{"query": f"what is {n}", "positive": f"it is {n}"} for n in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {
        "plugin": "embeddings_here",
        "method_args": {
            "encoder": str(tiny_encoder),
            "train_file": str(tmp_path / "pairs.jsonl"),
            "steps": 2,
            "rank": 2,
        },
        "model_args": {"pretrained": str(tiny_decoder)},
        "device": "cpu",
        "output_path": tmp_path / "results",
    }
    run = Run(tasks=("sts_b",), **settings)
    first, second = evaluate(run), evaluate(run)
    assert [record.value for record in first] == [record.value for record in second]
    assert [record.key() for record in first] == [record.key() for record in second]
    assert not first[0].cost.reused and second[0].cost.reused
    report = json.loads(next((tmp_path / "cache" / "methods").rglob("report.json")).read_text(encoding="utf-8"))
    assert report["width"] == 64 and len(report["stages"]["contrastive"]["losses"]) == 2
    with pytest.raises(HarnessError, match=r"sends .* requests, which"):
        evaluate(Run(tasks=("langgame_contains",), limit=1, **settings))
