"""Exports to Every Eval Ever pass its schemas and what its validator checks beyond them, and are the same every time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.publishing.every_eval_ever import Submitter, export
from harness.publishing.files import write_all
from harness.publishing.selection import Item, select
from harness.records.record import Record

fastjsonschema = pytest.importorskip("fastjsonschema")

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).with_name("schemas")
PLACE = re.compile(
    r"data/[^/]+/[^/]+/[^/]+/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}(_samples\.jsonl|\.json)"
)
ADA = Submitter(developer="ada")


def _schema(name: str) -> Callable[[Any], Any]:
    content = json.loads((SCHEMAS / name).read_text(encoding="utf-8"))
    return fastjsonschema.compile(content)  # type: ignore[no-any-return]


AGGREGATE, INSTANCE = _schema("eval.schema.json"), _schema("instance_level_eval.schema.json")


def _items(path: Path) -> list[Item]:
    return select(path, allow_partial=False, skip_refused=False, note=lambda _: None).items


def _check(folder: Path) -> tuple[int, int]:
    """Check every file below ``folder`` as the published validator does; return how many of each kind there are."""
    aggregates, rows = 0, 0
    for path in sorted(folder.rglob("*.json*")):
        relative = path.relative_to(folder).as_posix()
        assert PLACE.fullmatch(relative), relative
        if path.suffix == ".jsonl":
            assert path.with_name(path.name.replace("_samples.jsonl", ".json")).is_file()
            continue
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
        AGGREGATE(content)
        aggregates += 1
        assert content["model_info"]["id"].split("/") == relative.split("/")[2:4]
        for result in content["evaluation_results"]:
            config, score = result["metric_config"], result["score_details"]["score"]
            low, high = float(config["min_score"]), float(config["max_score"])
            assert low <= score <= high
        rows += _check_samples(content, folder, relative)
    return aggregates, rows


def _check_samples(content: dict[str, Any], folder: Path, relative: str) -> int:
    companion = relative.replace(".json", "_samples.jsonl")
    if "detailed_evaluation_results" not in content:
        assert not (folder / companion).exists()
        return 0
    detail = content["detailed_evaluation_results"]
    assert detail["file_path"] == companion
    raw = (folder / companion).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == detail["checksum"]
    # As their validator splits it: where Unicode ends a line.
    lines = [json.loads(line, parse_constant=pytest.fail) for line in raw.decode("utf-8").splitlines()]
    assert len(lines) == detail["total_rows"] > 0
    for line in lines:
        INSTANCE(line)
        assert line["evaluation_id"] == content["evaluation_id"]
        assert line["model_id"] == content["model_info"]["id"]
        assert line["evaluation_result_id"] in {r["evaluation_result_id"] for r in content["evaluation_results"]}
    return len(lines)


def test_a_run_passes_with_its_samples(results: Path, tmp_path: Path) -> None:
    write_all(export(_items(results), ADA), tmp_path / "out", dry_run=False)
    aggregates, rows = _check(tmp_path / "out")
    assert aggregates == 4
    assert rows == 4 * 6


def test_the_committed_records_pass(tmp_path: Path) -> None:
    items = _items(ROOT / "leaderboards" / "records" / "stochastok.jsonl")
    write_all(export(items, Submitter(developer="HuggingFaceTB")), tmp_path, dry_run=False)
    aggregates, _ = _check(tmp_path)
    assert aggregates == len({(item.record.run_key(), item.record.task.name) for item in items})


def test_an_export_done_again_changes_nothing(results: Path, tmp_path: Path) -> None:
    items = _items(results)
    first = write_all(export(items, ADA), tmp_path, dry_run=False)
    again = write_all(export(items, ADA), tmp_path, dry_run=False)
    assert {outcome.state for outcome in first} == {"new"}
    assert {outcome.state for outcome in again} == {"same"}


def test_the_bytes_do_not_depend_on_where_they_are_made(results: Path, tmp_path: Path) -> None:
    digests = set()
    for zone, locale in (("UTC", "C"), ("Pacific/Kiritimati", "C.UTF-8"), ("Asia/Kathmandu", "POSIX")):
        target = tmp_path / zone.replace("/", "-")
        words = ["publish", str(results), "--to", "eee", str(target), "--developer", "ada"]
        environment = os.environ | {"TZ": zone, "LC_ALL": locale, "PYTHONUTF8": "0"}
        _run([*words], environment)
        content = [(p.relative_to(target).as_posix(), p.read_bytes()) for p in sorted(target.rglob("*.json*"))]
        digests.add(hashlib.sha256(repr(content).encode()).hexdigest())
    assert len(digests) == 1


def _run(words: list[str], environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "harness.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr


def test_text_that_no_file_can_hold_is_still_exported(results: Path, tmp_path: Path) -> None:
    [sample] = list((results).rglob("*baseline*/*/samples_colours_*.jsonl"))
    row = json.loads(sample.read_text(encoding="utf-8").split("\n")[0])
    row["target"] = "half a pair \ud83d, a line \u2028 end, a nul \0"
    items = [_with_row(item, row, tmp_path) for item in _items(results) if item.record.task.name == "colours"]
    write_all(export(items[:1], ADA), tmp_path / "out", dry_run=False)
    assert _check(tmp_path / "out") == (1, 1)


def _with_row(item: Item, row: dict[str, Any], folder: Path) -> Item:
    assert item.samples is not None
    path = folder / "row.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="ascii")
    return replace(item, samples=replace(item.samples, source=path))


def _changed(item: Item, **fields: dict[str, Any] | float | str) -> Item:
    content = item.record.content()
    for name, value in fields.items():
        content[name] = content[name] | value if isinstance(value, dict) else value
    return replace(item, record=Record.model_validate(content))


def test_a_score_out_of_the_usual_bounds_gets_infinite_ones(results: Path, tmp_path: Path) -> None:
    item = _changed(_items(results)[0], value=73.4)
    write_all(export([item], ADA), tmp_path / "out", dry_run=False)
    assert _check(tmp_path / "out")[0] == 1
    [path] = (tmp_path / "out").rglob("*.json")
    config = json.loads(path.read_text(encoding="utf-8"))["evaluation_results"][0]["metric_config"]
    assert (config["min_score"], config["max_score"]) == ("-Infinity", "Infinity")


@pytest.mark.parametrize(
    "name", ["..", "a/../b", "x:y/z", "CON", "owner/data", "ä/ö", "a" * 300, "o/with space.", "a\0b/c"]
)
def test_no_model_name_leads_out_of_the_folder(name: str, results: Path, tmp_path: Path) -> None:
    item = _changed(_items(results)[0], model={"name": name})
    with contextlib.suppress(HarnessError):  # a name that suits no folder
        write_all(export([item], ADA), tmp_path / "out", dry_run=False)
    _check(tmp_path / "out")
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parts[0] for path in files} <= {"out", "results"}


def test_a_model_without_owner_asks_for_its_developer(results: Path) -> None:
    with pytest.raises(HarnessError, match="--developer"):
        export(_items(results), Submitter())


def test_times_are_utc_whatever_the_record_s_own_form(results: Path) -> None:
    item = _items(results)[0]
    for created in (
        "2026-11-24T16:24:18Z",
        "2026-11-24T16:24:18+00:00",
        "2026-11-24T17:24:18+01:00",
        "2026-11-24T16:24:18",
    ):
        *_, aggregate = export([_changed(item, created=created)], ADA)
        content = json.loads(b"".join(aggregate.blocks()))
        assert content["evaluation_timestamp"] == content["retrieved_timestamp"] == "1795537458"


@pytest.mark.skipif("EEE_PYTHON" not in os.environ, reason="EEE_PYTHON names no Python with every-eval-ever 0.3.0")
def test_the_published_command_accepts_both(results: Path, tmp_path: Path) -> None:
    write_all(export(_items(results), ADA), tmp_path, dry_run=False)
    committed = _items(ROOT / "leaderboards" / "records" / "stochastok.jsonl")
    write_all(export(committed, Submitter(developer="HuggingFaceTB")), tmp_path, dry_run=False)
    command = [os.environ["EEE_PYTHON"], "-m", "every_eval_ever", "validate", "data/*/*/*/*.json*"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout
    assert "All files passed" in done.stdout
