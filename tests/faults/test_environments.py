"""Languages, encodings, time zones, clocks: the same records are the same bytes, in the same order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_records import made, number_of
from rendered_bytes import digests, make_languages

from harness.cli import main
from harness.records import ledger


def test_six_languages_and_time_zones_give_identical_bytes(tmp_path: Path) -> None:
    make_languages(tmp_path)
    printed = digests(tmp_path)
    assert len(printed) == 6
    assert [len(text) for text in printed.values()] == [64] * 6, printed
    assert len(set(printed.values())) == 1, printed


TIMES = st.sampled_from(
    [
        "1970-01-01T00:00:00Z",
        "2100-01-01T00:00:00Z",
        "2026-10-25T00:59:59Z",
        "2026-10-25T01:00:00Z",
        "2026-01-01T00:00:00Z",
    ]
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TIMES, min_size=2, max_size=6))
def test_records_stay_in_the_order_of_appending_whatever_the_clock_says(tmp_path: Path, times: list[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.unlink(missing_ok=True)
    for number, time in enumerate(times):
        ledger.append(path, [made(number, created=time)])
    assert [number_of(record) for record in ledger.read_file(path).records] == list(range(len(times)))


def test_the_key_of_a_record_does_not_depend_on_the_clock() -> None:
    assert made(0, created="1970-01-01T00:00:00Z").key() == made(0, created="2100-01-01T00:00:00Z").key()


@pytest.mark.parametrize("times", [("2100-01-01T00:00:00Z", "1970-01-01T00:00:00Z"), ("2026-01-01T00:00:00Z",) * 2])
def test_of_one_measurement_repeated_the_board_shows_what_was_appended_last(
    times: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    for value, time in zip((0.25, 0.75), times, strict=True):
        ledger.append(path, [made(0, created=time, value=value)])
    assert main(["leaderboard", str(path)]) == 0
    page = capsys.readouterr().out
    assert "0.7500" in page and "0.2500" not in page
