"""Read the number an answer ends with, and judge answers and tool calls against the gold ones."""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation

from harness.tasks.numbers import read_number

# Floats carry two decimals up to here; the reference and the executor round floats.
_FLOAT_LIMIT = Decimal(10) ** 13


def score(gold: float | str | None, prediction: float | str | None) -> dict[str, float]:
    """Judge a predicted number by both published rules.

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
