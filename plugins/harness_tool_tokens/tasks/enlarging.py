"""GSM8K-XL: slots that were left open, and the calls its calculation steps stand for."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import reduce
from typing import Any

from harness import HarnessError
from harness.names import printable
from harness.tasks.numbers import plain

SLOT = re.compile(r"\{[vr]_\d+\}")
TOOLS: dict[type[ast.operator], tuple[str, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: ("add", operator.add),
    ast.Sub: ("subtract", operator.sub),
    ast.Mult: ("multiply", operator.mul),
    ast.Div: ("divide", operator.truediv),
}


def open_slots(row: Mapping[str, Any]) -> list[str]:
    """Return the slots of a row's question that no number was put into."""
    return SLOT.findall(row["question"])


def calls_of(steps: list[str]) -> list[dict[str, str]]:
    """Return the tool calls that calculation steps such as `4096-27-64 = 4005.0` stand for.

    Operators of one kind in a row are one call; a mixed step becomes several, the inner ones first, each with the
    arguments and the result as text.

    Raises:
        HarnessError: a step is not written so.
    """
    calls: list[dict[str, str]] = []
    for step in steps:
        compute(parse_step(step)[0], calls)
    return calls


def parse_step(step: str) -> tuple[ast.expr, Fraction]:
    """Return the expression of a step and the result behind the last equals sign. Nothing is run."""
    expression, _, result = step.rpartition("=")
    try:
        return ast.parse(expression.strip(), mode="eval").body, Fraction(result.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise HarnessError(f"calculation step '{printable(step)}' is not written as EXPRESSION = RESULT") from error


def compute(node: ast.expr, calls: list[dict[str, str]]) -> Fraction:
    """Return the exact value of ``node`` and append the calls it takes to ``calls``."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -compute(node.operand, calls)
    if not isinstance(node, ast.BinOp) or type(node.op) not in TOOLS:
        raise HarnessError(f"calculation step '{printable(ast.unparse(node))}' holds more than numbers and + - * /")
    operands = [compute(operand, calls) for operand in _chain(node, type(node.op))]
    tool, apply = TOOLS[type(node.op)]
    try:
        result = reduce(apply, operands)
    except ZeroDivisionError:
        raise HarnessError("a calculation step divides by 0; correct the row") from None
    arguments = ", ".join(_written(operand) for operand in operands)
    calls.append({"tool": tool, "args": arguments, "result": _written(result)})
    return result


def _chain(node: ast.expr, operator: type[ast.operator]) -> list[ast.expr]:
    """Return the operands of one kind of operator from left to right: of ``a - b - (c - d)`` a, b and the bracket."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, operator):
        return [*_chain(node.left, operator), node.right]
    return [node]


def _written(number: Fraction) -> str:
    return str(number.numerator) if number.denominator == 1 else plain(float(number))
