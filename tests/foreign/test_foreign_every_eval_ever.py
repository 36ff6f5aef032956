"""Files of Every Eval Ever: what we export comes back, and others' files give what the form documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import Command

from harness.records import ledger, samples

Evaluate = Command


@pytest.fixture
def exported(fresh: None, evaluate: Evaluate, cli: Command) -> Path:
    """A folder with a run in ``out`` and its export in ``eee``, both in the working folder."""
    done = evaluate()
    assert done.code == 0, done.err
    done = cli("publish", "out", "--to", "eee", "eee", "--developer", "ada")
    assert done.code == 0, done.err
    return Path("eee")


def test_what_was_exported_comes_back(exported: Path, cli: Command) -> None:
    [ours], [back] = ledger.read(Path("out")).records, ledger.read(exported).records
    assert (back.value, back.stderr, back.counts.docs) == (ours.value, ours.stderr, ours.counts.docs)
    for name in ("digest", "dtype", "quantization", "parameters"):
        assert getattr(back.model, name) == getattr(ours.model, name)
    assert back.seeds == ours.seeds and back.metric == ours.metric and back.method.name == ours.method.name
    assert back.task.docs_digest == ours.task.docs_digest and not back.states("task.prompts_digest")
    assert back.foreign is not None and back.foreign.tool == "lm_eval"
    done = cli("compare", "out", exported, "--format", "json")
    [row] = json.loads(done.out)["comparisons"]
    assert (row["difference"], row["is_paired"], row["documents"]) == (0, True, 4)


def test_records_and_their_export_in_one_folder_count_once(exported: Path) -> None:
    exported.rename("out/eee")
    reading = ledger.read(Path("out"))
    assert len(reading.records) == 1 and not reading.problems and reading.records[0].foreign is None


def test_an_export_is_not_published_again(exported: Path, cli: Command) -> None:
    done = cli("publish", exported, "--to", "board")
    assert done.code == 2 and "not by this harness" in done.sentence


def _write(folder: Path, model: str, scores: list[float], **changes: Any) -> Path:
    """Write a file with what the form asks for and nothing else, and its instances."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "schema_version": "0.3.0",
        "evaluation_id": f"quiz/{model}/1",
        "retrieved_timestamp": "1796094858",
        "source_metadata": {
            "source_type": "evaluation_run",
            "source_organization_name": "x",
            "evaluator_relationship": "other",
        },
        "eval_library": {"name": "helm", "version": "unknown"},
        "model_info": {"name": model, "id": f"org/{model}"},
        "evaluation_results": [
            {
                "evaluation_name": "quiz",
                "evaluation_result_id": "em",
                "source_data": {"dataset_name": "quiz", "source_type": "other"},
                "metric_config": {"metric_name": "em", "lower_is_better": False},
                "score_details": {"score": sum(scores) / len(scores)},
            }
        ],
    }
    (folder / "1.json").write_text(json.dumps(content | changes, indent=1), encoding="utf-8")
    lines = [
        {
            "schema_version": "0.3.0", "evaluation_id": content["evaluation_id"], "model_id": f"org/{model}",
            "evaluation_name": "quiz", "evaluation_result_id": "em", "sample_id": f"quiz_{number}",
            "interaction_type": "single_turn", "input": {"raw": f"Question {number}?", "reference": ["yes"]},
            "output": {"raw": ["yes" if score else "no"]}, "answer_attribution": [],
            "evaluation": {"score": score, "is_correct": bool(score)},
        }
        for number, score in enumerate(scores)
    ]  # fmt: skip
    (folder / "1_samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_a_file_of_somebody_else_gives_scores_and_documents(tmp_path: Path, cli: Command) -> None:
    first = _write(tmp_path / "a", "small", [1.0] * 10 + [0.0] * 10)
    second = _write(tmp_path / "b", "large", [1.0] * 18 + [0.0] * 2)
    record = ledger.read(first).records[0]
    assert (record.value, record.counts.docs, record.metric.aggregation) == (0.5, 20, "mean")
    assert record.foreign is not None and "Every Eval Ever" in str(record.foreign.version)
    assert samples.document_key(next(samples.rows(first / "1_samples.jsonl"))).startswith("quiz_0:")
    done = cli("compare", first, second, "--format", "json")
    [row] = json.loads(done.out)["comparisons"]
    assert (row["up"], row["down"]) == (8, 0) and row["p"] == pytest.approx(2 * 0.5**8 - 0.5**8)
    board = cli("leaderboard", tmp_path)
    assert board.code == 0 and "org/large" in board.out and "org/small" in board.out, board.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": "1.0.0"}, "is of version 1.0.0 of Every Eval Ever, where this harness reads 0.2 and 0.3"),
        ({"evaluation_results": []}, "has no result under 'evaluation_results'"),
        ({"evaluation_results": [{"evaluation_name": "quiz"}]}, "without a score"),
    ],
)
def test_a_file_that_is_no_result_says_why(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    reading = ledger.read(_write(tmp_path / "a", "small", [1.0, 0.0], **changes))
    assert not reading.records and words in reading.problems[0]


def test_doubled_or_cut_instances_are_left_out_and_told(tmp_path: Path) -> None:
    file = _write(tmp_path / "a", "small", [1.0, 0.0]) / "1_samples.jsonl"
    text = file.read_text(encoding="utf-8")
    for damaged, words in (
        (text * 2, "twice for em"),
        (text[:-40], "may be cut"),
        ("{}\n", "no instance with id and score"),
    ):
        file.write_text(damaged, encoding="utf-8")
        reading = ledger.read(tmp_path / "a")
        assert [record.samples for record in reading.records] == [None] and words in reading.problems[0]
