"""The embedded default model, for real: minutes, not seconds (`make test-slow`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonlines
import pytest

pytestmark = pytest.mark.slow

TRAINING = "steps=6,batch_size=2,context_length=64,learning_rate=5e-4"


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [record for file in sorted(folder.rglob("records_*.jsonl")) for record in jsonlines.open(file)]


def test_the_default_model_is_at_chance_on_langgame(tmp_path: Path, harness: Callable[..., Any]) -> None:
    done = harness("eval", "--tasks", "langgame", "--limit", 20, "--output_path", "out", timeout=1200)
    assert done.returncode == 0, done.stderr
    [acc] = [
        r for r in records_of(tmp_path / "out") if r["task"]["name"] == "langgame" and r["metric"]["name"] == "acc"
    ]
    assert abs(acc["value"] - 0.25) <= 4 * acc["stderr"]
    assert acc["model"]["parameters"] == 134_515_008 and acc["model"]["bits_per_weight"] == 32


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_stochastok_trains_the_default_model(tmp_path: Path, harness: Callable[..., Any], quantization: str) -> None:
    words = ["--plugin", "stochastok", "--method_args", TRAINING, "--quantization", quantization, "--with_baseline"]
    words += ["--tasks", "tokenization_robustness", "--limit", 3, "--output_path", "out"]
    done = harness("eval", *words, timeout=2400)
    assert done.returncode == 0, done.stderr
    values = {(r["method"]["name"], r["metric"]["name"]): r for r in records_of(tmp_path / "out")}
    trained, untouched = (values[method, "bits_per_byte_p0.5"] for method in ("stochastok", "baseline"))
    assert trained["value"] < untouched["value"]
    probe = trained["report"]["probe"]
    assert probe["after"] < probe["before"] + 0.05
    assert probe["is_merged"] == (quantization == "none")
    assert {"none": 32, "nf4": 12, "int8": 16}[quantization] >= trained["model"]["bits_per_weight"]


def test_the_written_model_scores_the_same_in_lm_eval(tmp_path: Path, harness: Callable[..., Any]) -> None:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    from harness.models.finding import resolve
    from harness.models.loading import load_lm
    from harness_stochastok.method import StochasTok

    done = harness("apply", "--plugin", "stochastok", "--method_args", TRAINING, "--output", "made", timeout=1200)
    assert done.returncode == 0, done.stderr
    options: dict[str, Any] = {"steps": 6, "batch_size": 2, "context_length": 64, "learning_rate": 5e-4}
    ours: Any = StochasTok(**options).apply(
        load_lm(resolve({}), device="cpu", batch_size=4), seed=0, workdir=tmp_path / "w"
    )
    theirs = HFLM(pretrained=str(tmp_path / "made"), device="cpu", dtype="float32")
    texts = ["The quick brown fox", "Which word contains 'oe'? The options: [ wood, shoe]. Answer:"]
    pairs = [((text, " shoe"), theirs.tok_encode(text), theirs.tok_encode(" shoe")) for text in texts]
    for (score, greedy), (expected, expected_greedy) in zip(
        ours._loglikelihood_tokens(pairs), theirs._loglikelihood_tokens(pairs), strict=True
    ):
        assert score == pytest.approx(expected, abs=1e-4) and greedy == expected_greedy
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    assert tokenizer.encode(texts[0]) == ours.tokenizer.encode(texts[0])
    assert json.loads((tmp_path / "w" / "report.json").read_text())["probe"]["is_merged"]
