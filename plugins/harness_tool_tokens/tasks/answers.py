"""Read the number an answer ends with, and judge answers and tool calls against the gold ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Any, Literal

MARKER = "####"
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
# Floats carry two decimals up to here; the reference and the executor round floats.
_FLOAT_LIMIT = Decimal(10) ** 13


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


def call_counts(gold_calls: Sequence[Mapping[str, Any]], trace: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Count the calls of one answer against the gold calls, looking at which tool was called and in which order.

    The two sequences of tools are aligned so that as many calls as possible meet a gold call of the same tool (the
    longest common subsequence), and of all such alignments, so that as many of the rest as possible meet a gold call
    at all. A call that failed while running takes part: choosing it was a choice.

    Args:
        gold_calls: each with its ``tool``.
        trace: what an answer's ``trace`` holds: each with its ``tool``, and an ``error`` when the call failed.

    Returns:
        ``calls``: how many were made; ``right``: meet a gold call of their tool; ``wrong``: meet a gold call of another
        tool; ``false``: meet none; ``missed``: gold calls that meet none; ``errors``: calls that failed while running.
        ``calls == right + wrong + false`` and ``len(gold_calls) == right + wrong + missed``.
    """
    due, called = [str(call["tool"]) for call in gold_calls], [str(call["tool"]) for call in trace]
    pairs = pairing(due, called)
    right = sum(due[number] == called[place] for number, place in pairs)
    wrong = len(pairs) - right
    counts = {
        "calls": len(trace),
        "right": right,
        "wrong": wrong,
        "missed": len(gold_calls) - right - wrong,
        "false": len(trace) - right - wrong,
        "errors": sum(bool(call.get("error")) for call in trace),
    }
    return {name: float(count) for name, count in counts.items()}


def pairing(due: Sequence[str], called: Sequence[str]) -> list[tuple[int, int]]:
    """Return which due call each call meets, as (place in ``due``, place in ``called``), in order.

    As many pairs of the same tool as possible (the longest common subsequence), and of those alignments one with as many
    pairs at all.
    """
    # best[i][j]: (pairs of the same tool, other pairs) of due[i:] and called[j:].
    best = [[(0, 0)] * (len(called) + 1) for _ in range(len(due) + 1)]
    for i in reversed(range(len(due))):
        for j in reversed(range(len(called))):
            best[i][j] = max(_paired(best[i + 1][j + 1], due[i] == called[j]), best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(due) and j < len(called):
        if best[i][j] == _paired(best[i + 1][j + 1], due[i] == called[j]):
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


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
        for rule, value in score(row["answer"], _last_result(row["calls"], rounding)).items():
            totals[rule] += int(value)
    return totals


def _last_result(calls: Sequence[Mapping[str, Any]], rounding: Literal["paper", "exact"]) -> str | None:
    """Return the text the last call puts into an answer, with what stands right before it, or None if it fails."""
    from harness_tool_tokens.tools.arguments import evaluate

    if not calls:
        return None
    outcome = evaluate(calls[-1]["tool"], calls[-1]["args"], rounding=rounding)
    return None if outcome.text is None else f"{calls[-1].get('before') or ''}{outcome.text}"


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


def _paired(pairs: tuple[int, int], is_same: bool) -> tuple[int, int]:
    return (pairs[0] + 1, pairs[1]) if is_same else (pairs[0], pairs[1] + 1)
