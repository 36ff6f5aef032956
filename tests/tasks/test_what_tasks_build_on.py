"""What tasks may build on without tools: arithmetic in texts, alignments, numbers judged, calls as they are written."""

from __future__ import annotations

import pytest

from harness.isolation.process import Failure
from harness.tasks.alignment import pairing
from harness.tasks.calculating import number_text, power
from harness.tasks.expressions import compute, read_arguments
from harness.tasks.numbers import score_number
from harness.tasks.written_calls import closing_bracket, split_arguments


def test_expressions_are_read_and_computed_and_run_no_code() -> None:
    assert [compute(one) for one in read_arguments("1,200, (3+4)*2, -2^2, 50%")] == [1200, 14, -4, 0.5]
    for text in ("__import__('os')", "1 +", "2**9**9**9"):
        with pytest.raises(Failure):
            [compute(one) for one in read_arguments(text)]


def test_sizes_are_checked_before_they_are_computed_and_results_written_plainly() -> None:
    with pytest.raises(Failure, match="too_large"):
        power(10, 10**9)
    assert [number_text(value) for value in (10**20, 1 / 7, -0.0, 0.0014286)] == [str(10**20), "0.14", "0", "0.0014"]
    assert number_text(1 / 7, "exact") == "0.142857142857"


def test_what_was_found_meets_what_was_due_in_order() -> None:
    assert pairing("abcd", "bxd") == [(1, 0), (2, 1), (3, 2)]
    assert pairing("", "ab") == [] == pairing("ab", "")


def test_numbers_are_judged_by_both_rules() -> None:
    assert score_number("1000", "about 1,000.9") == {"within_0_1_percent": 1.0, "two_decimals": 0.0}
    assert score_number(0.001, "0") == {"within_0_1_percent": 0.0, "two_decimals": 1.0}


def test_calls_end_at_their_own_bracket_and_split_outside_quotes() -> None:
    assert closing_bracket("2, (3+4))=14") == 8 and closing_bracket("2, 3") is None
    assert split_arguments("'a, b', f(1, 2), O'Brien") == ["a, b", "f(1, 2)", "O'Brien"]
