"""Reading numbers out of answers, judging answers and calls, and the rule by which GSM8K-XL grew."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest
from published_rows import ceiling, defects, enlarge

from harness import HarnessError
from harness.tasks import numbers
from harness_tool_tokens.tasks import data, enlarging
from harness_tool_tokens.tools import data_folder, pairing

TOOLS = ("add", "divide", "power", "sqrt")
ENLARGED: dict[str, Any] = {
    "question": "A shed holds 27 crates of 3.38 kg, 27/64 of them red, 20% wet, and 1 cat. How heavy are the crates?",
    "answer": 91.26,
    "values": [3.0, 1.5, "3/4", 20.0, 1.0],
    "enhanced_values": [27, 3.38, "27/64", 20, 1],
    "template_question": (
        "A shed holds {v_1} crates of {v_2} kg, {v_3} of them red, {v_4}% wet, and {v_5} cat. How heavy are the crates?"
    ),
    "process": ["27*3.38 = 91.26"],
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**ENLARGED, **changes}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It is 1,234.50 dollars.", "1234.50"),
        ("12 and then 7", "7"),
        ("so x=-5", "-5"),
        ("\u22125 degrees", "-5"),
        ("8-5", "5"),
        ("8 - 5", "5"),
        ("(8)-5", "5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("\\$ 5", "5"),
        ("--4.08", "4.08"),
        ("(-1,234,567.891)", "-1234567.891"),
        ("5%.", "5"),
        ("5.", "5"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("a list 1,234,56", "56"),
        ("a list -1,23", "23"),
        ("67,29", "29"),
        ("0,123", "123"),
        ("2.6e+15", "2.6e+15"),
        ("43.5 cm^2", "43.5"),
        ("12 m2 of H2O", "12"),
        ("答案是5", "5"),
        ("nothing", None),
        ("H2O", None),
        ("- $ . , %", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text_is_read_as_people_write_numbers(text: str, number: str | None) -> None:
    assert numbers.read_number(text) == number


def test_the_number_after_the_last_marker_counts_and_without_a_marker_none() -> None:
    assert numbers.number_after_marker("1 #### 2 ####  -3 boxes in 4 days") == "-3"
    assert numbers.number_after_marker("one\ntwo\n#### 1,000") == "1000"
    assert numbers.number_after_marker("the answer is 7") is None
    assert numbers.number_after_marker("7 ####") is None


def test_hostile_text_is_read_without_an_exception_and_what_is_read_is_a_number() -> None:
    draws = random.Random(0)
    alphabet = "0123456789.,,..--\u2212\u2013$%eE+^_()#aé\u0663\uff15 \n\t\x00\ud800"
    for _ in range(10_000):
        text = "".join(draws.choices(alphabet, k=draws.randrange(30)))
        for number in (numbers.read_number(text), numbers.number_after_marker(text)):
            assert number is None or float(number) == float(number)
        assert set(numbers.score_number(text, text).values()) <= {0.0, 1.0}


@pytest.mark.parametrize("piece", ["1,234,", "9", "-", "1,", "1.", "1e", "m2", "- $", "#### ", "."])
def test_a_million_characters_are_read_in_a_few_seconds(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    start = time.perf_counter()
    numbers.read_number(text)
    numbers.number_after_marker(text)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("gold", "prediction", "within", "rounded"),
    [
        (43.5694625, "43.57", 1, 1),
        (0.3936, "0.39", 0, 1),
        (1000, "1001", 1, 0),
        (1000, "1001.01", 0, 0),
        (-3.4881, "-3.49", 1, 1),
        (-3.4881, "3.4881", 0, 0),
        ("1,556,750.9", "so 1556750.9 dollars", 1, 1),
        (0, "0.001", 0, 1),
        (0.0, "-0", 1, 1),
        (0.125, "0.12", 0, 1),  # Python rounds a half to the even digit, and so does the executor
        (2.6e15, "2600000000000000", 1, 1),
        (1e300, "1e999", 0, 0),
        (5, None, 0, 0),
        (5, "five", 0, 0),
        (0, "none", 0, 0),
        (None, "5", 0, 0),
        (float("nan"), "5", 0, 0),
        (float("inf"), "5", 0, 0),
    ],
)
def test_both_rules_judge_as_computed_by_hand(gold: Any, prediction: Any, within: int, rounded: int) -> None:
    assert numbers.score_number(gold, prediction) == {"within_0_1_percent": within, "two_decimals": rounded}


def test_numbers_of_thousands_of_digits_are_judged_exactly() -> None:
    close = "1" + "0" * 3 + "1" + "0" * 4996
    assert numbers.score_number(10**5000, close) == {"within_0_1_percent": 1, "two_decimals": 0}
    assert numbers.score_number(10**5000, "1" + "0" * 5000) == {"within_0_1_percent": 1, "two_decimals": 1}
    assert (
        numbers.score_number(10**5000, "7")
        == numbers.score_number(7, close)
        == {"within_0_1_percent": 0, "two_decimals": 0}
    )


def test_numbers_are_written_out_without_exponents() -> None:
    written = [numbers.plain(number) for number in (32040.0, 1e-05, 1e22, "-0.50", 100, 0.0)]
    assert written == ["32040", "0.00001", "10000000000000000000000", "-0.5", "100", "0"]


def gold(*tools: str) -> list[dict[str, str]]:
    return [{"tool": tool, "args": "1, 2", "result": "3"} for tool in tools]


def trace(*tools: str, errors: int = 0) -> list[dict[str, Any]]:
    """Return a trace of these calls, the first ``errors`` of which failed."""
    return [{"tool": tool, "error": "syntax" if place < errors else None} for place, tool in enumerate(tools)]


@pytest.mark.parametrize(
    ("right_calls", "made", "counts"),
    [
        (gold(), trace(), "0 0 0 0 0 0"),
        (gold("add"), trace("add"), "1 1 0 0 0 0"),
        (gold("add"), trace(), "0 0 0 1 0 0"),
        (gold(), trace("add"), "1 0 0 0 1 0"),
        (gold("add"), trace("sqrt"), "1 0 1 0 0 0"),
        (gold("add", "sqrt"), trace("sqrt"), "1 1 0 1 0 0"),
        (gold("add", "sqrt"), trace("power", "sqrt"), "2 1 1 0 0 0"),
        (gold("add", "sqrt"), trace("sqrt", "add"), "2 1 0 1 1 0"),
        (gold("add", "add"), trace("add", "power", "add"), "3 2 0 0 1 0"),
        (gold("divide"), trace("divide", "divide", errors=1), "2 1 0 0 1 1"),
    ],
)
def test_calls_are_counted_as_by_hand(right_calls: list[Any], made: list[Any], counts: str) -> None:
    names = ("calls", "right", "wrong", "missed", "false", "errors")
    assert pairing.call_counts(right_calls, made) == dict(zip(names, map(float, counts.split()), strict=True))


def test_counts_of_calls_add_up_and_right_ones_are_the_longest_common_subsequence() -> None:
    draws = random.Random(1)
    for _ in range(300):
        due, made = (draws.choices(TOOLS, k=draws.randrange(6)) for _ in range(2))
        counts = pairing.call_counts(gold(*due), trace(*made))
        assert counts["calls"] == len(made) == counts["right"] + counts["wrong"] + counts["false"]
        assert len(due) == counts["right"] + counts["wrong"] + counts["missed"]
        assert counts["right"] == longest_common(due, made)


def longest_common(first: list[str], second: list[str]) -> int:
    """Return the length of the longest common subsequence, by trying all of them."""
    if not first or not second:
        return 0
    if first[0] == second[0]:
        return 1 + longest_common(first[1:], second[1:])
    return max(longest_common(first[1:], second), longest_common(first, second[1:]))


def test_the_ceiling_counts_what_the_last_gold_call_reaches() -> None:
    rows: list[dict[str, Any]] = [
        {"answer": 5, "calls": [{"tool": "add", "args": "2, 3", "result": "5"}]},
        {"answer": "0.3936", "calls": [{"tool": "power", "args": "0.89, 8", "result": "0.3936"}]},
        {"answer": 0.301, "calls": [{"before": "-", "tool": "log", "args": "0.5", "result": "0.301"}]},
        {"answer": 7, "calls": [{"tool": "divide", "args": "7, 0", "result": "7"}]},
        {"answer": 7, "calls": []},
    ]
    assert ceiling(rows) == {"docs": 5, "within_0_1_percent": 1, "two_decimals": 3}
    assert ceiling(rows, rounding="exact") == {"docs": 5, "within_0_1_percent": 3, "two_decimals": 3}


@pytest.mark.parametrize(
    ("value", "larger"),
    [(3.0, 27), (60.0, 216000), (1.5, 3.38), (0.2, 0.01), ("3/4", "27/64"), ("1/2", "1/8"), (0.0, 0), (1.0, 1)],
)
def test_numbers_grow_by_the_published_rule(value: float | str, larger: float | str) -> None:
    """Acceptance property 13: the rule itself."""
    assert enlarge(value) == larger
    assert enlarge(value, is_percent=True) == value


def test_a_value_that_is_no_number_has_no_rule() -> None:
    with pytest.raises(HarnessError, match="'electric' is no fraction"):
        enlarge("electric")


def test_a_sound_row_has_no_defect_and_every_kind_of_defect_is_found() -> None:
    """Acceptance property 13: values, slots, steps and answer, each broken in turn."""
    assert defects(ENLARGED) == []
    grown = changed(enhanced_values=[27, 3.38, "27/64", 8000, 1])
    assert defects(grown) == [
        "value 4, 20.0, became 8000",
        "the question is not its template with the enlarged values",
    ]
    assert "3 values became 5" in defects(changed(values=[1.0, 2.0, 3.0]))
    assert "slot {v_1} is open" in defects(changed(question=ENLARGED["template_question"]))
    assert defects(changed(process=["27*3.38 = 91.3"], answer=91.3)) == ["step 27*3.38 = 91.3 gives 91.26"]
    assert defects(changed(answer=92)) == ["the answer 92 is not the result of the last step"]


def test_calculation_steps_become_calls_of_one_kind_each() -> None:
    steps = ["4096-27-64 = 4005.0", "30/100*8.0 = 2.4", "2+3*(4-1) = 11", "4 = 4.0", "8-(4-1) = 5"]
    assert [(call["tool"], call["args"], call["result"]) for call in enlarging.calls_of(steps)] == [
        ("subtract", "4096, 27, 64", "4005"),
        ("divide", "30, 100", "0.3"),
        ("multiply", "0.3, 8", "2.4"),
        ("subtract", "4, 1", "3"),
        ("multiply", "3, 3", "9"),
        ("add", "2, 9", "11"),
        ("subtract", "4, 1", "3"),
        ("subtract", "8, 3", "5"),
    ]


@pytest.mark.parametrize(
    "step", ["__import__('os') = 1", "2**9 = 512", "a+1 = 2", "1+ = 2", "1+1", "1/0 = 1", "(" * 300]
)
def test_a_step_that_is_no_arithmetic_is_refused_and_runs_nothing(step: str) -> None:
    with pytest.raises(HarnessError, match=r"calculation step"):
        enlarging.calls_of([step])


@pytest.mark.slow
def test_the_published_rows_follow_the_rule_but_the_one_with_open_slots() -> None:
    """Acceptance property 13, on the folder that HARNESS_TOOL_DATA names."""
    assert os.environ.get(data_folder.VARIABLE), (
        f"this test reads the published rows: set {data_folder.VARIABLE} to their folder"
    )
    found = {row["id"]: defects(row) for row in data.gsm8k_xl()}
    assert {name for name, wrong in found.items() if wrong} <= {"gsm8k-xl-426"}
    assert len(found) > 300
    assert all(enlarging.calls_of(row["process"]) for row in data.gsm8k_xl())
