"""Records: one line each, keys that say what is the same measurement, a ledger that loses nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness import HarnessError
from harness.records import ledger, repairing
from harness.records.record import SCHEMA, Record, digest_of

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]
Records = Callable[[Path], list[dict[str, Any]]]

CONTENT: dict[str, Any] = {
    "schema_version": SCHEMA,
    "created": "2026-01-02T03:04:05Z",
    "plugin": {"name": "p", "distribution": "d", "version": "1", "code_digest": "c"},
    "method": {"name": "m", "options": {"steps": 3, "layers": [1, 2], "file": None}},
    "model": {"name": "tiny ünï 🎉", "digest": "abc", "dtype": "float32", "quantization": "none"},
    "tokenizer": {"digest": "def", "vocabulary": 400, "prefix_token_id": 0},
    "task": {"name": "t", "version": "1.0", "docs_digest": "d1"},
    "metric": {"name": "acc", "filter": "none", "higher_is_better": True},
    "value": 0.1 + 0.2,
    "stderr": None,
    "counts": {"docs": 4},
    "settings": {"num_fewshot": 2, "limit": None, "gen_kwargs": {"until": ["\n"]}},
    "seeds": {"random": 0, "numpy": 1, "torch": 2, "fewshot": 3},
    "environment": {
        "python": "3.11", "torch": "2", "transformers": "5", "lm_eval": "0.4", "peft": "0.1", "harness": "0.1",
        "platform": "Linux", "device": "cpu",
    },
    "batch_size": "8",
    "report": {"loss": [1.5, 1.25]},
    "command": "harness eval",
}  # fmt: skip


def changed(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a deep copy of ``content`` with ``value`` at a dotted path."""
    copy: dict[str, Any] = json.loads(json.dumps(content))
    *parents, last = path.split(".")
    place = copy
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return copy


def record(**changes: Any) -> Record:
    """Return a record; keyword names are paths with ``__`` for the dot."""
    content = CONTENT
    for path, value in changes.items():
        content = changed(content, path.replace("__", "."), value)
    return Record.model_validate(content)


def reading_of(*lines: str | bytes) -> ledger.Reading:
    Path("file.jsonl").write_bytes(
        b"\n".join(line.encode() if isinstance(line, str) else line for line in lines) + b"\n"
    )
    return ledger.read_file(Path("file.jsonl"))


def test_a_record_survives_its_line_bit_for_bit() -> None:
    one = record()
    line = one.to_line()
    assert "\n" not in line
    assert "ünï 🎉" in line
    [again] = reading_of(line).records
    assert again == one
    assert again.value == 0.1 + 0.2
    assert again.to_line() == line
    assert json.loads(line)["key"] == one.key()


def test_fields_that_a_newer_version_added_are_kept() -> None:
    content = changed(changed(CONTENT, "judge", {"name": "x", "list": [1]}), "model.license", "MIT")
    [again] = reading_of(json.dumps(content)).records
    written = json.loads(again.to_line())
    assert written["judge"] == {"name": "x", "list": [1]}
    assert written["model"]["license"] == "MIT"


def test_a_field_that_an_older_version_lacked_gets_its_default() -> None:
    content = {
        name: value for name, value in CONTENT.items() if name not in {"report", "command", "stderr", "settings"}
    }
    [again] = reading_of(json.dumps(content)).records
    assert (again.report, again.command, again.settings.num_fewshot) == ({}, "", None)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "path", ["value", "stderr", "counts.docs", "cost.apply_seconds", "report.loss", "method.options.rate"]
)
def test_what_is_no_number_is_refused_in_reading(number: str, path: str) -> None:
    line = json.dumps(changed(CONTENT, path, "HERE")).replace('"HERE"', number)
    reading = reading_of(record().to_line(), line)
    assert len(reading.records) == 1
    assert len(reading.problems) == 1
    assert reading.problems[0].startswith("file.jsonl, line 2: ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "0.5x", [0.5]])
def test_what_is_no_number_is_refused_in_making(value: Any) -> None:
    with pytest.raises(ValidationError):
        Record.model_validate(CONTENT | {"value": value})


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        record().value = 1.0  # type: ignore[misc]


DECIDES = {
    "plugin.name": "q", "plugin.version": "2", "plugin.code_digest": "x", "plugin.distribution": "y", "method.name": "n",
    "method.options.steps": 4, "method.options.new": 1, "method.options.layers": [2, 1], "model.name": "big",
    "model.digest": "xyz", "model.dtype": "bfloat16", "model.quantization": "nf4", "task.name": "u", "task.version": "1.1",
    "task.docs_digest": "d2", "metric.name": "f1", "metric.filter": "strict", "settings.num_fewshot": 3, "settings.limit": 10,
    "settings.gen_kwargs.temperature": 1, "settings.system_instruction": "x", "settings.apply_chat_template": True,
    "settings.model_args.max_length": 9, "settings.samples_digest": "s", "seeds.random": 1, "seeds.torch": 9, "seeds.fewshot": 9,
    "tokenizer.prefix_token_id": 1,
}  # fmt: skip
LEAVES = {
    "created": "2027-01-01T00:00:00Z", "value": 0.9, "stderr": 0.1, "counts.docs": 5, "counts.truncated_requests": 1,
    "environment.python": "3.13", "environment.device": "H100", "environment.harness_commit": "fff", "batch_size": "1",
    "cost.apply_seconds": 9.0, "cost.reused": True, "samples": {"path": "x", "sha256": "y"}, "report.loss": [], "command": "x",
    "model.bits_per_weight": 4.5, "model.parameters": 5, "model.weights_changed": 1, "metric.higher_is_better": None,
    "task.group": True, "unknown": 1,
}  # fmt: skip


@pytest.mark.parametrize("path", DECIDES)
def test_what_decides_a_value_changes_the_key(path: str) -> None:
    assert Record.model_validate(changed(CONTENT, path, DECIDES[path])).key() != record().key()


@pytest.mark.parametrize("path", LEAVES)
def test_what_does_not_decide_a_value_leaves_the_key(path: str) -> None:
    assert Record.model_validate(changed(CONTENT, path, LEAVES[path])).key() == record().key()


def test_all_keys_of_different_measurements_differ() -> None:
    keys = [Record.model_validate(changed(CONTENT, path, value)).key() for path, value in DECIDES.items()]
    assert len(set(keys)) == len(keys)


def test_the_order_of_options_leaves_the_key() -> None:
    turned = dict(reversed(CONTENT["method"]["options"].items()))
    assert record(method__options=turned).key() == record().key()


def test_seeds_of_shots_count_only_where_there_are_shots() -> None:
    assert record(settings__num_fewshot=0).board_key() == record(settings__num_fewshot=0, seeds__fewshot=9).board_key()
    assert record().board_key() != record(seeds__fewshot=9).board_key()


def test_the_untouched_model_is_one_whatever_the_seed_or_plugin() -> None:
    baseline = {"method": {"name": "baseline"}, "plugin": {}}
    assert record(**baseline).key() == record(**baseline, seeds__random=5, seeds__torch=5).key()
    assert record(**baseline).is_baseline
    assert record(**baseline).comparison_key() == record().comparison_key()
    assert record(**baseline).key() != record().key()


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("{", ""),
        ("just words", ""),
        ("[1]", ""),
        ("null", ""),
        ("{}", "no record: it has no schema_version"),
        ('{"schema_version": "1"}', "no record: it has no schema_version"),
        ('{"schema_version": 1}', "field created: Field required"),
        (f'{{"schema_version": {SCHEMA + 1}}}', f"schema {SCHEMA + 1}, newer than this harness reads ({SCHEMA}); upgrade"),
        (json.dumps(changed(CONTENT, "value", "high")), "field value: "),
        (json.dumps(changed(CONTENT, "model.digest", 5)), "field model.digest: "),
        (json.dumps(changed(CONTENT, "model", [])), "field model: "),
        (b"\xff\xfe{}", "line 2"),
        (b'{"schema_version": 1, "created": "\\ud800"}', "line 2"),
        ("[" * 100_000, "line 2"),
        ('{"schema_version": 1' + "0" * 5000 + "}", "line 2"),
        ('{"\x1b[31m": 1}', "line 2"),
    ],
)  # fmt: skip
def test_a_bad_line_is_told_by_file_and_line_and_the_rest_is_used(line: str | bytes, cause: str, cli: Command) -> None:
    reading = reading_of(record().to_line(), line, "", record(seeds__random=1).to_line())
    assert len(reading.records) == 2
    [problem] = reading.problems
    assert problem.startswith("file.jsonl, line 2: ")
    assert cause in problem
    assert problem.isprintable()
    assert "line 1" not in problem  # two numbers for one line help nobody
    shown = cli("leaderboard", "file.jsonl", "--task", "all")
    assert shown.code == 1
    assert shown.err == f"harness: {problem}\n"
    assert "m | 2 |" in shown.out


def test_a_byte_order_mark_carriage_returns_and_blank_lines_are_no_problem() -> None:
    reading = reading_of(
        b"\xef\xbb\xbf" + record().to_line().encode() + b"\r", b"", b"  ", record(seeds__random=1).to_line()
    )
    assert (len(reading.records), reading.problems) == (2, [])


def test_a_last_line_without_its_newline_is_read() -> None:
    Path("file.jsonl").write_text(record().to_line(), encoding="utf-8")
    assert len(ledger.read_file(Path("file.jsonl")).records) == 1


def test_a_folder_is_read_without_what_is_no_record_file() -> None:
    for path in ("a/records.jsonl", "b/c/more.jsonl"):
        ledger.append(Path(path), [record(seeds__random=len(path))])
    for path in (
        "a/run/samples_t.jsonl",
        "a/run/artefacts/rollouts.jsonl",
        "a/.hidden.jsonl",
        "a/.half.partial/records.jsonl",
    ):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("no record\n", encoding="utf-8")
    reading = ledger.read(Path())
    assert (len(reading.records), reading.problems) == (2, [])
    with pytest.raises(HarnessError, match=r"^no records at 'nowhere': there is no such file or folder$"):
        ledger.read(Path("nowhere"))


def test_a_ledger_keeps_every_line_and_chains_them() -> None:
    path = Path("records.jsonl")
    ledger.append(path, [record(), record(seeds__random=1)])
    before = path.read_bytes()
    ledger.append(path, [record(value=0.75)])
    assert path.read_bytes().startswith(before)
    chain = ""
    for line in ledger.lines(path):
        assert line.record is not None and line.content is not None
        chain = ledger.next_chain(chain, line.record.digest())
        assert line.content["chain"] == chain


def test_a_torn_last_line_costs_no_neighbour_and_is_set_aside() -> None:
    path, half = Path("records.jsonl"), record(seeds__random=1).to_line()[:200]
    path.write_text(record().to_line() + "\n" + half, encoding="utf-8")
    ledger.append(path, [record(seeds__random=2)])
    reading = ledger.read_file(path)
    assert ([r.seeds.random for r in reading.records], reading.problems) == ([0, 2], [])
    assert Path("records.jsonl.torn").read_text(encoding="utf-8") == half + "\n"


def test_a_whole_last_line_that_lacks_its_end_is_kept() -> None:
    path = Path("records.jsonl")
    path.write_text(record().to_line(), encoding="utf-8")
    ledger.append(path, [record(seeds__random=2)])
    assert [r.seeds.random for r in ledger.read_file(path).records] == [0, 2]
    assert not Path("records.jsonl.torn").exists()


def test_an_edited_line_is_told_and_not_used() -> None:
    line = record().to_line()
    reading = reading_of(line.replace("0.30000000000000004", "0.9"), line)
    assert len(reading.records) == 1
    assert reading.problems == ["file.jsonl, line 1: its content does not give its digest: it was edited or damaged"]


def test_a_field_named_twice_is_told() -> None:
    content = json.dumps(CONTENT)
    reading = reading_of(
        content, content.replace('"value":', '"value": 1.0, "value":'), content[:-1] + ', "key": "\\"", "key": 1}'
    )
    assert len(reading.records) == 1
    assert [problem.split(": ")[1] for problem in reading.problems] == ["a field stands in it twice"] * 2


def test_a_changed_copy_has_a_key_of_its_own() -> None:
    one = record()
    assert one.key() != one.model_copy(update={"value": 0.5, "task": one.task.model_copy(update={"name": "x"})}).key()


def test_a_digest_stays_when_a_record_moves_and_when_a_later_form_adds_fields() -> None:
    samples = {"path": "a/b.jsonl", "sha256": "f" * 64}
    one, moved = record(samples=samples), record(samples=samples | {"path": "c.jsonl"})
    assert one.digest() == moved.digest() != record(samples=samples | {"sha256": "0" * 64}).digest()
    old = {name: value for name, value in CONTENT.items() if name not in {"report", "command"}}
    [again] = reading_of(json.dumps(old)).records
    assert json.loads(again.to_line())["digest"] == again.digest() == digest_of(old)


def test_repair_sets_bad_lines_aside_and_keeps_the_old_file() -> None:
    path = Path("records.jsonl")
    ledger.append(path, [record(), record(seeds__random=1)])
    first, second = path.read_bytes().splitlines()
    broken = b"\n".join([first, b"\xff broken", second[:50], second]) + b"\n"
    path.write_bytes(broken)
    done = repairing.repair(path)
    assert (done.kept, len(done.set_aside)) == (2, 2)
    assert done.backup is not None and done.backup.read_bytes() == broken
    assert Path("records.jsonl.torn").read_bytes() == b"\xff broken\n" + second[:50] + b"\n"
    assert path.read_bytes().splitlines() == [first, second]
    assert repairing.repair(path).backup is None


def test_equal_parts_of_many_records_are_held_once() -> None:
    one, two = reading_of(record().to_line(), record(seeds__random=1).to_line()).records
    assert one.environment is two.environment
    assert one.model is two.model
    assert one.seeds is not two.seeds


def test_a_record_names_its_samples_by_path_and_sha256(evaluate: Command, records: Records) -> None:
    assert evaluate(tasks="colours,write_colours").code == 0
    for written in records(Path("out")):
        file = Path("out") / written["run"] / written["samples"]["path"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == written["samples"]["sha256"]
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert len(rows) == written["counts"]["docs"] == 4
    assert evaluate("--no-log_samples", "--output_path", "quiet").code == 0
    [written] = records(Path("quiet"))
    assert written["samples"] is None
    assert not list(Path("quiet").rglob("samples_*"))


def test_a_record_says_what_ran(evaluate: Command, records: Records, tiny_model: Path, tmp_path: Path) -> None:
    flags = ["--num_fewshot", 1, "--limit", 3, "--seed", "1,2,3,4", "--batch_size", 2, "--metadata", "length=2"]
    assert evaluate(*flags).code == 0
    [written] = records(Path("out"))
    assert written["model"]["name"] == tiny_model.name
    assert written["model"]["dtype"] == "float32"
    assert written["model"]["bits_per_weight"] == 32.0
    assert written["method"] == {"name": "baseline", "options": {}, "inputs": None}
    assert written["plugin"] == {"name": None, "distribution": None, "version": None, "code_digest": None}
    assert written["seeds"] == {"random": 1, "numpy": 2, "torch": 3, "fewshot": 4}
    assert (written["settings"]["num_fewshot"], written["settings"]["limit"], written["batch_size"]) == (1, 3.0, "2")
    assert written["settings"]["metadata"] == {"length": 2}
    assert (written["counts"]["docs"], written["counts"]["requests"], written["task"]["size"]) == (3, 12, 4)
    assert written["metric"]["aggregation"] == "mean"
    assert written["environment"]["lm_eval"].startswith("0.4")
    assert written["environment"]["device"] == "cpu"
    assert written["created"].endswith("Z")
    assert written["cost"]["evaluate_peak_bytes"] > 10_000_000
    everything = json.dumps({name: part for name, part in written.items() if name != "command"})
    assert str(tmp_path.parent) not in everything
    assert str(tiny_model.parent) not in everything


def test_a_record_of_a_quantised_model_says_how_many_bits_were_measured(evaluate: Command, records: Records) -> None:
    pytest.importorskip("bitsandbytes")
    assert evaluate("--quantization", "nf4").code == 0
    [written] = records(Path("out"))
    assert written["model"]["quantization"] == "nf4"
    assert 4 < written["model"]["bits_per_weight"] < 32


def test_a_tokenizer_alone_leaves_records_without_a_model(cli: Command, tiny_model: Path, records: Records) -> None:
    words = ["eval", "--model", "tokenizer", "--model_args", f"pretrained={tiny_model}", "--tasks", "fertility"]
    outcome = cli(*words, "--output_path", "out")
    assert outcome.code == 0, outcome.err
    assert "loading" not in outcome.err
    written = records(Path("out"))
    assert {record["metric"]["name"] for record in written} >= {"bytes_per_token"}
    assert {record["model"]["dtype"] for record in written} == {"none"}
    assert len({record["tokenizer"]["digest"] for record in written}) == 1


def test_two_runs_into_one_folder_both_stay(evaluate: Command, records: Records) -> None:
    assert evaluate("--limit", 2).code == 0
    assert evaluate("--limit", 3).code == 0
    assert evaluate("--limit", 2).code == 0
    assert sorted(written["settings"]["limit"] for written in records(Path("out"))) == [2.0, 3.0]
    assert len([path for path in Path("out").iterdir() if path.is_dir()]) == 2
