"""The number an answer ends with, and whether it is the right one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation

MARKER = "####"
# Floats carry two decimals up to here; references round floats.
_FLOAT_LIMIT = Decimal(10) ** 13
# The hyphen of keyboards, the minus sign, the en dash and the full-width hyphen; all are written before negative numbers.
_MINUS = "\\-\u2212\u2013\uff0d"
# Every part is followed by what it cannot hold, so that a match never goes back: linear in the text.
_NUMBER = re.compile(
    # Digits that belong to a word or to the power of a unit, as in `H2O`, `m2` and `cm^2`, are no numbers.
    r"(?P<word>[A-Za-z_]\^?[0-9]+(?:[.,][0-9]+)*)"
    # After a digit, a letter, a bracket or another minus, a minus is an operator or a dash.
    rf"|(?P<sign>(?<![0-9A-Za-z_)\]}}%.{_MINUS}])[{_MINUS}])?"
    r"(?:\\?[$€£¥][ \u00a0]?)?"
    r"(?P<whole>[0-9]+(?:,[0-9]+)*+|(?=(?<![0-9A-Za-z_])\.[0-9]))"
    r"(?P<decimals>\.[0-9]+)?"
    r"(?P<exponent>[eE][+-]?[0-9]{1,3}(?![0-9A-Za-z]))?"
)


def read_number(text: str) -> str | None:
    """Return the last number of ``text`` as plain ASCII, or None when it holds none.

    A minus counts as a sign when it touches the number (or its currency sign) and nothing that ends an operand stands
    before it: `=-5` is -5, `8-5` ends in 5. `1,234` with groups of three digits is one number. Currency signs, percent
    signs and a trailing point are left out (`5%` is 5), `.5` is 0.5. Digits grown together with a word are passed over
    (`m2`). Takes time linear in the text and raises nothing.
    """
    last = None
    for number in _numbers(text):
        last = number
    return last


def number_after_marker(text: str) -> str | None:
    """Return the first number after the last ``####`` of ``text``; None without the marker or a number behind it."""
    _, marker, rest = text.rpartition(MARKER)
    return next(_numbers(rest), None) if marker else None


def plain(number: float | str) -> str:
    """Return a number as text without an exponent: 32040.0 as `32040`, 1e-05 as `0.00001`."""
    exact = Decimal(str(number))
    text = format(exact, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def score_number(gold: float | str | None, prediction: float | str | None) -> dict[str, float]:
    """Judge a predicted number by the two rules of FuncQA's and GSM8K-XL's publications.

    Args:
        gold: a number, or text whose last number counts.
        prediction: likewise; None for an answer without a number.

    Returns:
        ``within_0_1_percent``: 1 when the difference is at most 0.1 % of the gold number (a gold 0 wants exactly 0).
        ``two_decimals``: 1 when both are equal after rounding to two decimals, as Python's ``round`` does.
        Both are 0 when either side holds no finite number.
    """
    expected, predicted = _decimal(gold), _decimal(prediction)
    if expected is None or predicted is None:
        return {"within_0_1_percent": 0.0, "two_decimals": 0.0}
    exact = _context(expected, predicted)
    distance = exact.abs(exact.subtract(predicted, expected))
    allowed = exact.abs(exact.scaleb(expected, -3))
    return {
        "within_0_1_percent": float(distance <= allowed),
        "two_decimals": float(_rounded(expected, exact) == _rounded(predicted, exact)),
    }


def _numbers(text: str) -> Iterator[str]:
    """Yield the numbers of ``text`` in order."""
    for match in _NUMBER.finditer(text):
        if match["word"] is None:
            yield _ascii(match)


def _ascii(match: re.Match[str]) -> str:
    """Return a matched number in plain writing; of a list such as `3,14,15` the last item."""
    first, *groups = match["whole"].split(",")
    is_grouped = len(first) <= 3 and not first.startswith("0") and all(len(group) == 3 for group in groups)
    sign = "-" if match["sign"] and (is_grouped or not groups) else ""
    digits = first + "".join(groups) if is_grouped or not groups else groups[-1]
    return f"{sign}{digits or '0'}{match['decimals'] or ''}{(match['exponent'] or '').lower()}"


def _decimal(value: float | str | None) -> Decimal | None:
    """Return the exact number, or None for none, for infinities and for what is not a number."""
    written = read_number(value) if isinstance(value, str) else value
    if written is None:
        return None
    # A float stands for its shortest text, 0.1 and not 0.1000000000000000055.
    number = Decimal(repr(written)) if isinstance(written, float) else Decimal(written)
    return number if number.is_finite() else None


def _context(*numbers: Decimal) -> Context:
    """Return a context that holds sums of the numbers, and their digits up to the second decimal, without loss."""
    most = max(max(number.adjusted(), 0) - min(int(number.as_tuple().exponent), -3) for number in numbers)
    return Context(prec=most + 10, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[InvalidOperation])


def _rounded(number: Decimal, exact: Context) -> Decimal:
    if number.copy_abs() < _FLOAT_LIMIT:
        return Decimal(round(float(number), 2))
    return number.quantize(Decimal("0.01"), context=exact)
