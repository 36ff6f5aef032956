"""The tasks on planted errors: what they ask, what they make of answers, and a run of each on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import harness_critical_tokens
from harness import HarnessError
from harness.run import Run, evaluate
from harness_critical_tokens.tasks.planted import PlantedPairs, PlantedRecovery, PlantedStep

FOLDER = Path(harness_critical_tokens.__file__).parent / "tasks"
METADATA = {"version": 1.0, "stories": 10, "seed": 0, "style": "plain"}


def made(task: type, **metadata: Any) -> Any:
    return task({"task": "planted", "metadata": {**METADATA, **metadata}})


def test_pairs_ask_for_both_solutions_and_count_tokens(tokenizer):
    task = made(PlantedPairs)
    task.use_tokenizer(tokenizer)
    doc = task.test_docs()[0]
    assert task.arguments(doc) == [(doc["prompt"], doc["chosen"]), (doc["prompt"], doc["rejected"])]
    tokens = [
        len(tokenizer.encode(doc["prompt"] + doc[side])) - len(tokenizer.encode(doc["prompt"]))
        for side in ("chosen", "rejected")
    ]
    assert tokens[0] != tokens[1]
    right, wrong = -1.0 * tokens[0], -1.1 * tokens[1]
    assert task.score(doc, [(right, False), (wrong, False)]) == {"acc": float(right > wrong), "acc_per_token": 1.0}
    assert task.score(doc, [(-5.0, False), (-5.0, True)])["acc"] == 0


def test_step_asks_at_the_place_and_leaves_the_blank_to_the_continuation():
    task = made(PlantedStep)
    for doc in task.test_docs():
        (context, right), (same, wrong) = task.arguments(doc)
        assert context == same == context.rstrip() and right[0] == wrong[0] == " "
        upto = len(doc["prompt"]) + doc["critical_span"][1]
        assert context + wrong == (doc["prompt"] + doc["rejected"])[:upto]
        assert (right.strip(), wrong.strip()) == (doc["right_text"], doc["wrong_text"])
    assert task.score(doc, [(-1.0, True), (-3.5, False)]) == {"acc": 1.0, "lead": 2.5}


def test_recovery_judges_the_whole_solution_that_was_begun():
    task = made(PlantedRecovery)
    for doc in task.test_docs():
        texts = [arguments[0] for arguments in task.arguments(doc)]
        assert texts[0] == texts[0].rstrip() and texts[0] == texts[1][: len(texts[0])]
        assert texts[1].endswith(" " + doc["wrong_text"]) and texts[2].endswith(" " + doc["right_text"])
        right = f". The answer is {doc['answer']}."
        all_right = {"before": 1.0, "with_wrong": 1.0, "with_right": 1.0}
        assert task.score(doc, [" " + doc["right_text"] + right, right, right]) == all_right
        if doc["kind"] == "final":  # the answer stands there already
            assert task.score(doc, ["", "", ""]) == {"before": 0.0, "with_wrong": 0.0, "with_right": 1.0}


def test_stories_come_from_the_tasks_metadata():
    docs = made(PlantedStep, style="mixed", stories=25).test_docs()
    assert len({doc["style"] for doc in docs}) == 5
    assert all(doc["id"].startswith("test-") and doc["text"] == doc["prompt"] for doc in docs)
    for wrong, words in (
        ({"stories": 0}, "stories in the task's metadata is 0"),
        ({"style": "fancy"}, "no style 'fancy'"),
    ):
        with pytest.raises(HarnessError, match=words):
            made(PlantedStep, **wrong)


@pytest.mark.parametrize("name", ["planted_pairs", "planted_step", "planted_recovery"])
def test_a_run_leaves_a_record_of_each_metric(name, tiny_model, tmp_path):
    run = Run(
        tasks=(str(FOLDER / f"{name}.yaml"),),
        model_args={"pretrained": str(tiny_model)},
        device="cpu",
        limit=2,
        output_path=tmp_path,
    )
    task = {"planted_pairs": PlantedPairs, "planted_step": PlantedStep, "planted_recovery": PlantedRecovery}[name]
    records = evaluate(run)
    assert {record.metric.name for record in records} == set(task.metrics)
