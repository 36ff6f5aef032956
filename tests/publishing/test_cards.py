"""Model pages get what the Hub's own classes read: registered benchmarks only, and cards that keep their text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml
from board_records import baseline, record
from huggingface_hub import ModelCard

from harness.cli import main
from harness.errors import HarnessError
from harness.publishing.cards import BENCHMARKS, eval_results, export
from harness.publishing.files import PlannedFile, write_all
from harness.publishing.selection import Item, select
from harness.records.ledger import Origin
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


# Ways of asking one task of one method in one state; each is a trial of its own.
WAYS: dict[str, dict[str, Any]] = {
    "5 shots": {"settings": {"num_fewshot": 5}},
    "limit": {"settings": {"limit": 10.0}, "counts": {"docs": 10}},
    "limit that cuts nothing": {"settings": {"limit": 0.99}},
    "picked documents": {"settings": {"samples_digest": "ab"}},
    "chat template": {"settings": {"apply_chat_template": True}},
    "named chat template": {"settings": {"apply_chat_template": "tool_use"}},
    "system instruction": {"settings": {"system_instruction": "Be brief.\n: - # \u2028 é"}},
    "gen_kwargs": {
        "settings": {"gen_kwargs": {"do_sample": True, "temperature": 0.5, "until": ["x", None], "top_k": None}}
    },
    "metadata": {"settings": {"metadata": {"length": 4096}}},
    "model_args": {"settings": {"model_args": {"max_length": 128}}},
    "task version": {"task": {"version": "2.0"}},
    "prompts": {"task": {"prompts_digest": "0123456789abcdef"}},
    "prefix": {"tokenizer": {"prefix_token_id": 3}},
    "filter": {"metric": {"filter": "strict-match"}},
}


def _made(**more: Any) -> Item:
    options = {"steps": 8, "train_file": None, "nested": {"a": [1, None, "x"]}}
    return Item(
        record(**{"options": options, "stderr": 0.125, "settings": {"num_fewshot": 0}} | more),
        Origin(Path("x"), 1),
        None,
    )


def _cards(items: list[Item], folder: Path) -> list[ModelCard]:
    """Write the cards and return them as the hub's class reads them, and as it reads what it saved itself."""
    write_all(export(items, folder, source_url=URL), folder, dry_run=False)
    cards = []
    for path in sorted(folder.rglob("README.md")):
        cards.append(ModelCard.load(path))
        cards[-1].save(path.with_name("saved.md"))
        again = ModelCard.load(path.with_name("saved.md"))
        assert again.data.eval_results == cards[-1].data.eval_results
    return cards


def test_every_way_of_asking_keeps_its_own_settings_in_a_card(tmp_path: Path) -> None:
    """0-shot and 5-shot results of one data set are merged by the hub's library and get the settings of the first."""
    items = [_made(value=0.25)] + [_made(value=0.01 * n, **way) for n, way in enumerate(WAYS.values(), start=30)]
    [card] = _cards(items, tmp_path)
    expected = eval_results([item.record for item in items], URL)
    assert card.data.eval_results == expected and len(expected) == len(items)
    read = {result.metric_args["record"]: result for result in card.data.eval_results}
    for item in items:
        one, result = item.record, read[item.record.key()]
        assert (result.metric_value, result.metric_args["stderr"]) == (one.value, one.stderr)
        assert result.dataset_args["num_few_shot"] == (one.settings.num_fewshot or 0)
        assert (
            result.dataset_args["documents"] == one.counts.docs
            and result.dataset_args["task_version"] == one.task.version
        )
        assert result.dataset_args.get("limit") == one.settings.limit
        assert result.dataset_args.get("system_instruction") == one.settings.system_instruction
        assert result.dataset_args["method_options"] == {"steps": 8, "nested": {"a": [1, "x"]}}
    sampling = next(item.record.key() for item in items if item.record.settings.gen_kwargs)
    assert read[sampling].dataset_args["gen_kwargs"] == {"do_sample": True, "temperature": 0.5, "until": ["x"]}


@pytest.mark.parametrize(
    "other",
    [
        {"model": {"quantization": "nf4"}},
        {"model": {"revision": "v2"}},
        {"model": {"dtype": "bfloat16"}},
        {"options": {"steps": 9}},
        {"seed": 1},
        {"plugin": {"code_digest": "edited"}},
    ],
)
def test_another_state_of_the_model_has_a_card_of_its_own(other: dict[str, Any], tmp_path: Path) -> None:
    cards = _cards([_made(value=0.25), _made(value=0.5, **other)], tmp_path)
    assert sorted(result.metric_value for card in cards for result in card.data.eval_results) == [0.25, 0.5]
    assert [len(card.data.eval_results) for card in cards] == [1, 1]


def test_numbers_of_numpy_become_numbers_that_a_card_can_hold(tmp_path: Path) -> None:
    [card] = _cards([_made(value=numpy.float64(0.25), stderr=numpy.float64(0.5))], tmp_path)
    [result] = card.data.eval_results
    assert [type(number) for number in (result.metric_value, result.metric_args["stderr"])] == [float, float]
    assert (result.metric_value, result.metric_args["stderr"]) == (0.25, 0.5)


def test_the_results_of_others_in_a_card_stay_as_they_are(tmp_path: Path) -> None:
    [file] = export([_made(value=0.25)], tmp_path, source_url=None)
    target = tmp_path / file.path
    target.parent.mkdir(parents=True)
    theirs = [
        {
            "task": {"type": "x"},
            "dataset": {"type": "d", "name": "D", "args": {"n": n}},
            "metrics": [{"type": "acc", "value": n}],
        }
        for n in (0, 5)
    ]
    head = yaml.safe_dump({"model-index": [{"name": "theirs", "results": theirs}]})
    target.write_text(f"---\n{head}---\nMine.\n", encoding="utf-8")
    for value in (0.25, 0.5):
        write_all(export([_made(value=value)], tmp_path, source_url=None), tmp_path, dry_run=False)
        [part] = yaml.safe_load(target.read_text(encoding="utf-8").split("---")[1])["model-index"]
        assert part["results"][:2] == theirs
        assert [metric["value"] for one in part["results"][2:] for metric in one["metrics"]] == [value]
    target.write_text("---\nmodel-index: 3\n---\n", encoding="utf-8")
    with pytest.raises(HarnessError, match="model-index is no list of models"):
        export([_made(value=0.25)], tmp_path, source_url=None)


def test_the_untouched_model_asked_in_several_ways_has_a_file_for_each(tmp_path: Path) -> None:
    gsm8k = {"task": {"name": "gsm8k"}, "metric": {"name": "exact_match", "filter": "strict-match"}}
    ways = [{"settings": {"num_fewshot": 5}}, {"settings": {"num_fewshot": 8}}, {"model": {"quantization": "nf4"}}]
    items = [Item(baseline(0.1 * n, **gsm8k, **way), Origin(Path("x"), 1), None) for n, way in enumerate(ways, start=1)]
    entries = [_read(file)[0] for file in export(items, tmp_path, source_url=None)]
    told = {entry["value"]: entry["notes"] for entry in entries}
    assert "5-shot" in told[10.0] and "8-shot" in told[20.0] and "nf4" in told[30.0] and "0-shot" in told[30.0]


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
