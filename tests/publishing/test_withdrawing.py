"""Published records taken back: they stay where they are, count nowhere, and the reason is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.records import ledger
from harness.records.record import Record
from harness.verifying import checking


@pytest.fixture
def board(results: Path, tmp_path: Path) -> Path:
    """A board with the method and its baseline on two tasks."""
    folder = tmp_path / "board"
    assert main(["publish", str(results), "--to", str(folder)]) == 0
    return folder


def _run(board: Path) -> str:
    return next(str(record.run) for record in ledger.read(board).records if not record.is_baseline)


def test_a_withdrawn_run_counts_nowhere_and_the_reason_is_shown(
    board: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No line of a ledger changes, the board and its check go on, and the same records are not published again."""
    [file] = ledger.record_files(board / "records")
    before, run = file.read_bytes(), _run(board)
    capsys.readouterr()
    assert main(["leaderboard", str(board), "--withdraw", run, "--reason", "trained on test data"]) == 0
    assert f"withdrew 2 records of {run}: " in capsys.readouterr().out
    assert file.read_bytes() == before
    assert all(record.is_baseline for record in ledger.read(board).records)
    assert main(["leaderboard", str(board)]) == 0
    shown = capsys.readouterr()
    assert "2 records withdrawn: trained on test data" in shown.out and "| stochastok |" not in shown.out
    assert "left out 2 records that were withdrawn: trained on test data" in shown.err
    assert main(["leaderboard", str(board), "--check"]) == 0
    assert main(["publish", str(results), "--to", str(board)]) == 2
    assert "was withdrawn: trained on test data" in capsys.readouterr().err
    assert main(["publish", str(results), "--to", str(board), "--skip-refused"]) == 1
    assert "2 records are already published" in capsys.readouterr().out
    assert len(ledger.read(board).withdrawn) == 2


def test_the_measurement_may_be_published_again_with_another_result(board: Path, results: Path) -> None:
    """A withdrawn record holds no key."""
    run = _run(board)
    assert main(["leaderboard", str(board), "--withdraw", run, "--reason", "a bug"]) == 0
    for file in results.glob("stochastok-*/records_*.jsonl"):
        content = json.loads(file.read_text(encoding="utf-8"))
        content["cost"]["evaluate_seconds"] = 9.0
        fields = {name: value for name, value in content.items() if name not in {"key", "digest"}}
        file.write_text(Record.model_validate(fields).to_line() + "\n", encoding="utf-8")
    assert main(["publish", str(results), "--to", str(board)]) == 0
    assert len(ledger.read(board).records) == 4
    assert checking.check(board).problems == []


def test_without_its_file_a_withdrawal_is_taken_back(board: Path) -> None:
    """And a file that was edited is a problem instead of a withdrawal."""
    assert main(["leaderboard", str(board), "--withdraw", _run(board), "--reason", "x"]) == 0
    [file] = (board / "records" / "withdrawn").iterdir()
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"reason": "y"}), encoding="utf-8")
    assert any("no withdrawal: " in problem for problem in ledger.read(board).problems)
    file.unlink()
    assert len(ledger.read(board).records) == 4


def test_lines_of_withdrawn_records_may_go_and_their_samples_too(board: Path, tmp_path: Path) -> None:
    """What must not be shown is withdrawn first; then nobody misses its line, and a request may take it out."""
    before = shutil.copytree(board, tmp_path / "before")
    run = _run(board)
    assert main(["leaderboard", str(board), "--withdraw", run, "--reason", "private data"]) == 0
    reading = ledger.read(board)
    kept = {record.samples.path for record in reading.records if record.samples}
    withdrawn = {one.record.samples.path for one in reading.withdrawn if one.record.samples} - kept
    assert withdrawn
    for name in withdrawn:
        (board / "records" / name).unlink()
    checked = checking.check(board, before)
    assert checked.problems == []
    assert "2 records withdrawn: private data" in checked.warnings
    [file] = ledger.record_files(board / "records")
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    gone = {one.origin.line for one in ledger.read(board).withdrawn}
    file.write_text("".join(line for n, line in enumerate(lines, start=1) if n not in gone), encoding="utf-8")
    assert main(["leaderboard", str(board), "--repair", "--renew-chain"]) == 0
    assert checking.check(board, before).problems == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--withdraw", "stochastok-0", "--reason", "x"], "the board has no run, key or ledger 'stochastok-0'"),
        (["--withdraw", "stochastok-0"], "a withdrawal needs a reason"),
        (["--reason", "x"], "--reason goes with --withdraw"),
        (["--since", "x"], "--since goes with --check"),
        (["--check", "--since", "nowhere"], "--since 'nowhere' is no folder"),
        (["--check", "--renew-chain"], "--renew-chain goes with --repair"),
    ],
)
def test_a_mistake_in_the_command_is_one_sentence(
    flags: list[str], said: str, board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is written."""
    capsys.readouterr()
    assert main(["leaderboard", str(board), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (board / "records" / "withdrawn").exists()


def test_a_run_that_is_withdrawn_already_is_told(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason it was given then."""
    run = _run(board)
    assert main(["leaderboard", str(board), "--withdraw", run, "--reason", "first"]) == 0
    assert main(["leaderboard", str(board), "--withdraw", run, "--reason", "second"]) == 2
    assert f"'{run}' is withdrawn already: first" in capsys.readouterr().err
