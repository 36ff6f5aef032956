"""The table at the end of a run: each difference to the baseline, and why there is none or a marked one."""

from __future__ import annotations

from typing import Any

import pytest
from board_records import baseline, record

from harness.run.summary import print_summary


def printed(capsys: pytest.CaptureFixture[str], *others: Any, **more: Any) -> tuple[str, str]:
    """Return the last cell of the row of the method, and what stands below the table."""
    print_summary([record(0.5, **more)], others)
    out = capsys.readouterr().out
    table, _, below = out.rpartition("┘")
    [row] = [line for line in table.splitlines() if "│ t " in line]
    return row.strip("│").split("│")[-1].strip(), " ".join(below.split())


def test_a_method_that_changes_the_prefix_token_is_shown_marked_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    mine: dict[str, Any] = {"tokenizer": {"digest": "d", "vocabulary": 49153, "prefix_token_id": 49152}}
    theirs: dict[str, Any] = {"tokenizer": {"digest": "d", "vocabulary": 49152, "prefix_token_id": 1}}
    cell, below = printed(capsys, baseline(0.75, **theirs), **mine)
    assert cell == "-0.2500 ‡"
    assert "‡ m changed the prefix token, 1 → 49152: " in below and "--across prefix_token (t)" in below


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"model": {"quantization": "nf4"}}, "another setting: the model's quantization, nf4 → none"),
        ({"settings": {"num_fewshot": 5}}, "another setting: the num fewshot, 5 → none"),
    ],
)
def test_a_baseline_with_another_setting_gives_no_number(
    theirs: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cell, below = printed(capsys, baseline(0.75, **theirs))
    assert cell == "" and said in below


def test_without_a_baseline_the_flag_that_makes_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, baseline(0.75, task={"name": "other"}))[0] == ""
    _, below = printed(capsys)
    assert "no record of the untouched model; --with_baseline asks it first (t)" in below


def test_a_difference_that_is_one_is_not_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, baseline(0.75)) == ("-0.2500", "")
