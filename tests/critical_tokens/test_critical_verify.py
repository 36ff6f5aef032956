"""The verifier against golden texts, against any text at all, and answers that are the same by other writing."""

from __future__ import annotations

import random
import time

import critical_golden
import pytest

from harness import HarnessError
from harness_critical_tokens.verify import RULES, answer_key, extract, is_right


def written(text: str | None) -> str | None:
    """Return an extracted text as the golden file is to be compared."""
    if text is None:
        return None
    return "".join(letter for letter in text if letter not in "$€£").replace("\u2212", "-").strip()


@pytest.mark.parametrize("case", critical_golden.rows("answer_extraction"), ids=lambda case: case["id"])
def test_answers_and_verdicts_are_the_golden_ones(case):
    """Property 26: extracted text and verdict."""
    assert written(extract(case["text"], case["rule"])) == written(case["extracted"])
    assert is_right(case["text"], case["gold"], case["rule"]) is case["right"]


PIECES = [
    *"0123456789.,-−/$%€{}()[]\\ \n=x",
    "answer is",
    "The final answer is",
    "####",
    "\\boxed{",
    "\\boxed",
    "\\frac",
    "\\sqrt",
    "\\text{",
    "1,234",
    "\nQuestion:",
    "\\left",
    "²",
    "٣",
    "ſ",
    "\x00",
    "🙂",
    "9" * 500,
]


@pytest.mark.parametrize("rule", RULES)
def test_no_text_makes_the_verifier_raise_or_linger(rule):
    """Property 26: random strings; the longest takes far under the 50 ms that one may take."""
    draw = random.Random(0)
    slowest = 0.0
    for _ in range(2_500):
        text, gold = ("".join(draw.choices(PIECES, k=draw.randrange(30))) for _ in range(2))
        begin = time.process_time()
        is_right(text, gold, rule)
        slowest = max(slowest, time.process_time() - begin)
        if (answer := extract(text, rule)) is not None:
            answer_key(answer, rule)
    assert slowest < 1.0  # some 0.1 ms; only a text that takes for ever is meant


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "piece",
    ["\\boxed{", "answer is ", "$", "1,234", ",123", "-", "9", "\\frac{", "\\text{", "\\", "{", "-$", " ", "\\frac1"],
)
def test_time_grows_with_the_text_and_not_faster(rule, piece):
    """Property 26: a thousand times one piece is done at once, inside a box as well."""
    for text in (piece * 1_000, "\\boxed{" + piece * 1_000 + "}", "The answer is " + piece * 1_000):
        is_right(text, text, rule)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("10-$5", "5"),
        ("(3)-4", "4"),
        ("it is -$5.", "-5"),
        ("The answer is .5", ".5"),
        ("1,234,5678", "5678"),
        ("The answer is 1,234,5678", "1,234"),
        ("It is 3/4%", "3/4"),
        ("#### no number", None),
        ("The answer is 7. The answer is unknown.", "7"),
        ("2 apples. The answer is unknown.", None),
        ("Problem: 8", "8"),
    ],
)
def test_numbers_as_they_are_written(text, answer):
    assert extract(text, "number") == answer


def test_equal_numbers_are_equal_whatever_their_length():
    long = "9" * 5_000
    assert is_right(f"The answer is {long}.", long, "number")
    assert not is_right(f"The answer is {long}.", long[:-1] + "8", "number")
    assert is_right("The answer is 3/0", "3/0", "number")
    assert is_right("The answer is 18", "Nine and nine.\n#### 18", "number")
    assert not is_right("The answer is 18", "eighteen", "number")
    assert answer_key("1,234.50", "number") == answer_key("1234.5", "number") != answer_key("1234", "number")


@pytest.mark.parametrize(
    ("answer", "gold", "is_same"),
    [
        ("\\tfrac{1}{2}", "0.5", True),
        ("\\frac1{2}", "1/2", True),
        ("\\frac{1}2", "\\frac{2}{4}", True),
        ("12\\mbox{ cm}^2", "12", False),  # what stands behind the unit counts
        ("5 \\text{ m}", "5.0", True),
        ("\\text{(A)}", "(A)", True),
        ("1,234", "1{,}234", True),
        ("x_1=3", "3", True),
        ("x=5", "y=5", False),
        ("\\$7", "7.", True),
        ("90^{\\circ}", "90°", True),
        ("\\frac{0}{0}", "0", False),
        ("\u22125", "-5", True),
        ("\\sqrt2", "\\sqrt{2}", True),
        ("\\sqrt[3]{2}", "\\sqrt{2}", False),
    ],
)
def test_latex_in_other_writing(answer, gold, is_same):
    assert is_right(f"\\boxed{{{answer}}}", gold, "latex") is is_same
    if "=" not in answer:
        assert (answer_key(answer, "latex") == answer_key(gold, "latex")) is is_same


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("\\boxed{}", None),
        ("\\boxed{\\boxed{5}}", "5"),
        ("first \\boxed{4}, then \\boxed{5", "4"),
        ("so \\boxed 42$.", "42"),
        ("\\boxedx{5}", None),
        ("The final answer is $3. I hope it is.", "3. I hope it is"),
        ("The answer is $5$.\nMore.", "5"),
        ("The answer is", None),
    ],
)
def test_where_a_solution_gives_its_answer(text, answer):
    assert extract(text, "latex") == answer


def test_an_unknown_rule_is_said_in_one_sentence():
    for call in (
        lambda: extract("5", "numbers"),
        lambda: is_right("5", "5", "numbers"),
        lambda: answer_key("5", "numbers"),
    ):
        with pytest.raises(HarnessError, match="there is no verifier 'numbers'; did you mean 'number'"):
            call()
