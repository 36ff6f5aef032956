"""Scores of tokens from two adapters on one base, the method ``score``, and how well weights find a planted error."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from critical_models import PAIRS, QUICK, load, report_of, write_rows

from harness import HarnessError
from harness.methods import adapters
from harness.methods.label_states import CPU_ROWS
from harness.models.identity import tensor_fingerprints
from harness_critical_tokens import scoring
from harness_critical_tokens.contrast import log_scores
from harness_critical_tokens.encoded_pairs import encode_pairs, labelled_rows
from harness_critical_tokens.identification import critical_place, identification, mean_rank
from harness_critical_tokens.pairs_file import Pair, read_pairs
from harness_critical_tokens.score_method import Score
from harness_critical_tokens.scoring import TokenScores, check_scores, read_scores, score_rows

LORA: dict[str, Any] = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "down_proj"]}


def two_adapters(folder: Path, *, is_trained: bool, **lora: Any) -> Any:
    """A model with adapters positive and negative, as they begin or with an effect."""
    model = load(folder).model
    for number, name in enumerate(("positive", "negative")):
        model = adapters.add_adapter(model, seed=number, name=name, **(LORA | lora))
        for parameter_name, parameter in model.named_parameters():
            if is_trained and f"lora_B.{name}" in parameter_name:
                torch.manual_seed(number)
                torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def rows(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = write_rows(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")
    return labelled_rows(encode_pairs(load(tiny_model), read_pairs(path), max_length=None, is_chat=False).responses)


def expected_scores(model: Any, ids: list[int], labels: list[int], contrast: float) -> list[list[float]]:
    """Log score, ratio and log-probabilities from the logits of whole rows."""
    logits = {}
    for name in ("positive", "negative", None):
        with adapters.using(model, name), torch.no_grad():
            logits[name] = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
    due = torch.tensor(labels[1:])
    places = due >= 0
    logs = {name: of.log_softmax(-1)[places].gather(-1, due[places][:, None])[:, 0] for name, of in logits.items()}
    score = log_scores(logits["positive"][places], logits["negative"][places], due[places], contrast=contrast)
    columns = [score, logs["positive"] - logs["negative"], logs["positive"], logs["negative"], logs[None]]
    return [column.tolist() for column in columns]


def columns(scores: TokenScores) -> list[list[float]]:
    return [scores.log_score, scores.log_ratio, scores.positive, scores.negative, scores.base]


@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], ["q_proj", "lm_head"]], ids=["layers", "the head, too"])
def test_scores_in_parts_are_those_of_whole_rows(
    tiny_model: Path, rows: Any, targets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Property 19: in batches, chunked over positions and with the prompt shared, as one by one and whole."""
    model = two_adapters(tiny_model, is_trained=True, target_modules=targets)
    monkeypatch.setattr("harness.methods.label_states.CPU_ROWS", 7)
    assert CPU_ROWS > 7
    found = score_rows(model, rows, contrast=1.0)
    for (ids, labels), scores in zip(rows, found, strict=True):
        for ours, theirs in zip(columns(scores), expected_scores(model, ids, labels, 1.0), strict=True):
            assert ours == pytest.approx(theirs, abs=2e-5)


def test_fresh_adapters_score_as_the_base_does_to_the_bit(tiny_model: Path, rows: Any) -> None:
    """Property 15: the score is the base's probability, and no ratio is other than 0."""
    for scores in score_rows(two_adapters(tiny_model, is_trained=False), rows, contrast=1.0):
        assert scores.positive == scores.negative == scores.base
        assert set(scores.log_ratio) == {0.0}
        assert scores.log_score == pytest.approx(scores.base, abs=2e-6)


def test_exchanged_adapters_turn_every_ratio_round(
    tiny_model: Path, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Property 16; and with contrast 0 the score is the positive model's probability."""
    model = two_adapters(tiny_model, is_trained=True)
    plain = score_rows(model, rows, contrast=0.0)
    monkeypatch.setattr(scoring, "POSITIVE", "negative")
    monkeypatch.setattr(scoring, "NEGATIVE", "positive")
    for ours, theirs in zip(plain, score_rows(model, rows, contrast=0.0), strict=True):
        assert ours.log_ratio == [-ratio for ratio in theirs.log_ratio]
        assert ours.log_score == pytest.approx(ours.positive, abs=2e-6)


@pytest.mark.parametrize("is_training", [True, False])
def test_scoring_leaves_adapter_and_mode_as_they_were(tiny_model: Path, rows: Any, is_training: bool) -> None:
    model = two_adapters(tiny_model, is_trained=True)
    adapters.switch_to(model, "positive", is_trained=True)
    model.train(is_training)
    score_rows(model, rows[:2], contrast=1.0)
    assert str(model.active_adapter) == "positive" and model.training == is_training
    assert {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad} == {"positive"}


@pytest.fixture(scope="module")
def scored(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A work folder of the method, its LM, and the fingerprints of the model from before."""
    workdir = tmp_path_factory.mktemp("scored")
    lm = load(tiny_model)
    before = tensor_fingerprints(lm.model)
    pairs = write_rows(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")
    after = Score(pairs_file=pairs, **QUICK).apply(lm, seed=0, workdir=workdir)
    return workdir, after, before, pairs


def test_the_method_leaves_the_model_as_it_was(scored: Any) -> None:
    """Properties 10 and 32: bytes of the base are unchanged, no adapter is left, and nothing is in training mode."""
    _, after, before, _ = scored
    assert tensor_fingerprints(after.model) == before
    assert adapters.adapter_names(after.model) == [] and not any(part.training for part in after.model.modules())


def test_the_method_writes_adapters_scores_and_what_they_find(scored: Any) -> None:
    workdir, after, _, _ = scored
    assert {entry.name for entry in workdir.iterdir()} == {
        "positive", "negative", "base.json", "scores.jsonl", "report.json", "responses.jsonl", "made_by.json", "report.html",
    }  # fmt: skip
    found = read_scores(workdir / "scores.jsonl")
    assert set(found) == {(pair, side) for pair in range(3) for side in ("chosen", "rejected")}
    one = found[0, "rejected"]
    assert after.tokenizer.decode(one.ids) == PAIRS[0]["rejected"] + "<|end|>"
    assert len(one.scores.log_score) == len(one.ids)
    report = report_of(workdir)
    assert report["identification"]["responses"] == 3
    assert set(report["identification"]["log_ratio"]["by_kind"]) == {"result", "operator"}
    assert report["training"]["negative"]["steps"] == 3 and report["tokens_trained"] > 0


def test_trained_adapters_score_as_lm_eval_scores_them(scored: Any, tiny_model: Path) -> None:
    """Property 17, for an adapter: HFLM's loglikelihood of the response is the sum of its tokens' log-probabilities."""
    from lm_eval.api.instance import Instance

    workdir, _, _, _ = scored
    lm = load(tiny_model)
    for name in ("positive", "negative"):
        adapted = adapters.load_adapter(load(tiny_model).model, workdir / name)
        asked = lm.replace(model=adapted)
        [(expected, _)] = asked.loglikelihood(
            [Instance("loglikelihood", {}, (PAIRS[1]["prompt"], PAIRS[1]["rejected"]), 0)]
        )
        found = getattr(read_scores(workdir / "scores.jsonl")[1, "rejected"].scores, name)
        assert sum(found[:-1]) == pytest.approx(expected, abs=1e-3)


def test_adapters_of_an_earlier_run_score_the_same(scored: Any, tiny_model: Path, tmp_path: Path) -> None:
    workdir, _, _, pairs = scored
    Score(pairs_file=pairs, adapters=workdir).apply(load(tiny_model), seed=5, workdir=tmp_path)
    assert not (tmp_path / "positive").exists()
    before, after = (read_scores(folder / "scores.jsonl") for folder in (workdir, tmp_path))
    for key, one in before.items():
        assert after[key].scores.log_score == pytest.approx(one.scores.log_score, abs=1e-5)


def test_adapters_with_layers_of_their_own_are_refused(scored: Any, tiny_model: Path, tmp_path: Path) -> None:
    """The base with such an adapter off is no reference that could be relied on."""
    workdir, pairs = scored[0], scored[3]
    for name in ("positive", "negative", "base.json"):
        (shutil.copytree if (workdir / name).is_dir() else shutil.copy)(workdir / name, tmp_path / name)
    config = tmp_path / "negative" / "adapter_config.json"
    changed = json.loads(config.read_text(encoding="utf-8")) | {"modules_to_save": ["lm_head"]}
    config.write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(HarnessError, match=r"the adapter 'negative' in .* has whole layers of its own"):
        Score(pairs_file=pairs, adapters=tmp_path).apply(load(tiny_model), seed=0, workdir=tmp_path / "work")


def test_adapters_of_another_base_are_refused(scored: Any, tiny_model: Path, tmp_path: Path) -> None:
    workdir, _, _, pairs = scored
    lm = load(tiny_model)
    with torch.no_grad():
        lm.model.get_input_embeddings().weight.mul_(30.0)
    with pytest.raises(HarnessError, match="were trained on another base; score with the model"):
        Score(pairs_file=pairs, adapters=workdir).apply(lm, seed=0, workdir=tmp_path)
    with pytest.raises(HarnessError, match=r"no base\.json, which says what its adapters were trained on"):
        Score(pairs_file=pairs, adapters=tmp_path).apply(load(tiny_model), seed=0, workdir=tmp_path / "w")


def test_scores_of_other_pairs_or_another_contrast_are_refused(scored: Any, tiny_model: Path, tmp_path: Path) -> None:
    workdir, _, _, pairs = scored
    known = read_scores(workdir / "scores.jsonl")
    encoded = encode_pairs(load(tiny_model), read_pairs(pairs), max_length=None, is_chat=False)
    assert len(check_scores(known, encoded.numbers, encoded.responses, contrast=1.0)) == 6
    with pytest.raises(HarnessError, match="made with contrast=1, and contrast is 2"):
        check_scores(known, encoded.numbers, encoded.responses, contrast=2.0)
    with pytest.raises(HarnessError, match="has no score of the chosen response of pair 7"):
        check_scores(known, [7], encoded.responses[:1], contrast=1.0)
    with pytest.raises(HarnessError, match="has other tokens for the chosen response of pair 0"):
        check_scores(known, [0], encoded.responses[1:2], contrast=1.0)
    row = json.loads((workdir / "scores.jsonl").read_text(encoding="utf-8").splitlines()[0])
    with pytest.raises(HarnessError, match=r"line 1 of .* has lists of different lengths"):
        read_scores(write_rows(tmp_path / "scores.jsonl", [row | {"base": []}]))
    for broken in (None, "-1", float("nan")):
        with pytest.raises(HarnessError, match=r"line 1 of .* has a score that is no finite number"):
            read_scores(write_rows(tmp_path / "scores.jsonl", [row | {"base": [broken, *row["base"][1:]]}]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"contrast": -1.0}, "contrast is -1.0; it has to be 0 or more"),
        ({"ratio_scale": 0.0}, "ratio_scale is 0.0; it has to be more than 0"),
        ({"contrast_modules": ()}, "contrast_modules is empty"),
        ({"max_length": 1}, "max_length is 1; it has to be 2 or more"),
        ({"adapters": Path("a"), "train_file": Path("b")}, "adapters and train_file are both given"),
    ],
)
def test_options_that_no_run_could_use_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Score(pairs_file=Path("pairs.jsonl"), **options)


def test_an_lm_without_weights_is_refused(scored: Any, tmp_path: Path) -> None:
    from harness.models.tokenizer_only import TokenizerOnly

    _, after, _, pairs = scored
    with pytest.raises(HarnessError, match="method 'score' needs a model with weights, which TokenizerOnly has not"):
        Score(pairs_file=pairs).apply(TokenizerOnly(after.tokenizer), seed=0, workdir=tmp_path)


def test_equal_values_share_their_mean_rank() -> None:
    assert [mean_rank([3.0, 1.0, 3.0, 0.0], place) for place in range(4)] == [1.5, 3.0, 1.5, 4.0]
    assert mean_rank([1.0] * 5, 2) == 3.0


def test_identification_is_what_it_is_by_hand(tiny_model: Path, tmp_path: Path) -> None:
    lm = load(tiny_model)
    encoded = encode_pairs(
        lm, read_pairs(write_rows(tmp_path / "pairs.jsonl", PAIRS[:1])), max_length=None, is_chat=False
    )
    rejected = encoded.responses[0][1]
    place, count = critical_place(encoded.pairs[0], rejected), len(rejected.offsets)
    assert lm.tokenizer.decode([rejected.response_ids[place]]).strip() == "9"
    ratio = [0.0] * count
    ratio[place], ratio[0] = -2.0, -3.0
    flat = [-1.0] * count
    scores = TokenScores(flat, ratio, flat, flat, flat)
    found = identification(encoded.pairs, [rejected], [scores], ratio_scale=4.0, seed=0)
    assert found is not None
    by_ratio = found["log_ratio"]
    assert (by_ratio["hit_at_1"], by_ratio["hit_at_3"], by_ratio["mean_reciprocal_rank"]) == (0.0, 1.0, 0.5)
    assert by_ratio["share"] == pytest.approx(0.5 / 1.25) and by_ratio["auc"] == round((count - 2) / (count - 1), 4)
    assert found["contrastive"]["auc"] == 0.5 and found["contrastive"]["share"] == pytest.approx(1 / count, abs=1e-4)
    without = Pair(0, "", "", "x", {"first_wrong_char": "2"})
    assert identification([without], [rejected], [scores], ratio_scale=4.0, seed=0) is None


def test_a_score_that_is_no_number_is_told_in_a_sentence(tiny_model: Path, rows: Any) -> None:
    model = two_adapters(tiny_model, is_trained=True)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B.positive" in name).fill_(math.nan)
    with pytest.raises(HarnessError, match="scores of tokens are not finite"):
        score_rows(model, rows[:2], contrast=1.0)
