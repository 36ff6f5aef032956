"""cDPO as a method: weights and controls, the reference, what training touches, and the same again."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from critical_models import PAIRS, QUICK, load, report_of, write_rows

from harness import HarnessError
from harness.methods import adapters
from harness.models.identity import tensor_fingerprints
from harness_critical_tokens.cdpo_method import CDPO
from harness_critical_tokens.encoded_pairs import encode_pairs
from harness_critical_tokens.pairs_file import read_pairs
from harness_critical_tokens.scoring import TokenScores
from harness_critical_tokens.weighting import normalised_weights, rejected_weights, weight_figures

TRAIN: dict[str, Any] = {"steps": 4, "learning_rate": 0.01, "batch_size": 2, "rank": 4, "alpha": 8.0} | QUICK


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        row | {"weights": [[0, 8, 0.25], [row["first_wrong_char"], row["first_wrong_char"] + 1, 1]]} for row in PAIRS
    ]
    return write_rows(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def trained(tiny_model: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of the paper's own weights: its work folder and LM."""
    workdir = tmp_path_factory.mktemp("cdpo")
    return workdir, CDPO(pairs_file=pairs, **TRAIN).apply(load(tiny_model), seed=0, workdir=workdir)


def weights_of(score: Any, pairs: Path, tiny_model: Path, **options: Any) -> list[list[float]]:
    lm = load(tiny_model)
    encoded = encode_pairs(lm, read_pairs(pairs), max_length=None, is_chat=False)
    found = []
    for pair, (_, rejected) in zip(encoded.pairs, encoded.responses, strict=True):
        logs = [-0.1 * place for place in range(len(rejected.offsets))]
        scores = TokenScores(logs, [1 - 0.5 * place for place in range(len(logs))], logs, logs, logs)
        found.append(rejected_weights(score, scores, pair, rejected, **({"ratio_scale": 4.0, "seed": 0} | options)))
    return found


def test_weights_are_what_their_names_say(pairs: Path, tiny_model: Path) -> None:
    contrastive, ratio = (weights_of(score, pairs, tiny_model)[0] for score in ("contrastive", "log_ratio"))
    assert contrastive[:3] == pytest.approx([0.0, 1 - math.exp(-0.1), 1 - math.exp(-0.2)])
    assert ratio[:4] == pytest.approx([0.0, 0.0, 0.0, 0.125]) and max(ratio) == 1.0
    assert (
        weights_of("probability", pairs, tiny_model)[0] == weights_of("positive", pairs, tiny_model)[0] == contrastive
    )
    assert set(weights_of("none", pairs, tiny_model)[0]) == {1.0}


@pytest.mark.parametrize(("score", "of"), [("permuted", "contrastive"), ("permuted_log_ratio", "log_ratio")])
def test_permuted_weights_are_the_same_ones_elsewhere(score: Any, of: Any, pairs: Path, tiny_model: Path) -> None:
    """Property 29: the same multiset, in an order of the seed."""
    plain, permuted = (weights_of(name, pairs, tiny_model) for name in (of, score))
    assert [Counter(row) for row in plain] == [Counter(row) for row in permuted] and plain != permuted
    assert permuted == weights_of(score, pairs, tiny_model) != weights_of(score, pairs, tiny_model, seed=1)


def test_the_first_difference_is_the_token_where_texts_part(pairs: Path, tiny_model: Path) -> None:
    found = weights_of("first_difference", pairs, tiny_model)
    lm = load(tiny_model)
    encoded = encode_pairs(lm, read_pairs(pairs), max_length=None, is_chat=False)
    assert [sum(row) for row in found] == [1.0, 1.0, 1.0]
    place = found[1].index(1.0)  # "... has 8 + 2" against "... has 8 - 2"
    assert lm.tokenizer.decode([encoded.responses[1][1].response_ids[place]]).strip() == "+"


def test_given_weights_are_those_of_the_spans_a_token_touches(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    found = weights_of("given", pairs, tiny_model)[1]
    encoded = encode_pairs(load(tiny_model), read_pairs(pairs), max_length=None, is_chat=False)
    for weight, (start, end) in zip(found, encoded.responses[1][1].offsets, strict=True):
        assert weight == (1.0 if start <= 22 < end else 0.25 if start < 8 and end > start else 0.0)
    without = write_rows(tmp_path / "pairs.jsonl")
    with pytest.raises(HarnessError, match=r"score=given needs 'weights' in every pair, .* pair 0 has none such"):
        weights_of("given", without, tiny_model)


def test_mean_one_and_the_figures_of_weights() -> None:
    """Property 29: the average is 1 exactly, and nothing but zeros stays zeros."""
    found = normalised_weights([0.1, 0.2, 0.7, 0.3], "mean_one")
    assert math.fsum(found) == pytest.approx(4, abs=1e-12) and found[2] == pytest.approx(7 * found[0])
    assert normalised_weights([0.0, 0.0], "mean_one") == [0.0, 0.0] and normalised_weights([0.5], "none") == [0.5]
    assert weight_figures([[0.0] * 9, [1.0]]) == {"mean_weight": 0.1, "weight_in_top_tenth": 1.0}
    assert weight_figures([[0.0]])["weight_in_top_tenth"] is None


def test_a_run_leaves_adapters_scores_a_curve_and_a_report(trained: Any) -> None:
    """Property 32: the LM is in evaluation mode, its tokenizer encodes as before, and no adapter is left."""
    workdir, lm = trained
    assert {entry.name for entry in workdir.iterdir()} == {
        "positive", "negative", "policy", "base.json", "scores.jsonl", "training.json", "report.json",
        "responses.jsonl", "made_by.json", "report.html",
    }  # fmt: skip
    assert adapters.adapter_names(lm.model) == [] and not any(part.training for part in lm.model.modules())
    assert not any("lora" in name for name, _ in lm.model.named_modules())
    report = report_of(workdir)
    assert report["policy"]["steps"] == 4 and report["probe"]["is_merged"]
    assert report["policy"]["loss_first"] == pytest.approx(math.log(2), abs=1e-4)
    assert report["policy"]["margin_last"] > report["policy"]["margin_first"] == pytest.approx(0, abs=1e-4)
    assert 0 < report["training_weights"]["mean_weight"] <= 1 and report["peak_bytes"] > 1e6
    steps = json.loads((workdir / "training.json").read_text(encoding="utf-8"))
    assert len(steps["loss"]) == len(steps["margin"]) == len(steps["rejected_change"]) == 4


def test_a_finished_run_is_taken_up_and_another_seed_differs(
    trained: Any, tiny_model: Path, pairs: Path, tmp_path: Path
) -> None:
    """Property 31: the same seed, the same adapter bytes; another seed, other bytes."""
    workdir, lm = trained
    kept = (workdir / "policy" / "adapter_model.safetensors").read_bytes()
    again = CDPO(pairs_file=pairs, **TRAIN).apply(load(tiny_model), seed=0, workdir=workdir)
    assert tensor_fingerprints(again.model) == tensor_fingerprints(lm.model)
    for seed, is_same in ((0, True), (1, False)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        CDPO(pairs_file=pairs, **TRAIN).apply(load(tiny_model), seed=seed, workdir=folder)
        assert ((folder / "policy" / "adapter_model.safetensors").read_bytes() == kept) is is_same


@pytest.mark.parametrize(
    "options",
    [
        {"score": "log_ratio", "weight_normalisation": "mean_one", "aggregate": "positions"},
        {"score": "positive", "chosen_weights": "scores"},
        {"score": "permuted_log_ratio"},
        {"score": "probability", "scores_file": None},
    ],
    ids=str,
)
def test_every_kind_of_weight_trains(options: Any, trained: Any, tiny_model: Path, pairs: Path, tmp_path: Path) -> None:
    known = {"scores_file": trained[0] / "scores.jsonl"}
    method = CDPO(pairs_file=pairs, **(TRAIN | {"steps": 2} | known | options))
    method.apply(load(tiny_model), seed=0, workdir=tmp_path)
    report = report_of(tmp_path)
    assert math.isfinite(report["policy"]["loss_last"])
    if options.get("weight_normalisation") == "mean_one":
        assert report["training_weights"]["mean_weight"] <= 1 + 1e-6
