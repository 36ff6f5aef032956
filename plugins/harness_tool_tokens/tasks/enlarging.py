"""GSM8K-XL: how its numbers were enlarged, and the calls its calculation steps stand for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from harness import HarnessError
from harness.names import printable
from harness.tasks.numbers import plain

SLOT = re.compile(r"\{[vr]_\d+\}")
TOOLS = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide"}


def enlarge(value: float | str, *, is_percent: bool = False) -> float | str:
    """Return a number of a GSM8K question as GSM8K-XL has it.

    x becomes its cube, rounded to two decimals when it is not whole; a fraction, which is text, becomes the fraction
    of the cubes; 0, 1 and what is followed by a percent sign stay.

    Args:
        value: a number, or text such as `3/4`.
        is_percent: whether a percent sign follows it in the question.

    Raises:
        HarnessError: text that is no fraction of whole numbers.
    """
    if is_percent or value in (0, 1):
        return value
    if isinstance(value, str):
        parts = re.fullmatch(r"(-?\d{1,9})/(\d{1,9})", value)
        if parts is None:
            raise HarnessError(f"'{printable(value)}' is no fraction of whole numbers, so GSM8K-XL has no rule for it")
        return f"{int(parts[1]) ** 3}/{int(parts[2]) ** 3}"
    # Rounded as the published data: floats, halves to even.
    return int(value) ** 3 if float(value).is_integer() else round(float(value) ** 3, 2)


def open_slots(row: Mapping[str, Any]) -> list[str]:
    """Return the slots of a row's question that no number was put into."""
    return SLOT.findall(row["question"])


def defects(row: Mapping[str, Any]) -> list[str]:
    """Return in words what in a row of GSM8K-XL does not follow from its own parts; an empty list for a sound row.

    Checked are the values against the rule, the question against its template, every calculation step, and the answer
    against the last step.
    """
    found = [f"slot {slot} is open" for slot in open_slots(row)]
    template, values, enlarged = row["template_question"], row["values"], row["enhanced_values"]
    if len(values) != len(enlarged):
        return [*found, f"{len(values)} values became {len(enlarged)}"]
    for number, (value, larger) in enumerate(zip(values, enlarged, strict=True), start=1):
        is_percent = re.search(rf"\{{v_{number}\}}\s?%", template) is not None
        if enlarge(value, is_percent=is_percent) != larger:
            found.append(f"value {number}, {value}, became {larger}")
    if SLOT.sub(lambda slot: str(_at(enlarged, slot[0])), template) != row["question"]:
        found.append("the question is not its template with the enlarged values")
    return found + list(_wrong_steps(row))


def calls_of(steps: list[str]) -> list[dict[str, str]]:
    """Return the tool calls that calculation steps such as `4096-27-64 = 4005.0` stand for.

    Operators of one kind in a row are one call; a mixed step becomes several, the inner ones first, each with the
    arguments and the result as text.

    Raises:
        HarnessError: a step is not written so.
    """
    calls: list[dict[str, str]] = []
    for step in steps:
        _compute(_parsed(step)[0], calls)
    return calls


def _wrong_steps(row: Mapping[str, Any]) -> Iterator[str]:
    result: Fraction | None = None
    for step in row["process"]:
        expression, shown = _parsed(step)
        result, computed = shown, _compute(expression, [])
        if abs(computed - shown) > abs(shown) * Fraction(1, 10**12):
            yield f"step {step} gives {plain(float(computed))}"
    if result is not None and result != Fraction(Decimal(str(row["answer"]))):
        yield f"the answer {row['answer']} is not the result of the last step"


def _parsed(step: str) -> tuple[ast.expr, Fraction]:
    """Return the expression of a step and the result behind the last equals sign. Nothing is run."""
    expression, _, result = step.rpartition("=")
    try:
        return ast.parse(expression.strip(), mode="eval").body, Fraction(result.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise HarnessError(f"calculation step '{printable(step)}' is not written as EXPRESSION = RESULT") from error


def _compute(node: ast.expr, calls: list[dict[str, str]]) -> Fraction:
    """Return the exact value of ``node`` and append the calls it takes to ``calls``."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_compute(node.operand, calls)
    if not isinstance(node, ast.BinOp) or type(node.op) not in TOOLS:
        raise HarnessError(f"calculation step '{printable(ast.unparse(node))}' holds more than numbers and + - * /")
    operands = [_compute(operand, calls) for operand in _chain(node, type(node.op))]
    result = operands[0]
    for operand in operands[1:]:
        result = _apply(node.op, result, operand)
    arguments = ", ".join(_written(operand) for operand in operands)
    calls.append({"tool": TOOLS[type(node.op)], "args": arguments, "result": _written(result)})
    return result


def _chain(node: ast.expr, operator: type[ast.operator]) -> list[ast.expr]:
    """Return the operands of one kind of operator from left to right: of ``a - b - (c - d)`` a, b and the bracket."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, operator):
        return [*_chain(node.left, operator), node.right]
    return [node]


def _apply(operator: ast.operator, left: Fraction, right: Fraction) -> Fraction:
    if isinstance(operator, ast.Add):
        return left + right
    if isinstance(operator, ast.Sub):
        return left - right
    if isinstance(operator, ast.Mult):
        return left * right
    if right == 0:
        raise HarnessError("a calculation step divides by 0; correct the row")
    return left / right


def _written(number: Fraction) -> str:
    return str(number.numerator) if number.denominator == 1 else plain(float(number))


def _at(enlarged: list[Any], slot: str) -> Any:
    place = int(re.sub(r"\D", "", slot)) - 1
    return enlarged[place] if place < len(enlarged) else slot
