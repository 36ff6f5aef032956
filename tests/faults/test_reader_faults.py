"""Files of records that are torn, foreign, damaged, old or new: every good record is read, every bad line is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bad_lines import CHANGES, COMPLAINT, LINES, NOTHING, changed, wrong_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_records import line_of, made

from harness.cli import main
from harness.records import conflicts, ledger, repairing
from harness.records.record import SCHEMA

GOLDEN = Path(__file__).parent / "golden"
# What version 0.1.0 gave as keys of the records in schema-1.jsonl.
KEYS = {"8cad586409c191a3", "c3e115f1231d6cb1", "ba4c1f3f6a2ee780"}


def _file(folder: Path, *lines: bytes) -> Path:
    path = folder / "file.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize("name", LINES)
def test_a_strange_line_costs_no_neighbour_and_is_told_by_its_number(name: str, tmp_path: Path) -> None:
    line, wanted = LINES[name]
    path = _file(tmp_path, made(0).to_line().encode(), line, made(1).to_line().encode())
    reading = ledger.read_file(path)
    numbers = [record.seeds.random for record in reading.records]
    lines = [origin.line for origin in reading.origins]
    if wanted in {COMPLAINT, NOTHING}:
        assert (numbers, lines) == ([0, 1], [1, 3]), reading.problems
    else:
        assert (len(numbers), lines) == (3, [1, 2, 3]), reading.problems
    problems = [f"{path}, line 2: "] if wanted == COMPLAINT else []
    assert [problem[: len(start)] for problem, start in zip(reading.problems, problems, strict=True)] == problems
    assert all(problem.isprintable() and len(problem) < len(str(path)) + 300 for problem in reading.problems)


def test_the_corpus_has_forty_lines() -> None:
    assert len(LINES) >= 40


def test_all_strange_lines_in_one_file_are_told_and_the_rest_is_rendered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [line for line, wanted in LINES.values() if wanted == COMPLAINT]
    path = _file(tmp_path, made(0).to_line().encode(), *(line for line, _ in LINES.values()), line_of(made(1)))
    assert main(["leaderboard", str(path), "--task", "all"]) == 1
    shown = capsys.readouterr()
    assert shown.err.count(f"harness: {path}, line ") == len(bad)
    assert "Traceback" not in shown.err
    assert "## t · tiny" in shown.out and "0.3000" in shown.out


def test_the_last_line_may_lack_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes((line_of(made(0)) + line_of(made(1))).rstrip(b"\n"))
    assert len(ledger.read_file(path).records) == 2


def test_a_repair_keeps_every_byte_somewhere(tmp_path: Path) -> None:
    strange = [
        (line, wanted) for line, wanted in LINES.values() if not conflicts.is_mark(line)
    ]  # those have their own tests
    good = [line for line, wanted in strange if wanted not in {COMPLAINT, NOTHING}]
    bad = [line for line, wanted in strange if wanted == COMPLAINT]
    path = _file(tmp_path, *(line for line, _ in strange))
    old = path.read_bytes()
    repair = repairing.repair(path)
    assert (repair.kept, len(repair.set_aside)) == (len(good), len(bad))
    assert repair.backup is not None and repair.backup.read_bytes() == old
    reading = ledger.read_file(path)
    assert (len(reading.records), reading.problems) == (len(good), [])
    torn = path.with_name("file.jsonl.torn").read_bytes()
    assert all(line.strip() in torn for line in bad)
    assert repairing.repair(path).backup is None, "a second repair finds something left to do"
    assert ledger.read(tmp_path).problems == [], "what was set aside is read as records"


MUTATIONS = st.lists(
    st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 10_000), st.binary(max_size=6)), min_size=1, max_size=5
)


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(MUTATIONS)
def test_whatever_happens_to_the_bytes_no_wrong_number_is_read(tmp_path: Path, mutations) -> None:
    assert wrong_with(changed(mutations), tmp_path / "file.jsonl") == []


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_a_file_of_arbitrary_bytes_holds_no_record_and_can_be_appended_to(tmp_path: Path, content: bytes) -> None:
    assert wrong_with(content, tmp_path / "file.jsonl") == []
    assert len(ledger.read_file(tmp_path / "file.jsonl").records) == 1


def test_records_of_the_first_form_are_read_as_they_were_meant() -> None:
    reading = ledger.read_file(GOLDEN / "schema-1.jsonl")
    assert reading.problems == []
    lines = [json.loads(line) for line in (GOLDEN / "schema-1.jsonl").read_text(encoding="utf-8").splitlines()]
    for record, line in zip(reading.records, lines, strict=True):
        assert (record.status, record.value, record.stderr) == ("ok", line["value"], line["stderr"])
        assert record.key() in KEYS, "an old record counts as another measurement"
        again = json.loads(record.to_line())
        assert {name: again[name] for name in line} == line | {"key": again["key"]}
        assert set(again) - set(line) <= {"digest"}, "a field nobody measured appeared"


def test_fields_of_a_later_form_are_kept_in_every_part(tmp_path: Path) -> None:
    [line, *_] = (GOLDEN / "schema-1.jsonl").read_text(encoding="utf-8").splitlines()
    content = json.loads(line)
    parts = [name for name, part in content.items() if isinstance(part, dict)]
    for part in (content, *(content[name] for name in parts)):
        part["later"] = {"x": [1.5, None, "ß"]}
    reading = ledger.read_file(_file(tmp_path, json.dumps(content).encode()))
    assert reading.problems == []
    ledger.append(tmp_path / "other.jsonl", reading.records)
    again = json.loads((tmp_path / "other.jsonl").read_text(encoding="utf-8"))
    assert all(again[name]["later"] == content["later"] for name in parts) and again["later"] == content["later"]


def test_a_record_of_a_newer_form_is_refused_with_what_to_do(tmp_path: Path) -> None:
    content = json.dumps({"schema_version": SCHEMA + 1, "everything": "else"}).encode()
    reading = ledger.read_file(_file(tmp_path, content, made(0).to_line().encode()))
    assert len(reading.records) == 1
    [problem] = reading.problems
    assert f"schema {SCHEMA + 1}, newer than this harness reads ({SCHEMA}); upgrade token-harness" in problem
