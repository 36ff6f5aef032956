"""docs/records.md: its example has every field, its list names every field, and its snippets run and mix nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from board_records import baseline, record, write
from pydantic import BaseModel

from harness.records.record import Record

PAGE = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")
PANDAS, LEDGER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
# Objects of which only some is printed; what they hold is the method's, or the run's.
CUT = {"options", "report", "scoring"}


def _example() -> dict[str, Any]:
    [text] = re.findall(r"```\n(\{\"schema_version\".*?)```", PAGE, re.DOTALL)
    found: dict[str, Any] = json.loads(re.sub(r", \.\.\.(?=\})", "", text))
    return found


def _parts() -> dict[str, type[BaseModel]]:
    kinds = {name: field.annotation for name, field in Record.model_fields.items()}
    kinds = {name: getattr(kind, "__args__", (kind,))[0] for name, kind in kinds.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


def test_the_example_has_every_field_and_no_other() -> None:
    example = _example()
    assert set(example) == {*Record.model_fields, "key", "digest"} - {"foreign"}  # which is in no ledger
    for name, kind in _parts().items():
        if name == "foreign":
            continue
        assert set(example[name]) == set(kind.model_fields), name
    whole = {name: value for name, value in example.items() if name not in {"key", "digest"}}
    assert Record.model_validate(whole).status == "ok"


def test_every_field_is_explained() -> None:
    explained = set(re.findall(r"`([\w.]+)`", PAGE[PAGE.index("## Fields") : PAGE.index("## A line of a ledger")]))
    explained |= {part for name in explained for part in name.split(".")}
    fields = {*Record.model_fields, *(field for kind in _parts().values() for field in kind.model_fields)}
    assert fields - explained == set()


def _run(snippet: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(snippet, "docs/records.md", "exec"), names)
    return names


def _two_models_and_two_filters() -> list[Record]:
    made = []
    for model in ("small", "large"):
        for chosen in ("strict", "flexible"):
            more = {"model": {"name": model, "digest": model}, "metric": {"filter": chosen}}
            value = {"small": 0.25, "large": 0.5}[model] + {"strict": 0.0, "flexible": 0.125}[chosen]
            made += [baseline(value, **more), record(value + 0.0625, **more)]
    return made


def test_the_pandas_snippet_keeps_models_and_filters_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results" / "run" / "records_t.jsonl", _two_models_and_two_filters())
    names = _run(PANDAS, tmp_path, monkeypatch)
    pivot = names["table"].pivot(index=names["rows"], columns="method.name", values="value")
    found = {(index[0], index[3]): (row["baseline"], row["m"]) for index, row in pivot.iterrows()}
    assert found == {
        ("small", "strict"): (0.25, 0.3125),
        ("small", "flexible"): (0.375, 0.4375),
        ("large", "strict"): (0.5, 0.5625),
        ("large", "flexible"): (0.625, 0.6875),
    }
    assert "flexible" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"settings": {"num_fewshot": 5}}, "settings.num_fewshot"),
        ({"seed": 1}, "seeds.random"),
        ({"settings": {"limit": 10.0}}, "settings.limit"),
        ({"model": {"quantization": "nf4"}}, "model.quantization"),
        ({"options": {"steps": 9}}, "method.options.steps"),
        ({"task": {"version": "2.0"}}, "task.version"),
        ({"value": 0.75}, "value"),
    ],
)
def test_the_pandas_snippet_says_what_differs_and_stops(
    other: dict[str, Any], field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [*_two_models_and_two_filters(), record(**{"value": 0.5} | other), record(0.5)]
    write(tmp_path / "results" / "run" / "records_t.jsonl", records)
    with pytest.raises(ValueError, match=rf"would share a cell; they differ in \[.*'{field}'"):
        _run(PANDAS, tmp_path, monkeypatch)


def test_the_ledger_snippet_subtracts_the_baseline_of_the_same_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [*_two_models_and_two_filters(), record(None, task={"name": "u"}), baseline(0.5, task={"name": "u"})]
    write(tmp_path / "results" / "run" / "records_t.jsonl", records)
    _run(LEDGER, tmp_path, monkeypatch)
    assert capsys.readouterr().out.splitlines() == [
        "t acc strict +0.0625", "t acc flexible +0.0625", "t acc strict +0.0625", "t acc flexible +0.0625", "[]"
    ]  # fmt: skip
    drawn = {"task": {"name": "v", "drawn": True}}
    write(tmp_path / "results" / "run" / "records_v.jsonl", [baseline(0.5, seed=n, **drawn) for n in (1, 2)])
    with pytest.raises(ValueError, match="two baselines of v"):
        _run(LEDGER, tmp_path, monkeypatch)
