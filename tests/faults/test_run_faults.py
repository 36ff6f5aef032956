"""Runs that are killed, stopped, refused by the disk, or started twice: nothing is lost, and the exit status says what is."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from forked_runs import FORWARD, Ended, ForkedRuns, Started
from killed_runs import METHOD, KilledRuns, by_key, command, content, sample_fault

from harness.records import ledger

SEED = 20_261_127
pytestmark = pytest.mark.xdist_group("runs")


@pytest.fixture(scope="module")
def killed(runs: ForkedRuns, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> KilledRuns:
    return KilledRuns(runs, tmp_path_factory.mktemp("killed"), command(tiny_model, *METHOD))


@pytest.fixture
def here(tmp_path: Path) -> dict[str, Any]:
    """The variables that keep a run's cache in this test's folder."""
    return {"environment": {"HARNESS_CACHE": str(tmp_path / "cache")}}


@pytest.mark.parametrize("number", range(4))
def test_a_killed_run_goes_on_to_the_same_records(number: int, killed: KilledRuns) -> None:
    kill = killed.points(random.Random(SEED), 8)[number * 2 + number // 2]
    aftermath = killed.survive(kill)
    assert aftermath.is_clean, f"seed {SEED}: {aftermath}"


def test_a_run_killed_again_while_it_goes_on_does_so_too(killed: KilledRuns) -> None:
    first, second = killed.points(random.Random(SEED + 1), 4)[::3]
    aftermath = killed.survive(first, second)
    assert aftermath.is_clean, f"seed {SEED + 1}: {aftermath}"


def test_what_was_answered_is_not_asked_again(killed: KilledRuns) -> None:
    passes = killed.whole.counts[FORWARD]
    aftermath = killed.survive((FORWARD, passes))
    assert aftermath.is_clean, aftermath
    assert aftermath.reused >= 12 * 8 * 2, "the answers to two tasks of twelve questions with eight choices were there"
    assert aftermath.repeated < passes / 2


def _signalled(run: Started, number: int, *, until: str) -> Ended:
    end = time.monotonic() + 60
    while until not in run.err and not run.has_ended and time.monotonic() < end:
        time.sleep(0.002)
    run.send(number)
    return run.wait()


@pytest.mark.parametrize(
    ("number", "code", "until"),
    [
        (signal.SIGINT, 130, "loading"),
        (signal.SIGINT, 130, "1 of 3 tasks"),
        (signal.SIGTERM, 143, "evaluating stochastok"),
    ],
)
def test_a_stopped_run_says_so_and_goes_on_when_asked_again(
    number: int,
    code: int,
    until: str,
    runs: ForkedRuns,
    killed: KilledRuns,
    tiny_model: Path,
    tmp_path: Path,
    here: Any,
) -> None:
    words = command(tiny_model, *METHOD)
    stopped = _signalled(runs.start(words, tmp_path, **here), number, until=until)
    assert stopped.code == code, stopped.err
    assert "Traceback" not in stopped.err
    assert stopped.err.splitlines()[-1].startswith("harness: stopped")
    statuses = [
        json.loads(file.read_text(encoding="utf-8"))["status"] for file in (tmp_path / "out").glob("*/run.json")
    ]
    assert set(statuses) <= {"interrupted", "finished"}
    assert until != "1 of 3 tasks" or "interrupted" in statuses
    again = runs.run(words, tmp_path, **here)
    assert again.code == 0, again.err
    assert _equal(tmp_path / "out", killed)


def _equal(out: Path, killed: KilledRuns) -> bool:
    """Return whether the records below ``out`` are those of the run that nobody killed, and whole."""
    reading = ledger.read(out)
    found = by_key(reading.records)
    faults = [
        sample_fault(record, origin.file) for record, origin in zip(reading.records, reading.origins, strict=True)
    ]
    assert (reading.problems, [fault for fault in faults if fault]) == ([], [])
    assert len(found) == len(reading.records)
    return {key: content(found[key]) for key in found} == {key: content(killed.records[key]) for key in killed.records}


def test_status_0_means_that_all_records_are_on_disk_and_valid(killed: KilledRuns) -> None:
    assert killed.whole.code == 0
    assert {record.task.name for record in killed.records.values()} == {
        "choose_sums", "choose_shown_sums", "write_sums", "sums",
    }  # fmt: skip
    assert {record.status for record in killed.records.values()} == {"ok"}


def test_status_1_means_that_a_task_has_no_score_and_the_others_are_on_disk(
    runs: ForkedRuns, tmp_path: Path, here: Any
) -> None:
    model = _deaf_to("§", tmp_path / "deaf")
    ended = runs.run([*command(model), "--tasks", "odd_sums,choose_sums"], tmp_path, **here)
    assert ended.code == 1, ended.err
    assert "odd_sums" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    found = {record.task.name: record for record in ledger.read(tmp_path / "out").records}
    assert (found["choose_sums"].status, found["odd_sums"].status) == ("ok", "invalid")
    assert found["choose_sums"].value is not None
    assert found["odd_sums"].value is None
    assert found["odd_sums"].counts.not_finite > 0
    assert "choose_sums" in ended.out, "the scores that are there are shown"


def _deaf_to(character: str, folder: Path) -> Path:
    """Build a tiny model that gives NaN where it reads ``character``, and nowhere else."""
    import torch
    from tiny_models import build_model, build_tokenizer
    from transformers import AutoModelForCausalLM

    build_model(folder, tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[build_tokenizer().encode(character)] = float("nan")
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "flags",
    [
        ["--limit", "-1"],
        ["--no_such_flag"],
        ["--use_cache", "x"],
        ["--plugin", "no_such_plugin"],
    ],
)
def test_status_2_means_a_mistake_and_comes_before_loading(
    flags: list[str], runs: ForkedRuns, tiny_model: Path, tmp_path: Path, here: Any
) -> None:
    ended = runs.run([*command(tiny_model), *flags], tmp_path, **here)
    assert ended.code == 2, ended.err
    assert len(ended.err.splitlines()) == 1 and ended.err.startswith("harness: ")


def _under_a_file(folder: Path) -> Path:
    (folder / "file").write_text("", encoding="utf-8")
    return folder / "file" / "out"


def _read_only(folder: Path) -> Path:
    (folder / "locked").mkdir(mode=0o500)
    return folder / "locked" / "out"


def _read_only_itself(folder: Path) -> Path:
    (folder / "out").mkdir(mode=0o500)
    return folder / "out"


@pytest.mark.parametrize("make", [_under_a_file, _read_only, _read_only_itself])
def test_a_folder_that_cannot_be_written_is_found_before_the_model_is_loaded(
    make: Any, runs: ForkedRuns, tiny_model: Path, tmp_path: Path, here: Any
) -> None:
    target = make(tmp_path)
    ended = runs.run(command(tiny_model, output=str(target)), tmp_path, is_humble=True, count=True, **here)
    assert ended.code == 2, ended.err
    assert ended.err.startswith(f"harness: cannot write to {target}: ")
    assert len(ended.err.splitlines()) == 1 and ended.counts[FORWARD] == 0


@pytest.mark.parametrize("room", [0, 3_000])
def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    room: int, runs: ForkedRuns, killed: KilledRuns, tiny_model: Path, tmp_path: Path, here: Any
) -> None:
    words = command(tiny_model)
    ended = runs.run(words, tmp_path, limit_files=room, **here)
    assert ended.code in {1, 2}, ended.err
    assert "Traceback" not in ended.err
    assert ended.err.splitlines()[-1].startswith("harness: ")
    reading = ledger.read(tmp_path / "out")
    assert reading.problems == []
    assert not list((tmp_path / "out").rglob("*.partial"))
    if killed.whole.counts[FORWARD] == 0 or "evaluating" in ended.err:
        assert "│ choose" in ended.out, "the score died with the disk"
    assert runs.run(words, tmp_path, **here).code == 0
    found = {key: record.value for key, record in by_key(ledger.read(tmp_path / "out").records).items()}
    assert found == {key: record.value for key, record in killed.records.items() if record.is_baseline}


@pytest.mark.parametrize(("name", "share"), [("os.fsync", 0.3), ("os.fsync", 1.0), ("os.replace", 0.6)])
def test_a_call_that_fails_is_told_and_the_same_command_goes_on(
    name: str, share: float, runs: ForkedRuns, killed: KilledRuns, tmp_path: Path, tiny_model: Path, here: Any
) -> None:
    words = command(tiny_model, *METHOD)
    k = max(1, round(killed.whole.counts[name] * share))
    settings = {"settings": {"harness.run.journal:FLUSH_SECONDS": 0}}
    ended = runs.run(words, tmp_path, fail_at=[name, k, errno.ENOSPC, True], **here, **settings)
    assert "Traceback" not in ended.err
    assert ended.code in {0, 1, 2}, ended.err
    if ended.code == 0:
        assert _equal(tmp_path / "out", killed), "status 0, but not all records are on disk"
    assert ledger.read(tmp_path / "out").problems == []
    assert runs.run(words, tmp_path, **here, **settings).code == 0
    assert _equal(tmp_path / "out", killed)


def test_a_run_started_twice_leaves_each_record_once(
    runs: ForkedRuns, killed: KilledRuns, tiny_model: Path, tmp_path: Path, here: Any
) -> None:
    words = command(tiny_model, *METHOD)
    both = [runs.start(words, tmp_path, **here) for _ in range(2)]
    ended = [run.wait() for run in both]
    assert [run.code for run in ended] == [0, 0], ended
    assert _equal(tmp_path / "out", killed)


def test_times_are_universal_whatever_the_local_time(
    runs: ForkedRuns, tiny_model: Path, tmp_path: Path, here: Any
) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    here["environment"]["TZ"] = "XXX-14"  # fourteen hours ahead
    assert runs.run([*command(tiny_model), "--tasks", "write_sums"], tmp_path, **here).code == 0
    for record in ledger.read(tmp_path / "out").records:
        assert record.created.endswith("Z")
        assert before <= datetime.fromisoformat(record.created) <= datetime.now(UTC)


def test_a_clock_that_goes_back_leaves_the_later_run(
    runs: ForkedRuns, tiny_model: Path, tmp_path: Path, here: Any
) -> None:
    words = [*command(tiny_model), "--tasks", "write_sums"]
    for year in (2100, 1970):
        ended = runs.run(words, tmp_path, year=year, **here)
        assert ended.code == 0, ended.err
        reading = ledger.read(tmp_path / "out")
        [record], [origin] = reading.records, reading.origins
        assert record.created.startswith(str(year))
        assert sample_fault(record, origin.file) is None
        assert record.cost.evaluate_seconds >= 0
    assert len(list((tmp_path / "out").rglob("samples_*"))) == 1
    assert os.listdir(tmp_path / "out")
