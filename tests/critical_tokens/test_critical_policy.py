"""The policy of cDPO: what training touches, DPO and RPO as special cases, controls without scores, and bad input."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from critical_models import PAIRS, QUICK, load, report_of, write_rows
from tokenizers import processors

from harness import HarnessError
from harness.methods import adapters
from harness.run import Run, evaluate
from harness_critical_tokens import curve, policy
from harness_critical_tokens.cdpo_method import CDPO
from harness_critical_tokens.encoded_pairs import encode_pairs, labelled_rows
from harness_critical_tokens.find import Find
from harness_critical_tokens.pairs_file import read_pairs
from harness_critical_tokens.scored_pairs import probe_ids

TRAIN: dict[str, Any] = {"steps": 4, "learning_rate": 0.01, "batch_size": 2, "rank": 4, "alpha": 8.0} | QUICK


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [row | {"weights": [[row["first_wrong_char"], row["first_wrong_char"] + 1, 1]]} for row in PAIRS]
    return write_rows(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows)


@pytest.mark.parametrize("score", ["first_difference", "given"])
def test_weights_without_scores_train_no_adapters(score: Any, tiny_model: Path, pairs: Path, tmp_path: Path) -> None:
    CDPO(pairs_file=pairs, score=score, **TRAIN).apply(load(tiny_model), seed=0, workdir=tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "policy", "training.json", "report.json", "responses.jsonl", "made_by.json", "report.html",
    }  # fmt: skip
    report = report_of(tmp_path)
    assert 0 < report["training_weights"]["mean_weight"] < 0.2 and math.isfinite(report["policy"]["loss_last"])


def test_scores_of_an_earlier_run_make_the_same_weights(tiny_model: Path, pairs: Path, tmp_path: Path) -> None:
    workdir, tmp_path = tmp_path / "first", tmp_path / "second"
    lm = CDPO(pairs_file=pairs, **TRAIN).apply(load(tiny_model), seed=0, workdir=workdir)
    method = CDPO(pairs_file=pairs, scores_file=workdir / "scores.jsonl", **TRAIN)
    found = method.apply(load(tiny_model), seed=0, workdir=tmp_path)
    assert not (tmp_path / "positive").exists()
    for ours, theirs in zip(found.model.parameters(), lm.model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    other = load(tiny_model)
    with torch.no_grad():
        other.model.get_input_embeddings().weight.mul_(30.0)
    with pytest.raises(
        HarnessError, match=r"scores of pair 0 were made on another model: .* score the pairs with this"
    ):
        method.apply(other, seed=0, workdir=tmp_path / "other")


def preference(model: Any, encoded: Any, beta: float, sft_alpha: float) -> list[torch.Tensor]:
    """The gradient of plain DPO (RPO) over all pairs, from whole rows and a reference of its own."""
    losses = []
    for pair in encoded.responses:
        sums = []
        for response in pair:
            ids, start = torch.tensor([response.token_ids]), response.response_start
            scores = model(input_ids=ids).logits[0, start - 1 : -1].log_softmax(-1)
            policy_logs = scores.gather(-1, ids[0, start:, None])[:, 0]
            with adapters.using(model, None), torch.no_grad():
                base = model(input_ids=ids).logits[0, start - 1 : -1].log_softmax(-1).gather(-1, ids[0, start:, None])
            sums.append((policy_logs.sum(), base.sum(), policy_logs.mean()))
        (chosen, chosen_base, mean), (rejected, rejected_base, _) = sums
        margin = beta * (chosen - chosen_base - rejected + rejected_base)
        losses.append(-torch.nn.functional.logsigmoid(margin) - sft_alpha * mean)
    return losses


@pytest.mark.parametrize("sft_alpha", [0.0, 1.0])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_score_none_is_dpo_and_with_a_cross_entropy_rpo(
    tiny_wide_model: Path, pairs: Path, tmp_path: Path, sft_alpha: float, quantization: str
) -> None:
    """Property 30: the first steps have the losses of plain DPO or RPO by whole rows, on full and on 4-bit weights."""
    options = TRAIN | {"batch_size": 3, "steps": 2, "sft_alpha": sft_alpha, "warmup_steps": 0}
    lm = load(tiny_wide_model, quantization=quantization)
    after = CDPO(pairs_file=pairs, score="none", **options).apply(lm, seed=0, workdir=tmp_path)
    losses = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))["loss"]
    plain = load(tiny_wide_model, quantization=quantization)
    encoded = encode_pairs(plain, read_pairs(pairs), max_length=None, is_chat=False)
    model = adapters.add_adapter(plain.model, rank=4, alpha=8.0, target_modules=["all-linear"], seed=0, name="policy")
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    for expected in losses:
        value = torch.stack(preference(model, encoded, 0.1, sft_alpha)).mean()
        assert float(value.detach()) == pytest.approx(expected, abs=1e-3)
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    is_active = bool(adapters.adapter_names(after.model))
    assert is_active == (quantization == "nf4") == (not report_of(tmp_path)["probe"]["is_merged"])


@pytest.fixture(scope="session")
def tiny_wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 wide: bitsandbytes packs blocks of 64 weights."""
    from tiny_models import build_model

    return build_model(tmp_path_factory.mktemp("models") / "wide", hidden_size=64, intermediate_size=128)


def test_training_moves_the_policy_alone(tiny_model: Path, pairs: Path) -> None:
    """Properties 10 and 18: base, embeddings and other adapters keep their bytes, and so does what the reference says."""
    lm = load(tiny_model)
    encoded = encode_pairs(lm, read_pairs(pairs), max_length=None, is_chat=False)
    lora: dict[str, Any] = {"rank": 4, "alpha": 8.0, "target_modules": ["all-linear"]}
    model = adapters.add_adapter(lm.model, seed=0, name="positive", **lora)
    model = adapters.add_adapter(model, seed=1, name="policy", **lora)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    references = policy.reference_loglikelihoods(model, encoded.responses)
    weights = [([1.0] * len(chosen.offsets), [0.5] * len(other.offsets)) for chosen, other in encoded.responses]
    settings = policy.PolicySettings(0.1, 0.0, "sequence", 3, 0.01, 0, 2)
    log, curve = policy.train_policy(
        model, policy.WeightedPairs(encoded.responses, weights, references), settings, seed=0
    )
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed and all(".policy." in name for name in changed)
    for ours, theirs in zip(policy.reference_loglikelihoods(model, encoded.responses), references, strict=True):
        assert ours[0] == pytest.approx(theirs[0], abs=1e-6) and ours[1] == pytest.approx(theirs[1], abs=1e-6)
    assert len(log.losses) == len(curve.steps) == 3 and curve.steps[0]["margin"] == pytest.approx(0, abs=1e-4)


def test_weights_of_nothing_are_said_and_train_the_chosen_side(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / "pairs.jsonl", [row | {"weights": []} for row in PAIRS])
    CDPO(pairs_file=file, score="given", **TRAIN).apply(load(tiny_model), seed=0, workdir=tmp_path / "w")
    assert "all weights are 0, so nothing pushes the rejected responses down" in capsys.readouterr().err
    assert report_of(tmp_path / "w")["policy"]["chosen_change_last"] > 0


def test_all_stages_read_the_same_ids(tiny_model: Path, pairs: Path) -> None:
    """Property 28: p, q, reference, policy and rollouts; with a beginning-of-text token, a blank behind the prompt included."""
    lm = load(tiny_model)
    lm.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", 0)]
    )
    encoded = encode_pairs(lm, read_pairs(pairs), max_length=None, is_chat=False)
    rows = labelled_rows(encoded.responses)
    nothing = [([0.0] * len(one.response_ids), [0.0] * len(other.response_ids)) for one, other in encoded.responses]
    batch = policy.WeightedPairs(encoded.responses, nothing, nothing).batch(range(len(nothing)))
    read = [ids[mask.bool()].tolist() for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    assert read == [list(ids) for ids, _ in rows] and {ids[0] for ids in read} == {0}
    solutions, _ = Find(pairs)._solutions(lm)
    walked = [list(one.trajectory.token_ids) for one in solutions]
    assert walked == read[1::2] and [one.trajectory.start for one in solutions] == [
        rejected.response_start for _, rejected in encoded.responses
    ]


def test_on_quantised_weights_the_adapter_stays_on_and_the_reference_is_them(
    tiny_model: Path, pairs: Path, tmp_path: Path
) -> None:
    """Nothing is merged into 4 bits; with the adapter off the weights are those that were loaded."""
    lm = load(tiny_model, quantization="nf4")
    before = adapters.probe_loss(lm.model, probe_ids(lm))
    after = CDPO(pairs_file=pairs, **(TRAIN | {"steps": 2, "score": "none"})).apply(lm, seed=0, workdir=tmp_path)
    report = report_of(tmp_path)
    assert not report["probe"]["is_merged"] and report["policy"]["loss_first"] == pytest.approx(math.log(2), abs=1e-3)
    assert adapters.probe_loss(after.model, probe_ids(lm)) != before
    with adapters.using(after.model, None):
        assert adapters.probe_loss(after.model, probe_ids(lm)) == before


def test_chosen_solutions_that_get_less_likely_are_told_of_and_may_end_training(
    tiny_model: Path,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The well-known fall of both sides: said with its size, and where the user asks for it the end of training."""
    monkeypatch.setattr(curve, "MOST_FALL", 0.05)  # a tiny model does not fall by more
    options: dict[str, Any] = {"score": "none", "beta": 0.1, "steps": 12, "batch_size": 1, "learning_rate": 0.05}
    method = CDPO(pairs_file=pairs, **options, rank=4)
    for folder, chosen in (("whole", method), ("ended", dataclasses.replace(method, most_fall=0.05))):
        (tmp_path / folder).mkdir()
        chosen.apply(load(tiny_model), seed=0, workdir=tmp_path / folder)
    whole, ended = (report_of(tmp_path / folder)["policy"] for folder in ("whole", "ended"))
    assert "the chosen solutions got less likely, too, by" in capsys.readouterr().err
    assert (whole["steps"], whole["ended_early"], ended["ended_early"]) == (12, False, True) and ended["steps"] < 12
    steps = json.loads((tmp_path / "ended" / "training.json").read_text(encoding="utf-8"))["chosen_change"]
    tokens = 25  # of a chosen solution, about
    assert steps[-1] / tokens < -0.04 < steps[0] / tokens
    with pytest.raises(ValueError, match="most_fall is 0"):
        dataclasses.replace(method, most_fall=0.0)


def test_no_steps_score_as_the_bare_model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Property 30: nothing is read, nothing changes, and every metric is the bare model's."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    common: dict[str, Any] = {
        "tasks": ("langgame_contains",), "model_args": {"pretrained": str(tiny_model)}, "device": "cpu", "limit": 3,
    }  # fmt: skip
    bare = evaluate(Run(output_path=tmp_path / "bare", **common))
    tuned = evaluate(
        Run(
            plugin="critical_tokens",
            method="cdpo",
            method_args={"steps": "0"},
            output_path=tmp_path / "tuned",
            **common,
        )
    )
    assert [(one.metric, one.value) for one in bare] == [(one.metric, one.value) for one in tuned]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "pairs_file is missing; it is needed to train, and steps=0 leaves the weights alone"),
        ({"beta": 0.0}, "beta is 0.0; it has to be more than 0"),
        ({"sft_alpha": -1.0}, "sft_alpha is -1.0; it has to be 0 or more"),
        ({"batch_size": 0}, "batch_size is 0; it has to be 1 or more"),
        ({"target_modules": ()}, "target_modules is empty"),
        ({"contrast": -0.5}, "contrast is -0.5"),
        (
            {"pairs_file": Path("p"), "scores_file": Path("a"), "adapters": Path("b")},
            "scores_file and adapters are both",
        ),
        (
            {"pairs_file": Path("p"), "score": "none", "adapters": Path("a")},
            "score=none uses no .*; leave adapters out",
        ),
    ],
)
def test_options_that_no_run_could_use_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CDPO(**options)


def test_a_model_that_breaks_down_leaves_no_policy(tiny_model: Path, pairs: Path, tmp_path: Path) -> None:
    lm = load(tiny_model)
    with torch.no_grad():
        lm.model.model.norm.weight.fill_(math.nan)
    with pytest.raises(HarnessError, match="loss on a probe text is nan; load it with dtype=float32"):
        CDPO(pairs_file=pairs, score="none", **TRAIN).apply(lm, seed=0, workdir=tmp_path)
    assert list(tmp_path.iterdir()) == []
