"""Model pages get what the Hub's own classes read: registered benchmarks only, and cards that keep their text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from harness.cli import main
from harness.errors import HarnessError
from harness.publishing.cards import BENCHMARKS, export
from harness.publishing.files import PlannedFile, write_all
from harness.publishing.selection import Item, select
from harness.records.record import Record

URL = "https://example.org/records"


@pytest.fixture
def items(made_results: Path) -> list[Item]:
    return select(made_results, allow_partial=False, skip_refused=False, note=lambda _: None).items


def _asked(item: Item, task: str, metric: str, filter_name: str, value: float = 0.412) -> Item:
    content = item.record.content()
    content["task"]["name"] = task
    content["metric"] |= {"name": metric, "filter": filter_name}
    content |= {"value": value, "stderr": 0.0123}
    content["model"]["name"] = "ada/tiny"
    return replace(item, record=Record.model_validate(content))


def _read(file: PlannedFile) -> Any:
    return yaml.safe_load(b"".join(file.blocks()))


def test_a_registered_benchmark_becomes_one_entry_in_percent(items: list[Item], tmp_path: Path) -> None:
    baseline = next(item for item in items if item.record.is_baseline)
    asked = [
        _asked(baseline, "gsm8k", "exact_match", "flexible-extract", 0.5),
        _asked(baseline, "gsm8k", "exact_match", "strict-match"),
    ]
    [file] = export(asked, tmp_path, source_url=URL)
    assert str(file.path) == "ada__tiny/.eval_results/gsm8k.yaml"
    [entry] = _read(file)
    assert entry["dataset"] == {"id": "openai/gsm8k", "task_id": "gsm8k"}
    assert entry["value"] == 41.2
    assert entry["source"] == {"url": URL, "name": "token-harness record"}
    assert entry["date"] == baseline.record.created
    assert isinstance(yaml.safe_load(yaml.safe_dump(entry["date"])), str), "the format wants a text, not a time"
    assert "method=baseline" in entry["notes"] and "exact_match,strict-match" in entry["notes"]


def test_without_an_address_there_is_no_source(items: list[Item], tmp_path: Path) -> None:
    baseline = next(item for item in items if item.record.is_baseline)
    [file] = export([_asked(baseline, "gsm8k", "exact_match", "strict-match")], tmp_path, source_url=None)
    assert "source" not in _read(file)[0]


@pytest.mark.parametrize("task", sorted(BENCHMARKS))
def test_every_known_benchmark_has_a_number(task: str, items: list[Item], tmp_path: Path) -> None:
    baseline = next(item for item in items if item.record.is_baseline)
    metric, filter_name = BENCHMARKS[task].metrics[0]
    [file] = export([_asked(baseline, task, metric, filter_name)], tmp_path, source_url=None)
    assert _read(file)[0]["dataset"]["id"] == BENCHMARKS[task].dataset


def test_our_own_tasks_are_no_benchmark_of_the_hub(items: list[Item], tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="registered benchmarks"):
        export([item for item in items if item.record.is_baseline], tmp_path, source_url=None)


def test_what_a_method_made_gets_a_card_that_the_hub_s_class_reads(items: list[Item], tmp_path: Path) -> None:
    write_all(export(items, tmp_path, source_url=URL), tmp_path, dry_run=False)
    [path] = tmp_path.rglob("README.md")
    card = ModelCard.load(path)
    found = {(r.task_name, r.metric_type, r.metric_value) for r in card.data.eval_results}
    made = [item.record for item in items if not item.record.is_baseline]
    assert found == {(r.task.name, r.metric.name, r.value) for r in made}
    assert card.data.base_model == "tiny"
    assert "| steps | 1 |" in card.text


def test_a_card_that_is_there_keeps_its_text_and_its_other_fields(items: list[Item], tmp_path: Path) -> None:
    [file] = [file for file in export(items, tmp_path, source_url=None) if file.path.name == "README.md"]
    target = tmp_path / file.path
    target.parent.mkdir(parents=True)
    target.write_text("---\nlicense: mit\n---\n# Mine\n\nWords of my own.\n", encoding="utf-8")
    first = write_all(export(items, tmp_path, source_url=None), tmp_path, dry_run=False)
    again = write_all(export(items, tmp_path, source_url=None), tmp_path, dry_run=False)
    text = target.read_text(encoding="utf-8")
    assert "license: mit" in text and "Words of my own." in text and "model-index:" in text
    assert [outcome.state for outcome in first] == ["changed"] and [outcome.state for outcome in again] == ["same"]


@pytest.mark.parametrize("option", ["<script>alert(1)</script>", "a | b", "x\n# y", "`code`"])
def test_options_cannot_become_markup(option: str, items: list[Item], tmp_path: Path) -> None:
    made = next(item for item in items if not item.record.is_baseline)
    content = made.record.content()
    content["method"]["options"]["train_file"] = option
    item = replace(made, record=Record.model_validate(content))
    [file] = export([item], tmp_path, source_url=None)
    body = b"".join(file.blocks()).decode("utf-8").split("\n---\n", 1)[1]
    [row] = [line for line in body.splitlines() if line.startswith("| train_file |")]
    assert "<script" not in row and "`" not in row and row.replace("\\|", "").count("|") == 3


def test_the_command_writes_the_cards(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(results), "--to", "card", str(tmp_path / "card"), "--dry-run"]) == 0
    assert "would write" in capsys.readouterr().out and not (tmp_path / "card").exists()
    assert main(["publish", str(results), "--to", "card", str(tmp_path / "card")]) == 0
    assert list((tmp_path / "card").glob("*/README.md"))
