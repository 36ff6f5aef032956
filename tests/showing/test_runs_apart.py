"""A folder of several runs: nothing that differs is hidden, and each can be asked for."""

from __future__ import annotations

import json

import pytest
from board_records import baseline, record, write
from rich.console import Console

from harness.cli import main
from harness.showing import listing


@pytest.fixture
def results(tmp_path):
    """Two models, an adapter, two quantisations, two options: six runs."""
    adapter = {"settings": {"model_args": {"peft": "mine"}}}
    made = {
        "a": baseline(0.25),
        "b": record(0.5, options={"steps": 10, "rate": 1.0, "same": 1}),
        "c": record(0.6, options={"steps": 20, "rate": 2.0, "same": 1}),
        "d": baseline(0.3, model={"name": "other", "revision": "r1"}),
        "e": baseline(0.35, **adapter),
        "f": baseline(0.4, model={"quantization": "nf4"}),
    }
    for name, one in made.items():
        write(tmp_path / "results" / name / "records_t.jsonl", [one.model_copy(update={"run": f"run-{name}"})])
    return tmp_path / "results"


def test_the_list_of_runs_says_in_what_they_differ(results, capsys) -> None:
    """Options that tell apart, adapter, revision and quantisation, the score of each, and names that --run takes whole."""
    assert main(["show", str(results)]) == 0
    out = capsys.readouterr().out
    for said in ("(steps=10)", "(steps=20)", "other, revision r1", "adapter mine", "nf4 (float32)", "0.600", "run-a"):
        assert said in out, said
    assert "rate=" not in out and "same=" not in out
    assert "Rows of p:m also differ in rate (1.0 at steps=10, 2.0 at steps=20)." in out


def test_runs_as_json_have_options_scores_and_costs(results, capsys) -> None:
    assert main(["show", str(results), "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in runs] == [f"run-{name}" for name in "abcdef"]
    assert runs[1]["options"] == {"steps": 10, "rate": 1.0, "same": 1} and runs[1]["seconds"] == 3.0
    assert [score["value"] for score in runs[2]["scores"]] == [0.6] and runs[5]["weights"] == "nf4 (float32)"


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (["--model", "adapter"], "e"),
        (["--model", "other"], "d"),
        (["--quantization", "nf4"], "f"),
        (["--quantization", "none", "--method", "m"], "bc"),
        (["--method", "baseline", "--model", "tiny"], "aef"),
        (["--run", "run-c"], "c"),
    ],
)
def test_filters_choose_runs(results, filters, left, capsys) -> None:
    assert main(["show", str(results), "--json", *filters]) == 0
    assert [run["run"] for run in json.loads(capsys.readouterr().out)] == [f"run-{name}" for name in left]


def test_a_filter_that_fits_no_run_says_what_there_is(results, capsys) -> None:
    assert main(["show", str(results), "--model", "big"]) == 2
    assert "no run has model 'big'; there is other, revision r1, tiny, tiny, adapter mine" in capsys.readouterr().err
    assert main(["show", str(results), "--quantization", "nf"]) == 2
    assert "no run has quantization 'nf'; there is nf4, none" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_the_list_fits_the_terminal_however_long_options_are(results, width, monkeypatch, capsys) -> None:
    """No line is wider than the terminal and nothing is cut: what is long goes on in the next line."""
    long = "/a/very/long/path/without/any/blank/in/it/" * 4
    for name, one in {"g": {"file": long}, "h": {"file": long + "2"}}.items():
        made = record(0.7, options=one, model={"name": "a-model-with-a-name-of-some-length"})
        write(
            results / name / "records_t.jsonl", [made.model_copy(update={"run": f"run-with-a-name-{name}-0123456789"})]
        )
    made = Console(width=width)
    monkeypatch.setattr(listing, "console", lambda: made)
    assert main(["show", str(results)]) == 0
    made.file.flush()
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "run-with-a-name-g-0123456789" in out and "run-a" in out
    assert "".join(out.split()).count("without") > 0
    assert "…" not in out


def test_settings_that_differ_are_told_and_what_all_share_is_said_once(tmp_path, capsys) -> None:
    for name, limit in (("a", None), ("b", 20.0)):
        one = baseline(0.5, settings={"limit": limit, "num_fewshot": 2}).model_copy(update={"run": f"run-{name}"})
        write(tmp_path / name / "records_t.jsonl", [one])
    assert main(["show", str(tmp_path)]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("all: tiny, seed 0, 2026-01-01")
    assert "limit=20.0" in "".join(rest) and "num_fewshot" not in "".join(rest)


def test_a_task_chooses_runs_and_the_score_that_is_listed(results, capsys) -> None:
    for name in ("x", "y"):
        one = record(0.9, options={"n": name}, task={"name": "u"}).model_copy(update={"run": f"run-{name}"})
        write(results / name / "records_u.jsonl", [one])
    assert main(["show", str(results), "--task", "u"]) == 0
    out = capsys.readouterr().out
    assert "run-x" in out and "run-y" in out and "u 0.900" in out and "run-a" not in out
    assert main(["show", str(results), "--task", "v"]) == 2
    assert "no run was asked task 'v'; there is t, u" in capsys.readouterr().err
