"""Results folders of mteb 2.26: metrics by task, split and subset, and no documents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_runs import Command

from harness.records import ledger

pytest_plugins = ["small_runs"]
MADE = Path(__file__).parent / "made" / "mteb"
PLACE = Path("no_model_name__available", "no_revision_available", "LocalSTS.json")


def _content(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MADE / name / PLACE).read_text(encoding="utf-8"))
    return found


def test_a_folder_gives_every_metric_of_each_split_the_main_scores_first() -> None:
    reading = ledger.read(MADE / "half")
    assert not reading.problems
    told = _content("half")["scores"]
    found = {(record.metric.filter, record.metric.name): record.value for record in reading.records}
    scores = {(split, name): value for split in ("test", "dev") for name, value in told[split][0].items()}
    assert found == {key: value for key, value in scores.items() if isinstance(value, float)} and len(found) == 18
    assert [record.metric.name for record in reading.records[:3]] == ["main_score", "main_score", "pearson"]
    assert all(record.metric.higher_is_better for record in reading.records)
    record = reading.records[0]
    assert (record.task.version, record.stderr, record.samples) == ("abc123", None, None)
    assert not record.states("counts.docs") and not record.states("task.docs_digest")


def test_what_is_no_metric_is_left_out_and_no_direction_is_made_up(tmp_path: Path) -> None:
    """Retrieval has an area under a curve of abstention for each metric; errors are better where they are less."""
    shutil.copytree(MADE / "half", tmp_path / "more")
    content = _content("half")
    entry = content["scores"]["test"][0]
    entry |= {
        "ndcg_at_10": 0.5, "nauc_ndcg_at_10_max": 0.1, "cosine_accuracy_threshold": 0.7, "v_measure_std": 0.1, "mse": 2.0,
        "p-MRR": -3.0, "hit_rate_at_5": None, "scores_per_experiment": [{"accuracy": 1.0}], "num_samples": 9, "is_ok": True,
    }  # fmt: skip
    (tmp_path / "more" / PLACE).write_text(json.dumps(content), encoding="utf-8")
    found = {
        r.metric.name: r.metric.higher_is_better for r in ledger.read(tmp_path).records if r.metric.filter == "test"
    }
    known = {r.metric.name for r in ledger.read(MADE / "half").records}
    assert {name: way for name, way in found.items() if name not in known} == {
        "ndcg_at_10": True, "mse": False, "p-MRR": None,
    }  # fmt: skip


def test_two_folders_are_compared_by_value_alone(cli: Command) -> None:
    """By their main scores, and by others when they are asked for."""
    for flags, name in (([], "main_score"), (["--metrics", "manhattan_pearson"], "manhattan_pearson")):
        done = cli("compare", MADE / "half", MADE / "minilm", "--format", "json", *flags)
        assert done.code == 0, done.err
        rows = json.loads(done.out)["comparisons"]
        assert [(row["metric"], row["filter"]) for row in rows] == [(name, "test"), (name, "dev")]
        for row in rows:
            told = [_content(folder)["scores"][row["filter"]][0][name] for folder in ("half", "minilm")]
            assert row["difference"] == pytest.approx(told[1] - told[0])
            assert row["p"] is None and row["low"] is None and row["verdict"] == "not tested"
    assert "--metrics takes others" in cli("compare", MADE / "half", MADE / "minilm").out


def test_a_table_shows_main_scores_and_says_how_to_see_the_others(cli: Command) -> None:
    out = cli("leaderboard", MADE, "--task", "all").out
    assert "manhattan" not in out and "16 more metrics: on the page, or by `harness export --metric NAME`" in out
    done = cli("export", MADE, "--metric", "manhattan_pearson")
    assert done.code == 0 and "LocalSTS, manhattan_pearson (test) ↑" in done.out and "0.5937" in done.out


def test_models_without_a_name_are_told_apart_by_their_folder(cli: Command) -> None:
    done = cli("leaderboard", MADE)
    assert done.code == 0, done.err
    assert "half" in done.out and "minilm" in done.out and "### LocalSTS" in done.out
    assert cli("leaderboard", MADE, "--task", "all").out.count("| mteb | 1 |") == 2


def test_other_data_is_not_compared(cli: Command, tmp_path: Path) -> None:
    shutil.copytree(MADE / "half", tmp_path / "other")
    (tmp_path / "other" / PLACE).write_text(
        json.dumps(_content("half") | {"dataset_revision": "def456"}), encoding="utf-8"
    )
    done = cli("compare", MADE / "half", tmp_path / "other")
    assert done.code == 2 and "version is abc123" in done.sentence and "def456" in done.sentence


def test_subsets_commits_and_files_of_another_form(tmp_path: Path) -> None:
    folder = tmp_path / "owner__model" / ("a" * 40)
    folder.mkdir(parents=True)
    content = _content("half")
    content["scores"]["test"][0]["hf_subset"] = "de"
    (folder / "LocalSTS.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "Later.json").write_text(json.dumps(content | {"scores": [1, 2]}), encoding="utf-8")
    text = json.dumps(content)
    (folder / "Cut.json").write_text(text[: len(text) // 2], encoding="utf-8")
    reading = ledger.read(tmp_path)
    assert {(r.model.name, r.model.digest, r.metric.filter) for r in reading.records} == {
        ("owner/model", "a" * 40, "test/de"), ("owner/model", "a" * 40, "dev"),
    }  # fmt: skip
    assert len(reading.problems) == 2 and any("may be cut" in one for one in reading.problems)
    assert any("upgrade token-harness" in one for one in reading.problems)


def test_numbers_taken_away_leave_empty_what_is_not_stated(cli: Command) -> None:
    from harness.records.frames import rows

    [row, *_] = rows(ledger.read(MADE / "half").records)
    assert row["measured_by"] == "mteb 2.26.24" and row["evaluate_seconds"] > 0
    assert row["documents"] is None and row["shots"] is None and row["stderr"] is None
    done = cli("export", MADE)
    assert done.code == 0 and "Documents: LocalSTS unknown." in done.out and "Measured by mteb 2.26.24." in done.out
    assert "token-harness" not in done.out
