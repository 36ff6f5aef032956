"""What many lines of a ledger say lies beside it once: nothing of a record changes, and what was edited is told."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board_records import baseline, record

from harness.cli import main
from harness.errors import HarnessError
from harness.records import beside, ledger, repairing, shortening
from harness.records.beside import ShortLine
from harness.records.record import Record
from harness.verifying import verify

ROOT = Path(__file__).parents[2]
# The ledger of tool tokens was 5.06 MB when each line held all of its record.
MOST_BYTES = 5_060_664 // 3
REPORT = {"loss": [1.5, 1.25], "steps": 3, "note": "ünï", "growth": {"before": 100, "after": 150.0}, "is_done": True}


def records() -> list[Record]:
    """Return two metrics of each of three runs and of their baseline."""
    return [
        make(value, metric={"name": metric}, **more)
        for make, more in (
            (baseline, {}),
            *((record, {"seed": seed, "report": REPORT | {"loss": [seed]}, "options": {"steps": 3}}) for seed in range(3)),
        )
        for metric, value in (("acc", 0.5), ("acc_norm", 1e-7))
    ]  # fmt: skip


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A ledger of whole records."""
    path = tmp_path / "whole" / "p.jsonl"
    ledger.append(path, records())
    return path


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """The same ledger, made short."""
    path = tmp_path / "short" / "p.jsonl"
    ledger.append(path, records())
    assert shortening.shorten(path)
    return path


def contents(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def state(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def replaced(path: Path, number: int, **changes: Any) -> None:
    """Change fields of one line; None takes a field out."""
    lines = contents(path)
    lines[number] = {name: value for name, value in (lines[number] | changes).items() if value is not None}
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def test_a_short_ledger_holds_the_same_records_keys_digests_and_chain(whole: Path, short: Path) -> None:
    assert ledger.read_file(short).records == ledger.read_file(whole).records == records()
    assert not ledger.read_file(short).problems
    for before, after in zip(contents(whole), contents(short), strict=True):
        assert [before[name] for name in ("key", "digest", "chain")] == [
            after[name] for name in ("key", "digest", "chain")
        ]
    again = [read.to_line() for read in ledger.read_file(short).records]
    assert again == [read.to_line() for read in ledger.read_file(whole).records]


def test_a_line_keeps_its_numbers_its_names_and_the_scalars_of_its_report(short: Path) -> None:
    line = contents(short)[-1]
    assert (line["plugin"], line["method"], line["model"]) == ({"name": "p"}, {"name": "m"}, {"name": "tiny"})
    assert line["report"] == {"steps": 3, "note": "ünï", "is_done": True}
    assert (line["task"]["name"], line["metric"]["name"], line["value"]) == ("t", "acc_norm", 1e-7)
    assert not {"settings", "environment", "tokenizer", "command", "seeds"} & set(line)


def test_each_thing_is_said_once_in_files_named_by_their_content(short: Path) -> None:
    reports, commands = (sorted((short.parent / name).iterdir()) for name in ("reports", "commands"))
    assert (len(reports), len(commands)) == (3, 4), "two metrics of a run name the same files"
    for file in (*reports, *commands):
        assert file.name == f"{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}.json"
    report = short.parent / "reports" / f"{contents(short)[-1]['beside']['reports']}.json"
    assert json.loads(report.read_bytes()) == REPORT | {"loss": [2]}
    assert list(json.loads(report.read_bytes())) == list(REPORT), "in the order the method wrote it"


def test_a_report_of_scalars_stays_in_its_line() -> None:
    line, files = beside.shortened(record(report={"bias": 0.5, "text": "x" * 200}).content())
    assert line["report"] == {"bias": 0.5, "text": "x" * 200}
    assert [name.partition("/")[0] for name in files] == ["commands"]
    line, files = beside.shortened(record(report={"bias": 0.5, "text": "x" * 201}).content())
    assert line["report"] == {"bias": 0.5}
    assert [name.partition("/")[0] for name in files] == ["commands", "reports"]


def test_making_short_again_changes_no_byte(short: Path) -> None:
    before = state(short.parent)
    assert shortening.shorten(short) == []
    assert state(short.parent) == before


def test_what_is_added_to_a_short_ledger_may_be_whole_and_is_made_short_later(short: Path) -> None:
    ledger.append(short, [record(0.9, seed=9)])
    assert len(ledger.read_file(short).records) == 9
    assert len(shortening.shorten(short)) == 1, "the lines that were short stay as they are"
    assert all("beside" in line for line in contents(short))
    assert verify.examine(ledger.read_file(short), short).errors == 0


def test_the_files_of_a_run_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "records_t.jsonl"
    ledger.write(path, records())
    before = state(tmp_path)
    assert shortening.shorten(path) == []
    assert state(tmp_path) == before


def test_a_ledger_with_a_bad_line_is_not_touched(whole: Path) -> None:
    with whole.open("ab") as file:
        file.write(b"broken\n")
    before = state(whole.parent)
    with pytest.raises(HarnessError, match=r"p.jsonl, line 9: .*nothing was moved, `harness leaderboard .* --repair`"):
        shortening.shorten(whole)
    assert state(whole.parent) == before


def test_a_line_without_digest_stays_whole(whole: Path) -> None:
    old = record(0.1, seed=7).content()
    whole.write_text(json.dumps(old) + "\n" + whole.read_text(encoding="utf-8"), encoding="utf-8")
    shortening.shorten(whole)
    assert contents(whole)[0] == old
    assert len(ledger.read_file(whole).records) == 9


def edit_report(path: Path) -> None:
    file = next((path.parent / "reports").iterdir())
    file.write_text(file.read_text(encoding="utf-8").replace('"steps": 3', '"steps": 4'), encoding="utf-8")


def forged(folder: str, text: Callable[[str], str]) -> Callable[[Path], None]:
    """Return what puts another file with its right name in the place of the one that the last line names."""

    def change(path: Path) -> None:
        names = contents(path)[-1]["beside"]
        raw = text((path.parent / folder / f"{names[folder]}.json").read_text(encoding="utf-8")).encode()
        digest = hashlib.sha256(raw).hexdigest()[:16]
        (path.parent / folder / f"{digest}.json").write_bytes(raw)
        replaced(path, -1, beside=names | {folder: digest})

    return change


def line(**changes: Any) -> Callable[[Path], None]:
    return lambda path: replaced(path, -1, **changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: shutil.rmtree(path.parent / "reports"), ".json, where the rest of it stands, is not beside this file"),
        (lambda path: shutil.rmtree(path.parent / "commands"), ".json, where the rest of it stands, is not beside this file"),
        (edit_report, ".json is not what its name says: it was edited or damaged"),
        (forged("reports", lambda text: text.replace('"before": 100', '"before": 10')), "does not give its digest"),
        (forged("commands", lambda text: text.replace("harness eval", "rm -r /")), "does not give its digest"),
        (forged("reports", lambda text: text.replace('"steps": 3', '"steps": 4')), "its report is not what reports/"),
        (forged("commands", lambda text: text.replace('"tiny"', '"huge"')), "its model is not what commands/"),
        (forged("reports", lambda text: text.replace("{", '{"steps": 9, ', 1)), "no JSON object as the harness writes it"),
        (forged("reports", lambda text: text + " "), "no JSON object as the harness writes it"),
        (forged("reports", lambda text: "[1]\n"), "no JSON object as the harness writes it"),
        (forged("reports", lambda text: '{"loss": NaN}\n'), "is no JSON"),
        (forged("reports", lambda text: "[" * 100_000), "is no JSON"),
        (forged("commands", lambda text: text.replace("{", '{"value": 0.99, ', 1)), "holds what no command says"),
        (line(model={"name": "huge"}), "its model is not what commands/"),
        (line(report={"steps": 4}), "its report is not what reports/"),
        (line(environment={"device": "cuda"}), "its environment is not what commands/"),
        (line(value=0.99), "does not give its digest"),
        (line(digest=None), "has no digest that vouches for them"),
        (line(beside={"reports": "../../../etc/passwd"}), "names no files of a ledger"),
        (line(beside={"reports": "0" * 15}), "names no files of a ledger"),
        (line(beside={"reports": 5}), "names no files of a ledger"),
        (line(beside={"elsewhere": "0" * 16}), "names no files of a ledger"),
        (line(beside=["0" * 16]), "names no files of a ledger"),
        (line(beside=None), "does not give its digest"),
    ],
)  # fmt: skip
def test_what_is_missing_damaged_or_forged_is_told_by_line_in_one_sentence(
    change: Callable[[Path], None], said: str, short: Path
) -> None:
    change(short)
    problems = ledger.read_file(short).problems
    assert any(f"{short}, line " in problem and said in problem for problem in problems), problems
    found = [finding for finding in verify.examine(ledger.read(short), short).findings if finding.severity == "error"]
    assert any(said in finding.sentence for finding in found)
    assert all("\n" not in finding.sentence for finding in found)


def test_repair_keeps_short_lines_short(short: Path) -> None:
    with short.open("ab") as file:
        file.write(b"broken\n")
    assert repairing.repair(short).kept == 8
    assert all("beside" in line for line in contents(short))
    assert ledger.read_file(short).records == records()
    assert verify.examine(ledger.read_file(short), short).errors == 0


def test_a_ledger_that_was_made_short_is_what_it_was_and_an_edit_is_not(whole: Path, short: Path) -> None:
    assert verify.removed(whole.parent, short.parent) == []
    assert verify.removed(short.parent, whole.parent) == []
    replaced(short, 3, value=0.99)
    assert [finding.line for finding in verify.removed(whole.parent, short.parent)] == [4]


def test_a_sample_path_that_was_changed_is_seen_beside_lines_that_were_made_short(whole: Path, short: Path) -> None:
    lines = contents(whole)
    moved = lines[2] | {"samples": {"path": "elsewhere", "sha256": "0" * 64, "rows": 1}}
    whole.write_text("".join(json.dumps(one) + "\n" for one in [*lines[:2], moved, *lines[3:]]), encoding="utf-8")
    assert [finding.line for finding in verify.removed(whole.parent, short.parent)] == [3]


def test_the_command_says_what_it_moved_and_when_there_is_nothing_to(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = whole.stat().st_size
    assert main(["leaderboard", str(whole.parent), "--shorten"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{whole}: {before:,} bytes before, {whole.stat().st_size:,} now, ")
    assert out.endswith(" in 7 files beside it\n")
    assert main(["leaderboard", str(whole.parent), "--shorten"]) == 0
    assert capsys.readouterr().out == f"{whole.parent}: no ledger is longer than it has to be\n"
    assert main(["leaderboard", str(whole.parent), "--shorten", "-o", "x.md"]) == 2


def test_a_line_says_its_size_before_it_is_written(tmp_path: Path) -> None:
    line = ShortLine(records()[-1])
    ledger.append(tmp_path / "p.jsonl", [line])
    assert len(line.to_line(chain="0" * 64).encode()) + 1 == (tmp_path / "p.jsonl").stat().st_size


def test_the_published_ledgers_say_things_once() -> None:
    for path in (ROOT / "leaderboards" / "records").glob("*.jsonl"):
        assert all("beside" in line for line in contents(path))
    assert (ROOT / "leaderboards" / "records" / "tool_tokens.jsonl").stat().st_size <= MOST_BYTES
