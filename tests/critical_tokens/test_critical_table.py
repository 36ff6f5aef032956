"""The table of what runs of ``score`` found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness_critical_tokens.__main__ import main
from harness_critical_tokens.identification_table import COLUMNS, RANKINGS


def a_run(folder: Path, hit: float, **more: Any) -> Path:
    figures = dict.fromkeys(COLUMNS, 0.5) | {"hit_at_1": hit}
    each = figures | {"by_kind": {"carry": figures | {"responses": 2}}}
    (folder / "artefacts").mkdir(parents=True)
    found = {"responses": 4} | dict.fromkeys(RANKINGS, each)
    (folder / "artefacts" / "report.json").write_text(json.dumps({"identification": found} | more), encoding="utf-8")
    return folder


def test_a_table_has_the_mean_of_runs_and_their_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [a_run(tmp_path / "0", 0.25), a_run(tmp_path / "1", 0.75) / "artefacts"]
    assert main(["table", *map(str, folders)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "2 runs of 4 responses, mean over runs (least-most); ties share their mean rank."
    assert printed[4].startswith("| contrastive | 0.50 (0.25-0.75) | 0.50 (0.50-0.50) |")
    assert [line.split(" | ")[0] for line in printed[4:]] == [f"| {ranking}" for ranking in RANKINGS]


def test_a_table_by_kind_has_a_row_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(a_run(tmp_path / "0", 0.25)), "--by", "kind"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| carry |" + " 0.25 |" * len(RANKINGS)


@pytest.mark.parametrize(
    ("made", "arguments", "sentence"),
    [
        (False, [], "has no report.json; name folders of runs of score, or their artefacts/"),
        (True, ["--by", "style"], "have no style; --by takes one of kind, style"),
    ],
)
def test_runs_that_give_no_table_are_refused(
    tmp_path: Path, made: bool, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_run(tmp_path / "0", 0.25) if made else tmp_path
    assert main(["table", str(folder), *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_run_without_known_errors_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(a_run(tmp_path / "0", 0.25, identification=None))]) == 2
    assert "says nothing of known errors; score pairs that have first_wrong_char" in capsys.readouterr().err
