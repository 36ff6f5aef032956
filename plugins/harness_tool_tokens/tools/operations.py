"""What the thirteen arithmetic tools compute, and how many arguments each takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

from harness.tasks.calculating import (
    Number,
    add,
    choose,
    divide,
    least_common_multiple,
    logarithm,
    multiply,
    natural_logarithm,
    permutate,
    power,
    remainder,
    square_root,
    subtract,
    whole,
)


def _folding(operation: Callable[[Number, Number], Number]) -> Callable[..., Number]:
    """Return the operation over one or more numbers, left to right."""
    return lambda first, *others: reduce(operation, others, first)


def _folding_whole(operation: Callable[[int, int], int], start: int) -> Callable[..., Number]:
    """Return the operation over one or more whole numbers."""
    return lambda *values: reduce(operation, map(whole, values), start)


OPERATIONS: dict[str, tuple[str, Callable[..., Number]]] = {
    "add": ("1+", _folding(add)),
    "subtract": ("1+", _folding(subtract)),
    "multiply": ("1+", _folding(multiply)),
    "divide": ("1+", _folding(divide)),
    "power": ("2", power),
    "sqrt": ("1", square_root),
    "log": ("1-2", logarithm),
    "ln": ("1", natural_logarithm),
    "lcm": ("1+", _folding_whole(least_common_multiple, 1)),
    "gcd": ("1+", _folding_whole(math.gcd, 0)),
    "remainder": ("2", remainder),
    "choose": ("2", choose),
    "permutate": ("2", permutate),
}
"""Name to (arity, function of that many numbers), in the order that tools are numbered in."""
