"""Answers in LaTeX: where a solution of MATH gives its answer, and when two ways to write one are the same."""

from __future__ import annotations

import re
from fractions import Fraction

_BOX = re.compile(r"\\boxed(?![A-Za-z])\s*")
_ANSWER = re.compile("answer is", re.IGNORECASE)
_FINAL_ANSWER = re.compile("final answer is", re.IGNORECASE)
# Written, but without meaning.
_SPACING = re.compile(
    r"\\left(?![A-Za-z])|\\right(?![A-Za-z])|\\[!,;: ]|\\\$|\^\\circ|\^\{\\circ\}|°|\\degree(?![A-Za-z])|\\?%|\s"
)
_WORDS = re.compile(r"\\(?:text|mbox)\s*\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\frac(?:\{([^{}]*)\}|([^{}\\]))(?:\{([^{}]*)\}|([^{}\\]))")
_SLASH = re.compile(r"(-?)([0-9]+)/([0-9]+)")
_SHORT_ROOT = re.compile(r"\\sqrt([^{\[\\])")
_POINT = re.compile(r"(?<![0-9])\.(?=[0-9])")
_GROUPED = re.compile(r"-?[0-9]{1,3}(?:(?:,|\{,\})[0-9]{3})+(?:\.[0-9]+)?")
_VARIABLE = re.compile(r"\\?[A-Za-z]+(?:_\{?[A-Za-z0-9]+\}?)?=(?!=)")
_VALUE = re.compile(r"(-?)(?:([0-9]+(?:\.[0-9]*)?)|\\frac\{(-?)([0-9]+(?:\.[0-9]*)?)\}\{(-?)([0-9]+(?:\.[0-9]*)?)\})")
# Longer numbers are compared as text: the time that arithmetic takes grows with the square of their length.
_MOST_DIGITS = 400


def answer_in(text: str) -> str | None:
    """Return the answer of a solution as it stands there, or None: see ``verify.extract``."""
    box = last_box(text)
    if box is not None:
        return box.strip() or None
    return _between_dollars(text) or _rest_of_line(text)


def is_equal(answer: str, gold: str) -> bool:
    """Return whether two answers are the same writing after ``key``, or the same number or fraction of numbers.

    ``x=`` in front of the answer is passed over where the gold answer has no ``=``.
    """
    due, given = key(gold), key(answer)
    if "=" not in due:
        given = key(_VARIABLE.sub("", given, count=1)) if _VARIABLE.match(given) else given
    return given == due


def key(answer: str) -> str:
    """Return one writing for all of an answer's, exact values as a fraction in lowest terms."""
    written = normalise(answer)
    value = _value(written)
    return written if value is None else str(value)


def normalise(answer: str) -> str:
    """Return an answer without what has no meaning, in one way of writing fractions, roots and decimals."""
    text = _SPACING.sub("", _without_units(answer))
    text = text.removesuffix(".").replace("\u2212", "-").replace("dfrac", "frac").replace("tfrac", "frac")
    if _GROUPED.fullmatch(text):
        text = text.replace("{,}", "").replace(",", "")
    text = _SHORT_FRACTION.sub(_fraction, text)
    if slash := _SLASH.fullmatch(text):
        text = f"{slash[1]}\\frac{{{slash[2]}}}{{{slash[3]}}}"
    return _POINT.sub("0.", _SHORT_ROOT.sub(r"\\sqrt{\1}", text))


def _without_units(answer: str) -> str:
    """Drop words behind other content, which are units, and keep the content of words that stand first."""
    first = _WORDS.match(answer.strip())
    if first:
        answer = first[1] + answer.strip()[first.end() :]
    return _WORDS.sub("", answer)


def _fraction(match: re.Match[str]) -> str:
    above = match[1] if match[1] is not None else match[2]
    below = match[3] if match[3] is not None else match[4]
    return f"\\frac{{{above}}}{{{below}}}"


def _value(written: str) -> Fraction | None:
    """Return the exact value of a number or a fraction of two numbers."""
    match = _VALUE.fullmatch(written) if len(written) <= _MOST_DIGITS else None
    if match is None:
        return None
    if match[2] is not None:
        value = Fraction(match[2])
    elif not Fraction(match[6]):
        return None
    else:
        value = Fraction(match[3] + match[4]) / Fraction(match[5] + match[6])
    return -value if match[1] else value


def last_box(text: str) -> str | None:
    """Return what stands in the last complete box; `\\boxed 5` takes what follows up to white space or a dollar."""
    closing = _closing_braces(text)
    for box in reversed(list(_BOX.finditer(text))):
        start = box.end()
        if text[start : start + 1] != "{":
            token = re.compile(r"[^\s$]+").match(text, start)
            if token:
                return token[0].rstrip(".,;")
        elif start in closing:
            return text[start + 1 : closing[start]]
    return None


def _closing_braces(text: str) -> dict[int, int]:
    """Return where each brace that is closed closes."""
    opened: list[int] = []
    closing = {}
    for brace in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            closing[opened.pop()] = brace.start()
    return closing


def _between_dollars(text: str) -> str | None:
    phrases = list(_FINAL_ANSWER.finditer(text))
    if not phrases:
        return None
    dollars = [dollar.start() for dollar in re.finditer(r"(?<!\\)\$", text) if dollar.start() >= phrases[-1].end()]
    return text[dollars[0] + 1 : dollars[-1]].strip(" $\n") if len(dollars) > 1 else None


def _rest_of_line(text: str) -> str | None:
    phrases = list(_ANSWER.finditer(text))
    if not phrases:
        return None
    line = text[phrases[-1].end() :].partition("\n")[0]
    return line.replace("\\$", "").replace("$", "").strip().removesuffix(".").strip() or None
