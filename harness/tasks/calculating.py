"""Operations on numbers, their size checked before they compute, and how a result is written."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Literal

from harness.isolation.process import Failure

Number = int | float
Rounding = Literal["paper", "exact"]

MOST_BITS = 4000
"""Whole numbers longer than this are not computed."""
MOST_PERMUTED = 1000
"""n!/(n-k)! is at least k!, which is longer than ``MOST_BITS`` from k = 547 on."""
SIGNIFICANT_DIGITS = 12
EXACT_FLOATS = 2**53


def checked(value: Number) -> Number:
    """Return ``value``.

    Raises:
        Failure: it is a whole number of too many bits or a float that is not finite.
    """
    too_large = value.bit_length() > MOST_BITS if isinstance(value, int) else not math.isfinite(value)
    if too_large:
        raise Failure("too_large", "the number is too large")
    return value


def add(first: Number, second: Number) -> Number:
    """Return the sum."""
    return checked(first + second)


def subtract(first: Number, second: Number) -> Number:
    """Return the difference."""
    return checked(first - second)


def multiply(first: Number, second: Number) -> Number:
    """Return the product."""
    if isinstance(first, int) and isinstance(second, int):
        # A product has at least this many bits, or is 0.
        _refuse_bits(first.bit_length() + second.bit_length() - 1)
    return checked(first * second)


def divide(first: Number, second: Number) -> Number:
    """Return the quotient, a whole number where two whole numbers divide evenly."""
    if isinstance(first, int) and isinstance(second, int):
        # True division would round the quotient of long numbers to 53 bits.
        quotient, rest = divmod(first, second)
        return quotient if rest == 0 else first / second
    return checked(first / second)


def power(base: Number, exponent: Number) -> Number:
    """Return ``base`` to the ``exponent``."""
    if base == 0 and exponent < 0:
        raise ZeroDivisionError("0 to a negative power")
    if base < 0 and isinstance(exponent, float) and not exponent.is_integer():
        raise Failure("domain", "a negative number to a power that is not whole")
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1 and exponent > 0:
        _refuse_bits(math.log2(abs(base)) * exponent)
    return checked(base**exponent)


def square_root(value: Number) -> Number:
    """Return the square root, a whole number for whole squares."""
    if value < 0:
        raise Failure("domain", "the square root of a negative number")
    if isinstance(value, int) and math.isqrt(value) ** 2 == value:
        return math.isqrt(value)
    return math.sqrt(value)


def logarithm(value: Number, base: Number = 10) -> Number:
    """Return the logarithm of ``value`` to ``base``."""
    if value <= 0:
        raise Failure("domain", "the logarithm of a number that is not positive")
    if base <= 0 or base == 1:
        raise Failure("domain", "a logarithm whose base is 1 or not positive")
    # These two are exact for powers of their base; a quotient of logarithms is not.
    if base in (2, 10):
        return math.log2(value) if base == 2 else math.log10(value)
    return checked(math.log(value) / math.log(base))


def natural_logarithm(value: Number) -> Number:
    """Return the logarithm of ``value`` to base e."""
    if value <= 0:
        raise Failure("domain", "the logarithm of a number that is not positive")
    return math.log(value)


def least_common_multiple(first: int, second: int) -> int:
    """Return the least common multiple, never negative."""
    multiple = math.lcm(first, second)
    _refuse_bits(multiple.bit_length())
    return multiple


def remainder(first: Number, second: Number) -> Number:
    """Return the remainder of a division, with the sign of the divisor."""
    return checked(first % second)


def choose(total: Number, taken: Number) -> Number:
    """Return in how many ways ``taken`` of ``total`` things can be picked, order ignored."""
    total, taken = _counts(total, taken)
    if taken > total:
        return 0
    taken = min(taken, total - taken)
    if taken > 0:
        # (n/k)^k is a lower bound; as it is at least 2^k here, k stays below MOST_BITS.
        _refuse_bits(taken * (math.log2(total) - math.log2(taken)))
    return checked(math.comb(total, taken))


def permutate(total: Number, taken: Number) -> Number:
    """Return in how many ways ``taken`` of ``total`` things can be picked, order counted."""
    total, taken = _counts(total, taken)
    if taken > total:
        return 0
    if taken > MOST_PERMUTED:
        raise Failure("too_large", "the number is too large")
    _refuse_bits(taken * math.log2(total - taken + 1))
    return checked(math.perm(total, taken))


def _refuse_bits(bits: float) -> None:
    """Raise if a result of at least so many bits is not to be computed."""
    if bits > MOST_BITS:
        raise Failure("too_large", "the result is too large")


def whole(value: Number) -> int:
    """Return ``value`` as a whole number; a float such as 5.0 is one."""
    if isinstance(value, float) and not value.is_integer():
        raise Failure("domain", "a number that is not whole")
    return int(value)


def _counts(total: Number, taken: Number) -> tuple[int, int]:
    counts = whole(total), whole(taken)
    if min(counts) < 0:
        raise Failure("domain", "a negative count")
    return counts


def number_text(value: Number, rounding: Rounding = "paper") -> str:
    """Write a number as a result: whole numbers with all digits, never an exponent, ``-0`` or trailing zeros.

    Args:
        value: any whole number, or a finite float.
        rounding: ``paper`` gives floats two decimals, and small ones two more than the zeros after their point;
            ``exact`` gives 12 significant digits, more only if the whole part has more.
    """
    if isinstance(value, int):
        return str(value)
    text = format(_rounded_as_published(value) if rounding == "paper" else _rounded_exactly(value), "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _rounded_as_published(value: float) -> Decimal:
    whole_part, _, decimals = f"{abs(value):.10f}".partition(".")
    zeros = len(decimals) - len(decimals.lstrip("0")) if whole_part == "0" else 0
    # By way of repr: the shortest digits that read back, not the binary fraction's own.
    return Decimal(repr(round(value, zeros + 2)))


def _rounded_exactly(value: float) -> Decimal:
    if abs(value) >= 10**SIGNIFICANT_DIGITS or (value.is_integer() and abs(value) < EXACT_FLOATS):
        return Decimal(repr(round(value, 0)))
    return Decimal(f"{value:.{SIGNIFICANT_DIGITS - 1}e}")
