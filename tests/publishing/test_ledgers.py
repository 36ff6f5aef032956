"""Publishing to a leaderboard: checked, once, whole or completed by the same command."""

from __future__ import annotations

import gzip
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from harness.cli import main
from harness.publishing import ledgers
from harness.publishing.selection import select
from harness.records import ledger
from harness.verifying import verify

ROOT = Path(__file__).parents[2]


@pytest.fixture
def publish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that publishes to ``board`` in this process: status, output, errors."""

    def run(results: Path, *flags: object, board: Path = tmp_path / "board") -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["publish", str(results), "--to", str(board), *map(str, flags)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def _state(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _edit(results: Path, change: Callable[[dict[str, Any]], None], *, task: str = "colours") -> None:
    """Change the method's record of a task, and give it the digest of what it says then."""
    from harness.records.record import Record

    [file] = [path for path in results.glob("stochastok-*/records_*.jsonl") if f"records_{task}" in path.name]
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    fields = {name: value for name, value in content.items() if name not in {"key", "digest"}}
    file.write_text(Record.model_validate(fields).to_line() + "\n", encoding="utf-8")


def test_a_dry_run_shows_everything_and_writes_nothing(results: Path, publish: Any, tmp_path: Path) -> None:
    before = _state(tmp_path)
    status, shown, _ = publish(results, "--dry-run")
    assert status == 0
    assert _state(tmp_path) == before and not (tmp_path / "board").exists()
    status, done, _ = publish(results)
    assert status == 0
    # What it would do is what it does.
    past = {"would write": "wrote", "would append": "appended", "would render": "rendered"}
    for would, did in past.items():
        shown = shown.replace(would, did)
    assert shown == done


def test_the_sizes_a_dry_run_shows_are_those_of_the_files(results: Path, publish: Any, tmp_path: Path) -> None:
    _, shown, _ = publish(results, "--dry-run")
    publish(results)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "board" / "records").rglob("*.jsonl*")}
    for name, size in sizes.items():
        if not name.startswith("."):
            assert f"{name} ({size:,} bytes)" in shown


def test_a_board_of_it_verifies_and_is_in_order(results: Path, publish: Any, tmp_path: Path) -> None:
    assert publish(results)[0] == 0
    board = tmp_path / "board"
    reading = ledger.read(board)
    assert len(reading.records) == 4 and not reading.problems
    assert verify.examine(reading, board).follow == 4
    assert main(["leaderboard", str(board), "--check"]) == 0
    [file] = (board / "records").glob("stochastok-*.jsonl")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert all("chain" in json.loads(line) for line in lines)


def test_what_records_share_lies_beside_the_ledger_once(results: Path, publish: Any, tmp_path: Path) -> None:
    report = {"losses": {"first": 2.5, "last": 1.5}, "steps": 7}
    for task in ("colours", "write_colours"):
        _edit(results, lambda content: content.update(report=report), task=task)
    status, out, _ = publish(results)
    assert status == 0
    records = tmp_path / "board" / "records"
    [report_file] = (records / "reports").iterdir()
    assert json.loads(report_file.read_bytes()) == report
    assert f"wrote {report_file} ({report_file.stat().st_size} bytes)" in out
    [file] = records.glob("stochastok-*.jsonl")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    ours = [line for line in lines if line["method"]["name"] != "baseline"]
    assert [(line["report"], line["beside"]["reports"]) for line in ours] == [({"steps": 7}, report_file.stem)] * 2
    assert {record.digest() for record in ledger.read(records).records} == {
        record.digest() for record in _published_form(results)
    }


def _published_form(results: Path) -> list[Any]:
    return [item.record for item in select(results, allow_partial=False, skip_refused=False, note=lambda _: None).items]


def test_a_board_without_what_its_lines_leave_out_is_not_added_to(results: Path, publish: Any, tmp_path: Path) -> None:
    publish(results)
    shutil.rmtree(tmp_path / "board" / "records" / "commands")
    status, _, err = publish(results)
    assert status == 2 and "where the rest of it stands, is not beside this file" in err


def test_publishing_again_changes_no_byte(results: Path, publish: Any, tmp_path: Path) -> None:
    publish(results)
    before = _state(tmp_path / "board")
    status, out, _ = publish(results)
    assert status == 0 and "4 records are already published" in out
    assert _state(tmp_path / "board") == before


def test_sample_files_are_named_by_content_and_equal_on_every_machine(
    results: Path, publish: Any, tmp_path: Path
) -> None:
    publish(results)
    for path in (tmp_path / "board" / "records" / "samples").iterdir():
        raw = path.read_bytes()
        assert raw[3:8] == bytes(5), "no name and no time in the header"
        assert hashlib.sha256(gzip.decompress(raw)).hexdigest().startswith(path.name.removesuffix(".jsonl.gz"))


def test_the_same_measurement_with_another_content_is_refused_by_its_key(
    results: Path, publish: Any, tmp_path: Path
) -> None:
    publish(results)
    before = _state(tmp_path / "board")
    _edit(results, lambda content: content["cost"].update(evaluate_seconds=99.0))
    key = next(r.key() for r in ledger.read(results).records if r.task.name == "colours" and not r.is_baseline)
    status, _, err = publish(results)
    assert status == 2
    assert f"key {key}" in err and ".jsonl, line" in err
    assert _state(tmp_path / "board") == before
    status, out, err = publish(results, "--skip-refused")
    assert status == 1
    assert "3 records are already published" in out and f"key {key}" in err


def test_an_untouched_model_that_scored_the_same_again_is_no_mistake(results: Path, publish: Any) -> None:
    publish(results)
    for file in results.glob("baseline-*/records_*.jsonl"):
        content = json.loads(file.read_text(encoding="utf-8"))
        content["cost"]["evaluate_seconds"] = 77.0
        from harness.records.record import Record

        fields = {name: value for name, value in content.items() if name not in {"key", "digest"}}
        file.write_text(Record.model_validate(fields).to_line() + "\n", encoding="utf-8")
    status, out, _ = publish(results)
    assert status == 0 and "4 records are already published" in out


def test_an_edited_score_is_refused(results: Path, publish: Any, tmp_path: Path) -> None:
    _edit(results, lambda content: content.update(value=1.0))
    status, _, err = publish(results)
    assert status == 2 and "may not be published, so nothing is" in err
    assert not (tmp_path / "board").exists()


def test_a_record_without_a_score_is_refused(results: Path, publish: Any) -> None:
    _edit(results, lambda content: content.update(status="invalid", value=None, stderr=None))
    status, _, err = publish(results)
    assert status == 2 and "no valid score" in err
    status, out, err = publish(results, "--skip-refused")
    assert status == 1 and "appended 3 records" in out and "no valid score" in err


def test_a_part_of_a_task_is_refused_unless_allowed(results: Path, publish: Any) -> None:
    def cut(content: dict[str, Any]) -> None:
        content["settings"]["limit"] = 6.0
        content["task"]["size"] = 60

    _edit(results, cut)
    status, _, err = publish(results, "--skip-refused")
    assert status == 1 and "6 of 60 documents" in err


def test_a_torn_line_is_told_and_stops_it(results: Path, publish: Any) -> None:
    [file, *_] = results.glob("stochastok-*/records_*.jsonl")
    with file.open("a", encoding="utf-8") as torn:
        torn.write('{"schema_version": 1, "crea')
    status, _, err = publish(results)
    assert status == 2 and f"{file}, line 2" in err


def test_a_damaged_board_is_not_added_to(results: Path, publish: Any, tmp_path: Path) -> None:
    records = tmp_path / "board" / "records"
    records.mkdir(parents=True)
    (records / "old.jsonl").write_text("no record\n", encoding="utf-8")
    status, _, err = publish(results)
    assert status == 2 and f"harness leaderboard {tmp_path / 'board'} --repair" in err
    assert [path.name for path in records.iterdir() if not path.name.startswith(".")] == ["old.jsonl"]


@pytest.mark.parametrize("name", ["../x", "a/b", "CON", "A b", "", "x" * 200, ".hidden"])
def test_a_name_that_is_no_file_is_refused(name: str, results: Path, publish: Any, tmp_path: Path) -> None:
    status, _, err = publish(results, "--name", name)
    assert status == 2 and "is no name for a ledger" in err
    assert not (tmp_path / "board").exists()


def test_a_name_of_one_s_own_is_taken(results: Path, publish: Any, tmp_path: Path) -> None:
    assert publish(results, "--name", "my-board")[0] == 0
    assert (tmp_path / "board" / "records" / "my-board.jsonl").is_file()


def test_what_is_added_later_is_a_ledger_of_its_own(results: Path, publish: Any, tmp_path: Path) -> None:
    """So a submission never changes a file that another one does, and the same records have the same name everywhere."""
    later = tmp_path / "later"
    [run] = results.glob("stochastok-*")
    shutil.move(run, later / run.name)
    for folder in (results, later):
        assert publish(folder)[0] == 0
    names = sorted(path.name for path in (tmp_path / "board" / "records").glob("*.jsonl"))
    assert [name.split("-")[0] for name in names] == ["baseline", "stochastok"]
    assert publish(later, board=tmp_path / "other")[0] == 0
    assert [path.name for path in (tmp_path / "other" / "records").glob("*.jsonl")] == names[1:]


def test_git_is_told_what_to_keep_once(results: Path, publish: Any, tmp_path: Path) -> None:
    """What somebody wrote there stays."""
    board = tmp_path / "board"
    assert publish(results)[0] == 0
    assert ".*.lock\n" in (board / ".gitignore").read_text(encoding="utf-8")
    assert (board / ".gitattributes").read_text(encoding="utf-8") == "* -text\n"
    (board / ".gitignore").write_text("mine\n", encoding="utf-8")
    shutil.rmtree(board / "records")
    assert publish(results)[0] == 0
    assert (board / ".gitignore").read_text(encoding="utf-8") == "mine\n"


def test_a_readme_of_somebody_s_own_is_not_written_over(results: Path, publish: Any, tmp_path: Path) -> None:
    """A board is a folder of its own, not the root of a project."""
    readme = tmp_path / "board" / "README.md"
    readme.parent.mkdir()
    readme.write_text("# My project\n", encoding="utf-8")
    for flags in (("--dry-run",), ()):
        status, _, err = publish(results, *flags)
        assert status == 2 and f"'{readme}' was not rendered by the harness" in err
    assert [path.name for path in readme.parent.iterdir()] == ["README.md"]
    assert main(["leaderboard", str(readme.parent), "--render"]) == 2


def test_an_empty_folder_and_no_folder_are_sentences(publish: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, word in ((tmp_path / "empty", "no records to publish"), (tmp_path / "none", "no such file or folder")):
        status, _, err = publish(folder)
        assert status == 2 and word in err


def test_a_sample_link_out_of_the_results_is_not_followed(results: Path, publish: Any, tmp_path: Path) -> None:
    [sample] = results.glob("stochastok-*/*/samples_colours_*.jsonl")
    shutil.move(sample, tmp_path / "elsewhere.jsonl")
    sample.symlink_to(tmp_path / "elsewhere.jsonl")
    status, _, err = publish(results)
    assert status == 2 and "samples are not here" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told(results: Path, publish: Any, tmp_path: Path) -> None:
    (tmp_path / "board").mkdir(mode=0o500)
    status, _, err = publish(results)
    assert status == 2 and "cannot write" in err


def test_a_file_where_the_board_should_be_is_told(results: Path, publish: Any, tmp_path: Path) -> None:
    (tmp_path / "board").write_text("", encoding="utf-8")
    status, _, err = publish(results)
    assert status == 2 and "cannot write" in err


def test_stopped_before_the_ledger_the_same_command_completes_it(
    results: Path, publish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path, records: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledgers.ledger, "append", stop)
        assert publish(results)[0] == 130
    board = tmp_path / "board" / "records"
    assert list((board / "samples").iterdir()) and not list(board.glob("*.jsonl")), "samples first, the ledger last"
    assert list((board / "commands").iterdir()), "and what its lines leave out"
    assert publish(results)[0] == 0
    assert verify.examine(ledger.read(board), board).follow == 4


def test_killed_anywhere_the_same_command_completes_it(results: Path, tmp_path: Path) -> None:
    publish = [sys.executable, "-m", "harness.cli", "publish", str(results), "--to"]
    whole = tmp_path / "whole"
    subprocess.run([*publish, str(whole)], check=True, capture_output=True)
    for number in range(6):
        board = tmp_path / f"killed-{number}"
        running = subprocess.Popen([*publish, str(board)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            running.wait(0.25 + 0.15 * number)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        subprocess.run([*publish, str(board)], check=True, capture_output=True)
        assert _records(board) == _records(whole)
        assert main(["leaderboard", str(board), "--check"]) == 0


def _records(board: Path) -> list[str]:
    return sorted(record.digest() for record in ledger.read(board).records)


def _publish_quietly(results: Path, board: Path) -> None:
    items = select(results, allow_partial=False, skip_refused=False, note=lambda _: None).items
    ledgers.publish(items, board, name=None, skip_refused=False, dry_run=False)


def test_two_who_publish_at_once_publish_once(results: Path, tmp_path: Path) -> None:
    board = tmp_path / "board"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_publish_quietly, args=(results, board)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(ledger.read(board).records) == 4


def test_secrets_in_records_of_another_tool_go_before_they_are_published(
    results: Path, publish: Any, tmp_path: Path
) -> None:
    secret = "hf" + "_" + "a1b2c3d4e5" * 3
    [sample] = results.glob("stochastok-*/*/samples_write_colours_*.jsonl")
    rows = [json.loads(line) for line in sample.read_text(encoding="utf-8").split("\n") if line]
    answers = [row | {"resps": [[f"it is {secret}"]], "filtered_resps": [f"it is {secret}"]} for row in rows]
    sample.write_text("".join(json.dumps(row) + "\n" for row in answers), encoding="utf-8")

    def plant(content: dict[str, Any]) -> None:
        content["report"]["login"] = secret
        content["report"]["logins"] = {"with": [secret]}
        content["samples"]["sha256"] = hashlib.sha256(sample.read_bytes()).hexdigest()

    _edit(results, plant, task="write_colours")
    status, _, err = publish(results)
    assert status == 0, err
    for path in (tmp_path / "board").rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            assert secret.encode() not in (gzip.decompress(raw) if path.suffix == ".gz" else raw)
    assert secret in sample.read_text(encoding="utf-8"), "the results folder is only read"
    assert verify.examine(ledger.read(tmp_path / "board"), tmp_path / "board").follow == 4
    assert "4 records are already published" in publish(results)[1]


def test_old_records_without_samples_can_be_published(publish: Any, tmp_path: Path) -> None:
    status, _, err = publish(ROOT / "leaderboards" / "records" / "stochastok.jsonl")
    assert status == 0, err
    count = len(ledger.read(ROOT / "leaderboards" / "records" / "stochastok.jsonl").records)
    assert len(ledger.read(tmp_path / "board").records) == count


def test_the_help_shows_every_place_and_examples(harness: Callable[..., CompletedProcess[str]]) -> None:
    shown = harness("publish", "--help").stdout
    for word in ("eee DIR", "card DIR", "hub REPO", "lm-eval DIR", "--dry-run", "examples:", "--track trackio"):
        assert word in shown


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--to", "eee"), "takes one DIR"),
        (("--to", "hub", "a", "b"), "takes one OWNER/NAME"),
        (("--to", "eeee", "out"), "did you mean 'eee'"),
        (("--track", "tensorboard"), "trackio or wandb"),
        (("--track", "trackio", "--to", "eee", "x"), "give one of them"),
        (("--to", "eee", "x", "--relationship", "friend"), "is none of first_party"),
        (("--to", "card", "x", "--source-url", "javascript:alert(1)"), "no web address"),
    ],
)
def test_a_mistake_in_the_command_is_one_sentence(
    flags: tuple[str, ...], word: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(results), *flags]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("harness: ") and word in last
