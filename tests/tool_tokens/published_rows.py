"""What the published rows have to come to: the executor's ceiling on FuncQA, and the rule by which GSM8K-XL grew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from harness import HarnessError
from harness.names import printable
from harness.tasks.numbers import plain, score_number
from harness_tool_tokens.tasks.enlarging import SLOT, compute, open_slots, parse_step
from harness_tool_tokens.tools.arguments import evaluate


def ceiling(rows: Iterable[Mapping[str, Any]], *, rounding: Literal["paper", "exact"] = "paper") -> dict[str, int]:
    """Return how many rows come out right when the last gold call is made as it stands: the executor's ceiling.

    Args:
        rows: with ``answer`` and ``calls``, as ``data.funcqa`` reads them.
        rounding: the executor's rule, ``paper`` or ``exact``.

    Returns:
        ``docs`` (how many rows), ``within_0_1_percent`` and ``two_decimals`` (how many of them are right).
    """
    totals = {"docs": 0, "within_0_1_percent": 0, "two_decimals": 0}
    for row in rows:
        totals["docs"] += 1
        for rule, value in score_number(row["answer"], _last_result(row["calls"], rounding)).items():
            totals[rule] += int(value)
    return totals


def _last_result(calls: Sequence[Mapping[str, Any]], rounding: Literal["paper", "exact"]) -> str | None:
    """Return the text the last call puts into an answer, with what stands right before it, or None if it fails."""
    if not calls:
        return None
    outcome = evaluate(calls[-1]["tool"], calls[-1]["args"], rounding=rounding)
    return None if outcome.text is None else f"{calls[-1].get('before') or ''}{outcome.text}"


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


def _wrong_steps(row: Mapping[str, Any]) -> Iterator[str]:
    result: Fraction | None = None
    for step in row["process"]:
        expression, shown = parse_step(step)
        result, computed = shown, compute(expression, [])
        if abs(computed - shown) > abs(shown) * Fraction(1, 10**12):
            yield f"step {step} gives {plain(float(computed))}"
    if result is not None and result != Fraction(Decimal(str(row["answer"]))):
        yield f"the answer {row['answer']} is not the result of the last step"


def _at(enlarged: list[Any], slot: str) -> Any:
    place = int(re.sub(r"\D", "", slot)) - 1
    return enlarged[place] if place < len(enlarged) else slot
