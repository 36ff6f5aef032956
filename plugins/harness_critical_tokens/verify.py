"""The answer a text gives, and whether it is the right one: stricter than the paper's, without tolerance or percent leniency.

Two rules. ``number`` is for GSM8K and arithmetic, ``latex`` for MATH. Both read only up to where the model begins a question
of its own.
"""

from __future__ import annotations

import bisect
import re
from fractions import Fraction

from harness.errors import HarnessError
from harness.names import suggestion
from harness_critical_tokens import latex

RULES = ("number", "latex")
STOPS = ("\n\nQuestion:", "\n\nProblem:", "\nQuestion:", "\nProblem:")
"""Where a text ends: the model goes on with a question of its own."""
MARKER = "####"

_PHRASE = re.compile("answer is", re.IGNORECASE)
_STOP = re.compile("|".join(map(re.escape, STOPS)))
# A hyphen after a letter, a digit or a closing bracket is no sign; a currency sign stands before it or behind it.
_NUMBER = re.compile(
    r"(?:(?P<sign>(?<![^\W_])(?<![)\]}])[-\u2212])[$€£]?|[$€£](?P<late_sign>[-\u2212])|[$€£])?"
    r"(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]++)(?:\.[0-9]++)?|(?<![\w.])\.[0-9]++)"
    r"(?P<divisor>/[0-9]++)?"
)
# Longer numbers are compared as text: the time that arithmetic takes grows with the square of their length.
_MOST_DIGITS = 400


def extract(text: str, rule: str) -> str | None:
    """Return the answer that ``text`` ends with, or None when it gives none.

    ``number``: the first number after the last ``####``; without one, the first number after the last "answer is" that has
    one behind it; without the phrase, the last number. As written, but for currency and percent signs, and with ``-`` for a
    minus. ``latex``: what stands in the last complete ``\\boxed{}``; else between the first and the last dollar after the last
    "final answer is"; else in the rest of the line after the last "answer is".

    Takes time linear in the text; no text makes it raise.

    Args:
        text: a whole response.
        rule: ``number`` or ``latex``.

    Raises:
        HarnessError: there is no such rule.
    """
    _check_rule(rule)
    stop = _STOP.search(text)
    text = text[: stop.start()] if stop else text
    return _number_in(text) if rule == "number" else latex.answer_in(text)


def is_right(text: str, gold: str, rule: str) -> bool:
    """Return whether the answer of ``text`` equals ``gold``: as exact values, or in LaTeX as equal writing.

    Args:
        text: a whole response.
        gold: the right answer, or a text that gives it by the same rule (``... #### 18``).
        rule: ``number`` or ``latex``.

    Raises:
        HarnessError: there is no such rule.
    """
    answer = extract(text, rule)
    if answer is None:
        return False
    if rule == "number":
        due = extract(gold, rule)
        return due is not None and number_key(answer) == number_key(due)
    due = latex.answer_in(gold) if "\\boxed" in gold else gold
    return due is not None and latex.is_equal(answer, due)


def answer_key(answer: str, rule: str) -> str:
    """Return a text that is the same for answers that are equal by themselves, as what is counted by answer needs it.

    Raises:
        HarnessError: there is no such rule.
    """
    _check_rule(rule)
    return str(number_key(answer)) if rule == "number" else latex.key(answer)


def number_key(number: str) -> Fraction | str:
    """Return the exact value of a number as ``extract`` gives it; its writing where it has none or is very long."""
    plain = number.replace(",", "")
    if len(plain) > _MOST_DIGITS:
        return plain
    try:
        return Fraction(plain) if "/" not in plain else _quotient(*plain.split("/"))
    except (ValueError, ZeroDivisionError):
        return plain


def _quotient(dividend: str, divisor: str) -> Fraction:
    return Fraction(dividend) / Fraction(divisor)


def _number_in(text: str) -> str | None:
    if MARKER in text:
        found = _NUMBER.search(text.rpartition(MARKER)[2])
        return _written(found) if found else None
    numbers = list(_NUMBER.finditer(text))
    starts = [number.start("digits") for number in numbers]
    ends = [phrase.end() for phrase in _PHRASE.finditer(text)]
    if not ends:
        return _written(numbers[-1]) if numbers else None
    behind = [end for end in ends if starts and end <= starts[-1]]
    return _written(numbers[bisect.bisect_left(starts, behind[-1])]) if behind else None


def _written(number: re.Match[str]) -> str:
    """Return a matched number with an ASCII minus and without currency sign."""
    sign = "-" if number["sign"] or number["late_sign"] else ""
    return f"{sign}{number['digits']}{number['divisor'] or ''}"


def _check_rule(rule: str) -> None:
    if rule not in RULES:
        raise HarnessError(f"there is no verifier '{rule}'; {suggestion(rule, RULES)}")
