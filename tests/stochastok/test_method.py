"""StochasTok from options to an LM, on tiny models in full and reduced precision."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import HarnessError
from harness.methods.options import build
from harness.models.finding import resolve
from harness.models.loading import load_lm
from harness.run.evaluating import evaluate
from harness.run.run import Run
from harness_stochastok.method import PROBE_TEXT, StochasTok

SMALL: dict[str, Any] = {"steps": 8, "batch_size": 4, "context_length": 32, "learning_rate": 0.02}


def load(tiny_model: Path, quantization: str = "none") -> Any:
    return load_lm(resolve({"pretrained": str(tiny_model)}, quantization=quantization), device="cpu", batch_size=8)


def logits(lm: Any) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(torch.tensor([lm.tokenizer.encode(PROBE_TEXT)])).logits


def run(tiny_model: Path, folder: Path, **settings: Any) -> Run:
    defaults: dict[str, Any] = {
        "tasks": ("tokenization_robustness", "langgame_contains"),
        "plugin": "stochastok",
        "model_args": {"pretrained": str(tiny_model)},
        "limit": 4,
        "output_path": folder,
    }
    return Run(**(defaults | settings))


@pytest.mark.parametrize("scheme", ["stochastok", "bpe_dropout", "none"])
def test_training_lowers_the_loss_and_reports_what_it_did(tiny_model: Path, tmp_path: Path, scheme: str) -> None:
    lm = load(tiny_model)
    after = StochasTok(scheme=scheme, **SMALL).apply(lm, seed=0, workdir=tmp_path)  # type: ignore[arg-type]
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["training"]["loss_last"] < report["training"]["loss_first"]
    assert report["probe"]["after"] < report["probe"]["before"]
    assert report["tokens_trained"] == 8 * 4 * 32
    assert (
        report["expansion"]["successes"] == report["expansion"]["tokens_after"] - report["expansion"]["tokens_before"]
    )
    assert (report["expansion"]["successes"] > 0) == (scheme != "none")
    assert (report["split_table"]["sha256"] is not None) == (scheme == "stochastok")
    assert report["text"]["name"] == "pydoc_data.topics"
    assert type(after.model).__name__ == "LlamaForCausalLM"  # merged: nothing of PEFT is left


def test_merged_weights_score_as_the_adapter_did(tiny_model: Path, tmp_path: Path) -> None:
    StochasTok(**SMALL).apply(load(tiny_model), seed=0, workdir=tmp_path)
    probe = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["probe"]
    assert probe["is_merged"] and probe["after"] == pytest.approx(probe["adapted"], abs=1e-5)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_on_quantised_weights_the_adapter_stays_active(tiny_model: Path, tmp_path: Path, quantization: str) -> None:
    from peft import PeftModel

    lm = load(tiny_model, quantization)
    before = logits(lm).clone()
    after = StochasTok(**SMALL).apply(lm, seed=0, workdir=tmp_path)
    probe = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["probe"]
    assert isinstance(after.model, PeftModel) and not probe["is_merged"]
    assert probe["after"] < probe["before"] and not torch.equal(logits(after), before)


def test_a_finished_adapter_gives_the_same_model_again(tiny_model: Path, tmp_path: Path) -> None:
    first = StochasTok(**SMALL).apply(load(tiny_model), seed=0, workdir=tmp_path)
    report = (tmp_path / "report.json").read_bytes()
    second = StochasTok(**SMALL).apply(load(tiny_model), seed=0, workdir=tmp_path)
    assert torch.equal(logits(first), logits(second))
    assert (tmp_path / "report.json").read_bytes() == report


def test_two_trainings_with_one_seed_are_equal_and_another_seed_is_not(tiny_model: Path, tmp_path: Path) -> None:
    outcomes = [
        logits(StochasTok(**SMALL).apply(load(tiny_model), seed=seed, workdir=tmp_path / str(number)))
        for number, seed in enumerate((0, 0, 1))
    ]
    assert torch.equal(outcomes[0], outcomes[1]) and not torch.equal(outcomes[0], outcomes[2])


def test_evaluation_is_deterministic_and_the_tokenizer_encodes_as_before(tiny_model: Path, tmp_path: Path) -> None:
    """Property 17: two runs of one task, same scores; the tokenizer after ``apply`` encodes as before."""
    lm = load(tiny_model)
    texts = [PROBE_TEXT, "ünïcödé 🎂 <|end|> 12345", ""]
    encoded = [lm.tokenizer.encode(text) for text in texts]
    after = StochasTok(**SMALL).apply(lm, seed=0, workdir=tmp_path / "work")
    assert [after.tokenizer.encode(text) for text in texts] == encoded

    first, second = (evaluate(run(tiny_model, tmp_path / name, method_args=SMALL)) for name in ("a", "b"))
    assert [(r.key(), r.value, r.stderr) for r in first] == [(r.key(), r.value, r.stderr) for r in second]


def test_proportion_zero_is_scheme_none(tiny_model: Path, tmp_path: Path) -> None:
    """Property 18: ``proportion=0`` and ``scheme=none`` give the same record but for the option itself."""
    records = [
        evaluate(run(tiny_model, tmp_path / name, method_args=SMALL | options))
        for name, options in (("zero", {"proportion": 0.0}), ("none", {"scheme": "none"}))
    ]
    for zero, none in zip(*records, strict=True):
        assert (zero.value, zero.stderr, zero.counts) == (none.value, none.stderr, none.counts)
        reports = [record.model_dump()["report"] for record in (zero, none)]
        for report in reports:
            del report["training"]["seconds"]
        assert reports[0] == reports[1]


def test_steps_zero_reports_and_leaves_the_model_alone(tiny_model: Path, tmp_path: Path) -> None:
    [*records] = evaluate(run(tiny_model, tmp_path, method_args={"steps": 0, "proportion": 0.5}, with_baseline=True))
    by_method: dict[str, list[float]] = {}
    for record in records:
        by_method.setdefault(record.method.name, []).append(record.value)
    assert by_method["baseline"] == by_method["stochastok"]
    trained = records[-1]
    assert trained.model.weights_changed == 0 and trained.report["expansion"]["attempts"] > 0
    assert trained.report["split_table"]["pairs"] > 0 and "training" not in trained.report


def test_steps_zero_needs_no_weights(tiny_model: Path, tmp_path: Path) -> None:
    records = evaluate(run(tiny_model, tmp_path, model="tokenizer", tasks=("fertility",), method_args={"steps": 0}))
    assert records[0].report["expansion"]["growth"] > 0
    with pytest.raises(HarnessError, match="trains a model, which TokenizerOnly has not"):
        evaluate(run(tiny_model, tmp_path, model="tokenizer", tasks=("fertility",), method_args={"steps": 1}))


def test_the_second_stage_trains_on_answers_alone(tiny_model: Path, tmp_path: Path) -> None:
    examples = tmp_path / "train.jsonl"
    rows = [{"prompt": f"Which is word {n}? Answer:", "answer": " clock"} for n in range(12)]
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    method = StochasTok(**(SMALL | {"examples_file": examples, "examples_learning_rate": 0.02}))
    StochasTok.apply(method, load(tiny_model), seed=0, workdir=tmp_path / "work")
    report = json.loads((tmp_path / "work" / "report.json").read_text(encoding="utf-8"))
    answer_tokens = len(load(tiny_model).tokenizer.encode(" clock"))
    assert report["examples"]["steps"] == 3  # one pass of 12 in batches of 4
    assert report["examples"]["labels_trained"] == 12 * answer_tokens
    only = dataclasses.replace(method, steps=0)
    assert not only.leaves_model_unchanged and dataclasses.replace(only, examples_steps=0).leaves_model_unchanged


@pytest.mark.parametrize("kind", ["lines", "jsonl", "folder", "dataset"])
def test_training_text_comes_from_files_folders_and_datasets(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    lines = [f"{PROBE_TEXT} {number}" for number in range(30)]
    options: dict[str, Any] = {}
    if kind == "lines":
        options["train_file"] = tmp_path / "text ü.txt"
        options["train_file"].write_text("\n".join(lines), encoding="utf-8")
    elif kind == "jsonl":
        options = {"train_file": tmp_path / "text.jsonl", "text_column": "body"}
        options["train_file"].write_text("".join(json.dumps({"body": line}) + "\n" for line in lines), encoding="utf-8")
    elif kind == "folder":
        options["train_file"] = tmp_path / "folder"
        options["train_file"].mkdir()
        for number, line in enumerate(lines):
            (options["train_file"] / f"{number:02}.txt").write_text(line, encoding="utf-8")
    else:
        from datasets import Dataset

        Dataset.from_dict({"text": lines}).save_to_disk(tmp_path / "saved")
        options["train_dataset"] = str(tmp_path / "saved")
    method = StochasTok(**(SMALL | options))
    method.apply(load(tiny_model), seed=0, workdir=tmp_path / "work")
    assert json.loads((tmp_path / "work" / "report.json").read_text())["text"]["documents"] == 30
    assert method.fingerprint() == StochasTok(**(SMALL | options)).fingerprint() != StochasTok(**SMALL).fingerprint()


def test_unusable_training_text_is_refused_before_any_weights(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    (tmp_path / "binary.bin").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (tmp_path / "nul.txt").write_bytes(b"a\x00b")
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"txt": 1}\n', encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for name, sentence in (
        ("empty.txt", "is empty"),
        ("binary.bin", "is no UTF-8 text: byte 0 cannot be read"),
        ("nul.txt", "it holds NUL bytes"),
        ("bad.jsonl", "line 2, has no text under 'text'"),
        ("folder", "has no .txt, .md or .jsonl file"),
        ("missing.txt", "cannot read .*No such file"),
    ):
        with pytest.raises(HarnessError, match=sentence):
            evaluate(run(tiny_model, tmp_path, method_args={"train_file": str(tmp_path / name)}))
    with pytest.raises(HarnessError, match="cannot be loaded"):
        evaluate(run(tiny_model, tmp_path, method_args={"train_dataset": "no/such-dataset"}))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"proportion": "-0.1"}, "proportion is -0.1; it has to be 0 or more"),
        ({"proportion": "nan"}, "option 'proportion' of method 'stochastok' is 'nan', where a finite number is due"),
        ({"proportion": "inf"}, "where a finite number is due"),
        ({"steps": "many"}, "option 'steps' of method 'stochastok' is 'many', where a whole number is due"),
        ({"dropout": "1.5"}, "it is a probability"),
        ({"learning_rate": "0"}, "it has to be more than 0"),
        ({"scheme": "stochastik"}, "where one of stochastok, bpe_dropout, none is due"),
        ({"split_prob": "0.1"}, "has no option 'split_prob'; it has train_file"),
        ({"context_length": "1"}, "at least 2 tokens"),
    ],
)
def test_impossible_options_are_refused_in_one_sentence(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(HarnessError, match=sentence):
        build(StochasTok, options)


@pytest.mark.xdist_group("runs")
def test_what_apply_writes_loads_elsewhere_with_the_same_scores(
    tiny_model: Path, tmp_path: Path, forked: Callable[..., Any]
) -> None:
    from lm_eval.models.huggingface import HFLM

    words = ["--model_args", f"pretrained={tiny_model}", "--plugin", "stochastok", "--method_args"]
    words += [",".join(f"{name}={value}" for name, value in SMALL.items())]
    done = forked("apply", *words, "--output", tmp_path / "made").wait()
    assert done.code == 0, done.err
    ours = StochasTok(**SMALL).apply(load(tiny_model), seed=0, workdir=tmp_path / "work")
    theirs = HFLM(pretrained=str(tmp_path / "made"), device="cpu")
    pairs = [(("The clock", " is right"), theirs.tok_encode("The clock"), theirs.tok_encode(" is right"))]
    assert theirs._loglikelihood_tokens(pairs)[0][0] == pytest.approx(ours._loglikelihood_tokens(pairs)[0][0], abs=1e-4)
    again = forked("apply", *words, "--output", tmp_path / "made").wait()
    assert again.code == 2 and "exists already" in again.err
