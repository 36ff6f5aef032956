"""Reading argument texts, computing, and writing results: against Python's own arithmetic, and against hostile texts."""

from __future__ import annotations

import inspect
import json
import math
import operator
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.tasks.calculating import MOST_BITS, number_text
from harness.tasks.expressions import compute, read_arguments
from harness_tool_tokens.tools.arguments import ERRORS, Outcome, arity_bounds, evaluate
from harness_tool_tokens.tools.arithmetic import ARITHMETIC
from harness_tool_tokens.tools.operations import OPERATIONS

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?")
WRITTEN = [
    *["add", "subtract", "multiply", "divide", "power", "sqrt", "log", "ln"],
    *["lcm", "gcd", "remainder", "choose", "permutate"],
]


def value_of(text: str) -> int | float:
    """Return the value of a text with one argument."""
    (expression,) = read_arguments(text)
    return compute(expression)


def is_well_formed(outcome: Outcome) -> bool:
    """Is the outcome a number as results are written, or an error of the list, in words?"""
    if outcome.error is None:
        return outcome.text is not None and NUMBER.fullmatch(outcome.text) is not None and outcome.text != "-0"
    return outcome.text is None and outcome.error in ERRORS and outcome.detail != ""


# --- the grammar ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "text", "result"),
    [
        ("add", "67,29", "96"),
        ("add", "1,200, 3", "1203"),
        ("add", "1,200,\n3", "1203"),
        ("add", "1,234,567.5, 0.5", "1234568"),
        ("sqrt", "1,444", "38"),
        ("sqrt", "1,444 + 0", "38"),
        ("power", "2,100", "1267650600228229401496703205376"),
        ("add", " 5 ", "5"),
        ("add", ".5, 5., 007", "12.5"),
        ("add", "1e3", "1000"),
        ("add", "1.5E-2", "0.015"),
        ("add", "50%", "0.5"),
        ("add", "(40+10)%", "0.5"),
        ("multiply", "200%, 3", "6"),
        ("add", "$1,200, €5, £2", "1207"),
        ("subtract", "\u22125, \u20133", "-2"),
        ("add", "\uff13\uff0b\uff14", "7"),
        ("add", "\U0001d7d1", "3"),
        ("add", "3\u00a0+ 4", "7"),
        ("divide", "((((12)))), 4", "3"),
        ("add", "+-+--2", "-2"),
    ],
)
def test_argument_texts_are_read_as_the_grammar_has_it(tool: str, text: str, result: str) -> None:
    """Commas, thousands, signs, currency, percent and other scripts' forms of plain characters."""
    assert evaluate(tool, text) == Outcome(result)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("10-4-3", 3),
        ("64/4/2", 8),
        ("2^3^2", 512),
        ("2**3**2", 512),
        ("-2^2", -4),
        ("(-2)^2", 4),
        ("2^-1", 0.5),
        ("2^-1^2", 0.5),
        ("2*-3", -6),
        ("2^50%", math.sqrt(2)),
        ("-50%", -0.5),
        ("2^-3*16", 2),
        ("7-+-2", 9),
    ],
)
def test_operators_bind_as_in_python(text: str, value: float) -> None:
    """Powers from the right and before signs, the rest from the left."""
    assert value_of(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *[
            "a",
            "x",
            "nan",
            "inf",
            "-inf",
            "Infinity",
            "True",
            "0x10",
            "0b1",
            "1_000",
            "1j",
            "1e",
            "e5",
            "'1'",
            '"1"',
            "`1`",
        ],
        *[
            "()",
            "(",
            ")",
            "(1",
            "1)",
            ")1(",
            "1+",
            "*1",
            "1//2",
            "1 2",
            "2(3)",
            "(2)(3)",
            "1..2",
            "1.2.3",
            ".",
            "%",
            "5%%",
            "7%3",
        ],
        *[
            "1,",
            ",1",
            "1,,2",
            "1, , 2",
            ", ",
            "1200,3400, 5",
            "1,20, 3",
            "1,2000, 3",
            "1.5,200, 3",
            "[1]",
            "{1}",
            "1;2",
            "1=1",
        ],
        *[
            "3\u00b2",
            "\u00bd",
            "\u0663",
            "\u0967",
            "1$2",
            "lambda: 1",
            "__import__('os')",
            "1 if 1 else 2",
            "add(1)",
            "5!",
            "1<2",
        ],
        *[
            "\x00",
            "\ud800",
            "1\u200b",
            "1\u202e2",
            "#",
            "\\",
            "1:2",
            "1|2",
            "1&2",
            "~1",
            "@",
            "0" * 201,
            "(" * 21 + "1" + ")" * 21,
        ],
    ],
)
def test_nothing_outside_the_grammar_is_read(text: str) -> None:
    """Names, strings, other notations and broken expressions are the error ``syntax``."""
    assert evaluate("add", text).error == "syntax"


def test_the_limits_of_length_and_depth_are_exact() -> None:
    """200 characters and 20 levels are read."""
    assert evaluate("add", "1" * 200).text == "1" * 200
    assert evaluate("add", "(" * 20 + "1" + ")" * 20).text == "1"
    assert evaluate("add", "-" * 199 + "1").text == "-1"
    assert evaluate("add", "\ufdfa" * 150).error == "syntax"  # each becomes 18 characters


@pytest.mark.parametrize(
    ("tool", "text", "error"),
    [
        ("add", "", "arity"),
        ("add", "  ", "arity"),
        ("power", "2", "arity"),
        ("power", "2, 3, 4", "arity"),
        ("sqrt", "1, 2", "arity"),
        ("sqrt", "1,44", "arity"),
        ("log", "1, 2, 3", "arity"),
        ("choose", "5", "arity"),
        ("divide", "1, 0", "zero_division"),
        ("divide", "1, 0.0", "zero_division"),
        ("add", "1/(2-2)", "zero_division"),
        ("remainder", "5, 0", "zero_division"),
        ("remainder", "5.5, 0.0", "zero_division"),
        ("power", "0, -1", "zero_division"),
        ("power", "0.0, -0.5", "zero_division"),
        ("power", "-8, 1/3", "domain"),
        ("sqrt", "-4", "domain"),
        ("log", "0", "domain"),
        ("log", "8, 1", "domain"),
        ("log", "8, -2", "domain"),
        ("log", "8, 0", "domain"),
        ("ln", "-1", "domain"),
        ("lcm", "1.5, 2", "domain"),
        ("gcd", "4, 0.5", "domain"),
        ("choose", "-3, 2", "domain"),
        ("choose", "5.5, 2", "domain"),
        ("permutate", "5, -1", "domain"),
        ("power", "10, 1205", "too_large"),
        ("power", "2.0, 5000", "too_large"),
        ("multiply", "1e300, 1e300", "too_large"),
        ("divide", "1e300, 1e-300", "too_large"),
        ("add", "1e999999", "too_large"),
        ("add", "9**9**9", "too_large"),
        ("choose", "10**9, 5*10**8", "too_large"),
        ("permutate", "10**6, 10**5", "too_large"),
        ("permutate", "10**9, 10**9", "too_large"),
        ("multiply", "10^1000, 10^1000", "too_large"),
        ("sqrt", "10^401", "too_large"),
        ("add", "10^400, 0.5", "too_large"),
        ("sine", "1", "unknown_tool"),
        # What is wrong with the text comes before what is wrong with its values.
        ("divide", "1/0, (", "syntax"),
        ("sqrt", "1/0, 2", "arity"),
    ],
)
def test_what_has_no_value_is_an_error_of_its_kind(tool: str, text: str, error: str) -> None:
    """Every kind of failure, by tool."""
    outcome = evaluate(tool, text)
    assert outcome.error == error
    assert is_well_formed(outcome)


def test_commas_separate_for_tools_that_may_take_more_than_one_argument() -> None:
    """``log`` takes one or two, so ``1,000`` is a number and a base."""
    assert evaluate("log", "1,000").error == "domain"
    assert evaluate("ln", "1,000").text == "6.91"
    assert evaluate("log", "1,000, 10").text == "3"


@pytest.mark.parametrize(
    ("arity", "bounds"),
    [("2", (2, 2)), ("1-2", (1, 2)), ("1+", (1, None)), ("0+", (0, None)), ("0", (0, 0)), ("10", (10, 10))],
)
def test_arities_are_read(arity: str, bounds: tuple[int, int | None]) -> None:
    """A number, a range, or a least number."""
    assert arity_bounds(arity) == bounds


@pytest.mark.parametrize("arity", ["", "+", "-1", "2-1", "two", "1-", "1,2", "1 - 2", "\u0662", "1++", "9" * 5])
def test_other_arities_are_refused(arity: str) -> None:
    """Nothing else is one."""
    with pytest.raises(ValueError, match=r"arity|ends"):
        arity_bounds(arity)


# --- values, against Python ----------------------------------------------------------------------------------------


def random_number(draws: random.Random) -> tuple[str, Fraction]:
    """Return a number as a model might write it, with its exact value."""
    digits = str(draws.randrange(10 ** draws.randint(1, 6)))
    kind = draws.random()
    if kind < 0.6:
        return digits, Fraction(digits)
    if kind < 0.9:
        text = f"{digits}.{draws.randrange(10 ** draws.randint(1, 3))}"
        return text, Fraction(text)
    return f"{digits}%", Fraction(digits) / 100


def random_expression(draws: random.Random, depth: int) -> tuple[str, Fraction | None]:
    """Return an expression and its exact value, None where it divides by zero."""
    if depth == 0 or draws.random() < 0.2:
        return random_number(draws)
    if draws.random() < 0.2:
        text, value = random_expression(draws, depth - 1)
        return f"-({text})", None if value is None else -value
    (left, first), (right, second) = random_expression(draws, depth - 1), random_expression(draws, depth - 1)
    sign = draws.choice("+-*/")
    text = f"({left}) {sign} ({right})" if draws.random() < 0.5 else f"({left}){sign}({right})"
    if first is None or second is None or (sign == "/" and second == 0):
        return text, None
    operation = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[sign]
    return text, operation(first, second)


def test_expressions_agree_with_exact_fractions() -> None:
    """Acceptance property 11: thousands of random expressions, each with its value as a fraction."""
    draws = random.Random(11)
    compared = 0
    for _ in range(6000):
        text, exact = random_expression(draws, depth=3)
        if len(text) > 200 or exact is None:
            continue
        outcome = evaluate("add", text)
        if outcome.error == "zero_division":  # a difference that floats round to zero, or the other way round
            continue
        value = value_of(text)
        # Cancellation costs digits: the error is measured against what was added up.
        largest = max(abs(Fraction(part)) for part in re.findall(r"[0-9.]+", text))
        assert abs(Fraction(value) - exact) <= Fraction(1, 10**6) * max(abs(exact), largest, 1), text
        assert is_well_formed(outcome)
        compared += 1
    assert compared > 4000


def test_whole_numbers_stay_exact_with_all_their_digits() -> None:
    """Acceptance property 11: whole-number arithmetic of any length, against Python's integers."""
    draws = random.Random(12)
    folds: dict[str, Callable[..., int]] = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul}
    folds |= {"lcm": math.lcm, "gcd": math.gcd}
    for _ in range(1500):
        values = [
            draws.randint(-(10 ** draws.randint(1, 40)), 10 ** draws.randint(1, 40)) for _ in range(draws.randint(1, 4))
        ]
        text = ", ".join(map(str, values))
        for tool, fold in folds.items():
            expected = reduce(fold, values) if tool not in ("lcm", "gcd") else fold(*values)
            assert evaluate(tool, text).text == str(expected), (tool, text)
        if len(values) == 2 and values[1] != 0:
            assert evaluate("remainder", text).text == str(values[0] % values[1])
            assert evaluate("divide", f"{values[0] * values[1]},{values[1]}").text == str(values[0])


def random_value(draws: random.Random) -> int | float:
    """Return a number of any usual size, whole or not."""
    size = 10 ** draws.uniform(-4, 7)
    value = round(draws.uniform(-size, size), draws.randint(0, 6))
    return int(value) if draws.random() < 0.4 else value


def plain(value: float) -> str:
    """Write a number as it stands in arguments, without an exponent."""
    return str(value) if isinstance(value, int) else f"{value:.8f}"


def pythons_result(tool: str, values: list[Any]) -> float:
    """Return what Python's own functions make of the values of a tool; raises where they do."""
    if tool == "power":
        result = values[0] ** values[1]
        if isinstance(result, complex):
            raise ValueError
        return float(result)
    if tool == "log":
        return math.log10(values[0]) if len(values) == 1 else math.log(values[0]) / math.log(values[1])
    folded: dict[str, Callable[[Any, Any], Any]] = {"divide": operator.truediv, "subtract": operator.sub}
    folded |= {"add": operator.add, "multiply": operator.mul}
    if tool in folded:
        return float(reduce(folded[tool], values))
    if tool == "remainder":
        return float(values[0] % values[1])
    return float({"sqrt": math.sqrt, "ln": math.log}[tool](values[0]))


def test_tools_on_floats_agree_with_the_math_module() -> None:
    """Acceptance property 11: value or kind of failure, thousands of random arguments for each tool."""
    draws = random.Random(13)
    counts = {
        "add": 3,
        "subtract": 3,
        "multiply": 3,
        "divide": 3,
        "power": 2,
        "sqrt": 1,
        "log": 2,
        "ln": 1,
        "remainder": 2,
    }
    for tool, most in counts.items():
        for _ in range(2000):
            least = 1 if tool in ("add", "subtract", "multiply", "divide", "log") else most
            values = [float(plain(random_value(draws))) for _ in range(draws.randint(least, most))]
            if tool == "power":
                values[1] = round(values[1] % 20 - 10, draws.randint(0, 1))
            outcome = evaluate(tool, ", ".join(map(plain, values)), rounding="exact")
            try:
                expected = pythons_result(tool, values)
            except (ValueError, ZeroDivisionError, OverflowError):
                assert outcome.error in ("domain", "zero_division", "too_large"), (tool, values)
                continue
            assert outcome.text is not None, (tool, values, outcome)
            assert math.isclose(float(outcome.text), expected, rel_tol=1e-10, abs_tol=1e-300), (tool, values)
            assert is_well_formed(outcome)


def test_counts_of_selections_agree_with_the_math_module() -> None:
    """Acceptance property 11: choose and permutate, and too_large exactly above the limit of bits."""
    draws = random.Random(14)
    functions: dict[str, Callable[[int, int], int]] = {"choose": math.comb, "permutate": math.perm}
    for tool, function in functions.items():
        for _ in range(2000):
            total = draws.randrange(10 ** draws.randint(1, 5))
            taken = draws.randint(0, min(total + 2, 3000))
            expected = function(total, taken)
            outcome = evaluate(tool, f"{total}, {taken}")
            if expected.bit_length() > MOST_BITS:
                assert outcome.error == "too_large", (tool, total, taken)
            else:
                assert outcome.text == str(expected), (tool, total, taken)


def test_powers_of_whole_numbers_are_exact_up_to_the_limit_of_bits() -> None:
    """Acceptance property 11: the size is known before computing, neither too early nor too late."""
    draws = random.Random(15)
    for _ in range(3000):
        base, exponent = draws.randint(-1000, 1000), draws.randint(0, 1000)
        expected = base**exponent
        outcome = evaluate("power", f"{base}, {exponent}")
        assert outcome.text == str(expected) if expected.bit_length() <= MOST_BITS else outcome.error == "too_large"


@pytest.mark.parametrize(
    ("tool", "text", "result"),
    [
        ("lcm", "-4, 6", "12"),
        ("lcm", "0, 5", "0"),
        ("gcd", "-12, 18", "6"),
        ("gcd", "0, 0", "0"),
        ("gcd", "5.0, 10", "5"),
        ("choose", "5.0, 2", "10"),
        ("choose", "3, 5", "0"),
        ("permutate", "3, 5", "0"),
        ("remainder", "-7, 3", "2"),
        ("remainder", "7, -3", "-2"),
        ("remainder", "7.5, 2", "1.5"),
        ("subtract", "5", "5"),
        ("divide", "100, 5, 4", "5"),
        ("power", "-2, 3.0", "-8"),
        ("power", "0, 0", "1"),
        ("power", "-1, 10^100", "1"),
        ("log", "1000", "3"),
        ("log", "8, 2", "3"),
        ("sqrt", "10^100", "1" + "0" * 50),
        ("divide", "1" + "0" * 60 + ", 10", "1" + "0" * 59),
    ],
)
def test_special_cases_have_their_value(tool: str, text: str, result: str) -> None:
    """Signs, whole floats, more taken than there are, and single arguments."""
    assert evaluate(tool, text).text == result


# --- the text of results -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "paper", "exact"),
    [
        (0.0014286, "0.0014", "0.0014286"),
        (0.14286, "0.14", "0.14286"),
        (52.3523, "52.35", "52.3523"),
        (0.00000233, "0.0000023", "0.00000233"),
        (-0.0014286, "-0.0014", "-0.0014286"),
        (-0.004, "-0.004", "-0.004"),
        (-0.0, "0", "0"),
        (5.0, "5", "5"),
        (2.675, "2.67", "2.675"),
        (0.999, "1", "0.999"),
        (-1e-20, "0", "-0.00000000000000000001"),
        (1e22, "10000000000000000000000", "10000000000000000000000"),
        (1e23, "100000000000000000000000", "100000000000000000000000"),
        (1 / 3, "0.33", "0.333333333333"),
        (1234567.891, "1234567.89", "1234567.891"),
        (2469135780247.0, "2469135780247", "2469135780247"),
        (1234567890123.75, "1234567890123.75", "1234567890124"),
        (10**30, "1" + "0" * 30, "1" + "0" * 30),
        (-7, "-7", "-7"),
        (0, "0", "0"),
    ],
)
def test_numbers_are_written_by_the_rules(value: float, paper: str, exact: str) -> None:
    """Whole numbers in full; two decimals or two more than the zeros; 12 digits."""
    assert number_text(value) == paper
    assert number_text(value, "exact") == exact


def places(value: float) -> int:
    """Return to how many decimals the published rule rounds."""
    whole_part, decimals = f"{abs(value):.10f}".split(".")
    zeros = re.match("0*", decimals)
    assert zeros is not None
    return len(zeros[0]) + 2 if whole_part == "0" and zeros[0] else 2


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(5e-324)
@example(1.7976931348623157e308)
@example(0.0095)
@settings(deadline=None, max_examples=500)
def test_written_floats_read_back_to_within_their_rounding(value: float) -> None:
    """Acceptance property 11: no exponent, no -0, no trailing zeros, and the value is there."""
    paper, exact = number_text(value), number_text(value, "exact")
    for text in (paper, exact):
        assert NUMBER.fullmatch(text), text
        assert text != "-0"
    assert float(paper) == round(value, places(value))
    assert math.isclose(float(exact), value, rel_tol=5.1e-12, abs_tol=5e-324)


def test_usual_results_read_back_to_within_their_rounding() -> None:
    """Acceptance property 11: 20,000 results of usual size."""
    draws = random.Random(16)
    for _ in range(20_000):
        value = random_value(draws) / draws.choice([1, 3, 7, 1000, 12345.6])
        text = number_text(value)
        assert NUMBER.fullmatch(text), text
        assert abs(float(text) - value) <= 0.5000001 * 10 ** -places(value) + abs(value) * 1e-15


# --- texts that mean harm ------------------------------------------------------------------------------------------

HOSTILE = [
    *["9**9**9", "9^9^9^9^9", "(((((", ")))))", "1e999999", "-1e999999", "1e-999999", "10**10**10", "0**-1", "0^0^0^0"],
    *[
        "10**9, 5*10**8",
        "10**6, 10**5",
        "10^1204, 10^1203",
        "1e308, 1e308",
        "2^3999, 2^3999",
        "10^600, 10^300",
        "1e17, 1e16",
    ],
    *["9" * 200, "-" * 200, "+-" * 100, "(" * 200, "1" + "+1" * 99, "1" + "^1" * 99, "2" + "^2" * 99, "1" + "/3" * 99],
    *[
        "(" * 20 + "1" + ")" * 20,
        "((((((((((((((((((((1)))))))))))))))))))))))",
        "1%" * 60,
        "," * 200,
        ", " * 100,
        "1," * 100,
    ],
    *[
        "__import__('os').system('echo')",
        "().__class__.__bases__",
        "exec('1')",
        "open('/etc/passwd')",
        "lambda:0",
        "f'{1}'",
    ],
    *[
        "\uff11\uff12\uff0c\uff13",
        "\u0661\u0662",
        "\u00b2\u00b3",
        "\u2460",
        "\ufdfa" * 200,
        "\u0301" * 200,
        "\U0001f600" * 200,
    ],
    *[
        "\x00" * 10,
        "\ud800",
        "\n\r\t\v",
        "\u202e1",
        "1\u20282",
        "$" * 200,
        "\u2212" * 200,
        "nan",
        "inf",
        "1_0",
        "0x1",
        "1j",
    ],
    *["a" * 100_000, "1" * 100_000, "(" * 100_000, " " * 100_000, "9" * 100 + "**" + "9" * 90, "0." + "9" * 190],
    *[
        "9" * 100 + ", " + "9" * 90,
        "1e" + "9" * 190,
        "1." * 60,
        "(1" + ")(1" * 40 + ")",
        "1e1000000000",
        "2^(2^(2^(2^(2^2))))",
    ],
    *[
        "1000000000, 500000000",
        "100000000000000000000, 50000000000000000000",
        "4001, 2000",
        "4000, 2000",
        "999999, 3",
        "10^190, 400",
    ],
]
PIECES = [
    *"0123456789",
    *"+-*/^%(),. eE$",
    "**",
    ", ",
    "10",
    "1,000",
    "1e9",
    "99999",
    "\u2212",
    "\u20ac",
    "x",
    "_",
    "'",
    "\uff15",
]


def random_text(draws: random.Random) -> str:
    """Return pieces of the grammar in any order, or any characters at all."""
    length = int(200 ** draws.random())
    if draws.random() < 0.8:
        return "".join(draws.choice(PIECES) for _ in range(length))
    return "".join(chr(draws.randrange(0x11_0000 if draws.random() < 0.3 else 0x250)) for _ in range(length))


WATCHED = textwrap.dedent(
    r"""
    import gc, json, re, sys, time, tracemalloc
    from harness_tool_tokens.tools.arguments import evaluate
    from harness_tool_tokens.tools.operations import OPERATIONS

    texts = json.load(sys.stdin)
    evaluate("add", "1/3, 2")
    events, watching, slowest, kinds, unlike_numbers = set(), False, (0.0, "", ""), set(), set()
    sys.addaudithook(lambda name, arguments: events.add(name) if watching else None)
    gc.disable()  # its pauses are nobody's time
    if sys.argv[1] == "memory":
        tracemalloc.start()
    for text in texts:
        for tool in OPERATIONS:
            watching, before = True, time.thread_time()
            outcome = evaluate(tool, text)
            took, watching = time.thread_time() - before, False
            slowest = max(slowest, (took, tool, text))
            kinds.add((outcome.text is None, outcome.error, bool(outcome.detail)))
            if outcome.text is not None and not re.fullmatch(sys.argv[2], outcome.text):
                unlike_numbers.add(outcome.text)
    peak = tracemalloc.get_traced_memory()[1] if sys.argv[1] == "memory" else 0
    seen = {"events": sorted(events), "slowest": slowest, "peak": peak, "kinds": sorted(kinds, key=str)}
    print(json.dumps({**seen, "unlike_numbers": sorted(unlike_numbers)}))
    """
)


def watched(texts: list[str], measure: str) -> dict[str, Any]:
    """Run every tool on every text in a process of its own, and return what was seen there.

    The interpreter reports events such as ``compile``, ``exec``, ``import`` and ``open`` to a hook that cannot be taken
    off again, hence the process.
    """
    command = [sys.executable, "-c", WATCHED, measure, f"(?!-0$){NUMBER.pattern}"]
    result = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    seen: dict[str, Any] = json.loads(result.stdout)
    return seen


def check_seen(seen: dict[str, Any]) -> None:
    """No code ran, no call took 0.1 s, and every outcome is a number or an error."""
    assert seen["events"] == []
    assert seen["slowest"][0] < 0.1, seen["slowest"]
    assert seen["unlike_numbers"] == []
    for has_no_text, error, has_detail in seen["kinds"]:
        assert (error in ERRORS and has_detail) if has_no_text else error is None


def test_hostile_texts_run_no_code_and_stay_small() -> None:
    """Acceptance property 12: every tool on every hostile text, with all memory traced."""
    seen = watched(HOSTILE, "memory")
    check_seen(seen)
    assert seen["peak"] < 50e6
    assert {error for _, error, _ in seen["kinds"]} >= {"syntax", "arity", "domain", "zero_division", "too_large", None}


def test_ten_thousand_random_texts_do_no_harm() -> None:
    """Acceptance property 12: 10,000 texts for each of the 13 tools."""
    draws = random.Random(17)
    check_seen(watched([random_text(draws) for _ in range(10_000)], "time"))


@pytest.mark.slow
def test_a_hundred_thousand_random_texts_do_no_harm() -> None:
    """Acceptance property 12, ten times over."""
    draws = random.Random(18)
    check_seen(watched([random_text(draws) for _ in range(100_000)], "time"))


@given(st.sampled_from(WRITTEN), st.one_of(st.text(max_size=250), st.text("0123456789+-*/^%(),. e$", max_size=60)))
@settings(deadline=None, max_examples=1000)
def test_no_text_raises(tool: str, text: str) -> None:
    """Acceptance property 12: whatever hypothesis finds, in both roundings."""
    assert is_well_formed(evaluate(tool, text))
    assert is_well_formed(evaluate(tool, text, rounding="exact"))


def test_evaluating_works_at_the_edge_of_recursion() -> None:
    """Nesting is no recursion, so a caller deep in calls loses nothing."""

    def descend(levels: int) -> Outcome:
        if levels == 0:
            return evaluate("add", "(" * 20 + "-" * 100 + "1" + ")" * 20)
        return descend(levels - 1)

    depth = sys.getrecursionlimit() - len(inspect.stack()) - 60
    assert descend(depth).text == "1"


# --- the tools as they are shown -----------------------------------------------------------------------------------


def test_the_thirteen_tools_are_there_in_order() -> None:
    """Rows of tools are numbered in this order."""
    assert [tool.name for tool in ARITHMETIC] == WRITTEN == list(OPERATIONS)
    assert all(tool.kind == "arithmetic" and tool.key == tool.name and tool.description for tool in ARITHMETIC)


@pytest.mark.parametrize("tool", ARITHMETIC, ids=lambda tool: tool.name)
def test_worked_examples_hold_the_results_that_the_tools_give(tool: Any) -> None:
    """A model learns from them, so each call and its result agree."""
    assert len(tool.examples) >= 2
    for text in tool.examples:
        calls = re.findall(rf"<{tool.name}>\((.*)\)=(-?[0-9.]*[0-9])", text)
        assert len(calls) == 1
        assert evaluate(tool.name, calls[0][0]).text == calls[0][1]
