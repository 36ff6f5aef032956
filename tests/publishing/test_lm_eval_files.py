"""lm-eval's own files come out as its tools expect them, and its loggers take them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.publishing.lm_eval_files import find_runs
from harness.publishing.tracking import _as_in_memory


def test_stock_lm_eval_finds_results_and_samples(results: Path, tmp_path: Path) -> None:
    from lm_eval.utils import (
        get_file_task_name,
        get_latest_filename,
        get_results_filenames,
        get_sample_results_filenames,
    )

    target = tmp_path / "viewer"
    assert main(["publish", str(results), "--to", "lm-eval", str(target)]) == 0
    folders = [folder for folder in target.iterdir() if folder.is_dir()]
    assert len(folders) == 2
    for folder in folders:
        names = [f"/{path.name}" for path in folder.iterdir()]
        latest = get_latest_filename(get_results_filenames(names))
        content = json.loads((folder / latest[1:]).read_text(encoding="utf-8"))
        assert set(content["results"]) == {"colours", "write_colours"}
        assert {get_file_task_name(name) for name in get_sample_results_filenames(names)} == set(content["results"])


def test_without_secrets_the_files_are_those_of_the_run(results: Path, tmp_path: Path) -> None:
    assert main(["publish", str(results), "--to", "lm-eval", str(tmp_path / "viewer")]) == 0
    ours = {path.name: path.read_bytes() for path in results.rglob("samples_*.jsonl")}
    theirs = {path.name: path.read_bytes() for path in (tmp_path / "viewer").rglob("samples_*.jsonl")}
    assert ours == theirs
    for path in (tmp_path / "viewer").rglob("results_*.json"):
        [own] = results.rglob(path.name)
        assert json.loads(own.read_text(encoding="utf-8")) == json.loads(path.read_text(encoding="utf-8"))


def test_what_only_has_their_name_is_passed_over(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Demand: a pipe, a folder or a link to nothing stops no command."""
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    beside = next(copy.rglob("results_*.json"))
    beside.with_name("results_folder.json").mkdir()
    beside.with_name("results_link.json").symlink_to("nowhere")
    os.mkfifo(beside.with_name("results_pipe.json"))
    os.mkfifo(beside.with_name(f"samples_a{beside.stem.removeprefix('results')}.jsonl"))
    assert main(["publish", str(copy), "--to", "lm-eval", str(tmp_path / "viewer")]) == 0
    assert capsys.readouterr().err.count("passed over") == 3
    assert len(list((tmp_path / "viewer").rglob("results_*.json"))) == 2


def test_a_folder_without_them_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(tmp_path), "--to", "lm-eval", str(tmp_path / "out")]) == 2
    assert "no files of lm-eval" in capsys.readouterr().err


def test_rows_for_a_logger_hold_numbers_and_arguments_in_order(results: Path) -> None:
    [run] = [run for run in find_runs(results) if run.run.startswith("baseline")]
    [path] = [path for path in run.samples if "samples_colours" in path.name]
    row = _as_in_memory(next(iter(run.rows(path))))
    assert [arguments[1] for arguments in row["arguments"]] == [" green", " white", " black", " red"]
    assert all(isinstance(number, float) and isinstance(greedy, bool) for number, greedy in row["filtered_resps"])


@pytest.mark.parametrize("tracker", ["trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_told(
    tracker: str, results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["publish", str(results), "--track", tracker]) == 2
    assert f"`pip install {tracker}`" in capsys.readouterr().err.splitlines()[-1]


def test_a_dry_run_of_tracking_needs_no_tracker(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(results), "--track", "wandb", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("and 2 sample files") == 2


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_gets_scores_and_traces(results: Path, tmp_path: Path) -> None:
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HOME": str(tmp_path / "hf")}
    words = ["publish", str(results), "--track", "trackio", "--track_args", "project=colours"]
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("logged 2 runs to trackio\n")
    traces = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "trackio").rglob("*.jsonl"))
    assert "The colour of grass" in traces
