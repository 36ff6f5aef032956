"""Rows and records of others: whatever type a field has, no command ends in a traceback, and what is sound is used."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from written_records import record, rows_of

from harness.cli import main
from harness.records import ledger

DEEP = "[" * 100 + "]" * 100
ROW_VALUES = (
    "null", "true", "0", "-1", "1e400", "9" * 400, '""', '"x"', '"\\ud800"', "[]", "[1]", "[[1]]", "{}", '{"a": 1}', "NaN", DEEP,
)  # fmt: skip
TEXTS = {'""', '"x"'}
LISTS = {"[]", "[1]", "[[1]]"}
# Which of the values are of the type that the field has where lm-eval writes it.
RIGHT_TYPE = {
    "doc_id": {"0"},
    "doc": {*ROW_VALUES} - {'"\\ud800"', DEEP},
    "arguments": {"[]", "[[1]]", "{}"},
    "metrics": {"[]"},
    **dict.fromkeys(("resps", "filtered_resps"), LISTS),
    **dict.fromkeys(("target", "filter", "doc_hash", "prompt_hash", "target_hash"), TEXTS),
    "acc": {*ROW_VALUES} - {"9" * 400, '"\\ud800"', DEEP},
}
# One run shows, compares or publishes all of them; each takes its own way to the rows.
COMMANDS = {
    "verify": ["verify", "{results}"],
    "leaderboard": ["leaderboard", "{results}", "-o", "{tmp}/board.html"],
    "compare": ["compare", "baseline", "softly", "--records", "{results}", "--allow-drift"],
    "publish": ["publish", "{results}", "--to", "{tmp}/board", "--dry-run", "--skip-refused", "--allow-partial"],
    "eee": [
        "publish",
        "{results}",
        "--to",
        "eee",
        "{tmp}/eee",
        "--dry-run",
        "--skip-refused",
        "--allow-partial",
        "--developer",
        "x",
    ],
    "show": ["show", "{results}", "--run", "baseline", "--wrong", "--limit", "1000"],
}
OTHER_METHOD: dict[str, Any] = {
    "run": "softly-1",
    "method": {"name": "softly"},
    "plugin": {"name": "softly"},
    "command": "",
}


def write(folder: Path, task: str, lines: list[str], **fields: Any) -> None:
    """Write a record of a task and its samples, as whoever knows the digests would."""
    content = "".join(line + "\n" for line in lines)
    name = f"samples_{task}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content, encoding="utf-8")
    part = {"path": name, "sha256": hashlib.sha256(content.encode()).hexdigest(), "rows": len(lines)}
    made = record(task, [1.0, 0.0, 1.0, 1.0, 0.0], rows_of("colours_warm"), samples=part, **{"command": "", **fields})
    named = made.model_copy(update={"task": made.task.model_copy(update={"name": task})})
    ledger.write(folder / f"records_{task}.jsonl", [named])


def odd_rows() -> Iterator[tuple[str, str, list[str], bool]]:
    """Yield a task for each field and value: its name, the field, the lines of its samples, and whether they can be read."""
    rows = rows_of("colours_warm")
    for field in RIGHT_TYPE:
        for number, value in enumerate(ROW_VALUES):
            odd = json.dumps({**rows[1], field: "@"}).replace('"@"', value)
            lines = [json.dumps(row) if row is not rows[1] else odd for row in rows]
            yield f"{field}_{number}", field, lines, value in RIGHT_TYPE[field]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of two runs; of the baseline, each task has a row with another field of another type."""
    folder = tmp_path_factory.mktemp("foreign") / "results"
    sound = [json.dumps(row) for row in rows_of("colours_warm")]
    for task, _, lines, _ in [*odd_rows(), ("sound", "", sound, True)]:
        write(folder / "baseline-1", task, lines, run="baseline-1")
        write(folder / "softly-1", task, sound, **OTHER_METHOD)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_field_of_any_type_costs_its_own_file_alone(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Case wrong_typed_samples: every field of a row with every type of JSON is told by file and line, exit 1."""
    assert main([word.format(results=results, tmp=tmp_path) for word in COMMANDS[command]]) == 1
    printed = capsys.readouterr()
    told = printed.err + printed.out
    if command in {"publish", "eee"}:
        assert f"{results}/baseline-1/" in told
        assert "other reasons" in told
        return
    if command == "leaderboard":
        told += (tmp_path / "board.html").read_text(encoding="utf-8")
    for task, _, _, is_read in odd_rows():
        assert (f"samples_{task}.jsonl, line 2: " in told) != is_read, (task, command)
    assert "samples_sound" not in told


def test_only_what_decides_nothing_may_be_another_and_follow(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Case wrong_typed_samples: a hash beside a field of another type is a contradiction, and so is a mean of no numbers."""
    assert main(["verify", str(results / "baseline-1"), "--format", "json"]) == 1
    wrong = {Path(finding["file"]).name for finding in json.loads(capsys.readouterr().out)["findings"]}
    follow = {task for task, *_ in odd_rows() if f"records_{task}.jsonl" not in wrong}
    assert follow == {f"acc_{ROW_VALUES.index('0')}"}  # what it was before


def test_reproduce_tells_of_a_sample_file_before_anything_is_loaded(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--run", "baseline-1", "--task", "target_4"]
    command = "harness eval --tasks target_4 --model_args pretrained=./tiny"
    path = results / "baseline-1" / "records_target_4.jsonl"
    [made] = ledger.read(path).records
    ledger.write(path, [made.model_copy(update={"command": command})])
    try:
        assert main(["reproduce", str(results), *flags]) in {1, 2}
    finally:
        ledger.write(path, [made])
    assert "samples_target_4.jsonl, line 2: its field target is a number" in capsys.readouterr().err


RECORD_VALUES = (
    *ROW_VALUES, "1e308", "9" * 25, '"1e400"', f'"{"9" * 400}"', '"\\u0000"', "[null]", "[1e308]",
    '{"a":' * 150 + "1" + "}" * 150,
    *(f'{{"{name}": {"9" * 400}}}' for name in ("steps", "pushed_tokens")),
)  # fmt: skip


def paths(content: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in content.items():
        yield (*before, name)
        if isinstance(value, dict):
            yield from paths(value, (*before, name))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of records, each with another field of another value."""
    folder = tmp_path_factory.mktemp("foreign") / "records"
    folder.mkdir()
    more: dict[str, Any] = {
        "method": {"name": "softly", "options": {"steps": 8}}, "plugin": {"name": "softly"}, "report": {"growth": {"a": 1}},
        "cost": {"apply_peak_bytes": 5, "tokens_trained": 6, "scoring": {"pushed_tokens": 5}}, "settings": {"limit": 5.0},
        "samples": {"path": "s.jsonl", "sha256": "0" * 64, "rows": 5},
        "command": "harness eval --tasks x --plugin softly --method_args steps=8 --model_args pretrained=./tiny --limit 5",
    }  # fmt: skip
    whole = record("t", [1.0, 0.0, 1.0, 1.0, 0.0], rows_of("colours_warm"), **more).model_dump(mode="json")
    beside = [("own",), ("counts", "own"), ("settings", "own"), ("key",), ("digest",), ("chain",), ("beside",)]
    lines = []
    for path in [*paths(whole), *beside]:
        for value in RECORD_VALUES:
            content = json.loads(json.dumps(whole))
            content["run"], content["task"]["name"] = f"run-{len(lines)}", f"t{len(lines)}"
            part = content
            for name in path[:-1]:
                part = part[name]
            part[path[-1]] = "@"
            lines.append(json.dumps(content).replace('"@"', value))
    # Every fifth meets each field and each value; all of them take a minute.
    (folder / "all.jsonl").write_text("".join(line + "\n" for line in lines[::5]), encoding="utf-8")
    return folder


def test_a_record_of_any_type_in_any_field_is_one_or_is_told(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reading = ledger.read(records)
    assert len(reading.records) > 100
    assert len(reading.problems) > 300
    for words in (
        ["verify", "{results}"],
        ["leaderboard", "{results}", "-o", "{tmp}/board.html", "-o", "{tmp}/board.md"],
        ["show", "{results}"],
        COMMANDS["publish"],
        COMMANDS["eee"],
        ["publish", "{results}", "--to", "card", "{tmp}/card", "--dry-run", "--skip-refused", "--allow-partial"],
    ):
        assert main([word.format(results=records, tmp=tmp_path) for word in words]) in {1, 2}, words
        capsys.readouterr()
    for words in (["compare", "baseline", "softly", "--records", "{results}"], ["reproduce", "{results}"]):
        assert main([word.format(results=records) for word in words]) == 2  # several fit
        capsys.readouterr()


def test_every_record_of_others_can_be_looked_at(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.showing.runs import print_overview, runs_of

    for run in runs_of(ledger.read(records))[::3]:
        print_overview(run, [])
    assert math.isfinite(len(capsys.readouterr().out))
