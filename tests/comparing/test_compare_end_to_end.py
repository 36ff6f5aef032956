"""From two evaluations of a real, tiny model to a comparison of what they left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import main


def test_what_runs_leave_can_be_compared(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    shared = ["eval", "--model_args", f"pretrained={tiny_model}", "--output_path", str(results), "--limit", "4"]
    method = ["--plugin", "stochastok", "--method_args", "steps=2,batch_size=2,context_length=64"]
    tasks = ["--tasks", "langgame,addition_3digit,tokenization_robustness"]
    for seed in ("1", "2"):
        assert main([*shared, *method, *tasks, "--with_baseline", "--seed", seed]) == 0
    capsys.readouterr()
    assert main(["compare", "stochastok@baseline", "--records", str(results), "--format", "json"]) == 0
    comparison = json.loads(capsys.readouterr().out)
    rows = {(row["task"], row["metric"]): row for row in comparison["comparisons"]}
    assert {row["verdict"] for row in rows.values()} <= {
        "better",
        "worse",
        "no difference shown",
        "too few documents to tell",
    }
    group = rows["langgame", "acc"]
    assert group["is_group"] and group["documents"] == 24
    assert [seed for seed, _ in group["second"]["by_seed"]] == [1, 2]
    assert rows["addition_3digit", "exact_match"]["documents"] == 4
    assert rows["tokenization_robustness", "bits_per_byte_p0"]["changes"][0]["question"]
    assert comparison["sides"][1]["cost"]["tokens_trained"] > 0
    assert not any("not tested" in note for note in comparison["notes"])
