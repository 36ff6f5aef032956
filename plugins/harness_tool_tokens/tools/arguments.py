"""The argument text of a call: how many arguments it may hold, and what an arithmetic tool makes of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.isolation.process import Failure
from harness.tasks.calculating import Rounding, checked, number_text
from harness.tasks.expressions import compute, read_arguments
from harness_tool_tokens.tools.operations import OPERATIONS

ERRORS = ("syntax", "arity", "domain", "zero_division", "too_large", "timeout", "unknown_tool")
"""Every way in which a call can fail."""

_ARITY = re.compile(r"(\d{1,3})(?:(\+)|-(\d{1,3}))?", re.ASCII)


@dataclass(frozen=True)
class Outcome:
    """What came of a call.

    Attributes:
        text: the result as it takes the token's place, or None.
        error: None, or one of ``ERRORS``.
        detail: a few words for people on an error.
    """

    text: str | None
    error: str | None = None
    detail: str = ""


def evaluate(tool: str, argument_text: str, *, rounding: Rounding = "paper") -> Outcome:
    """Run one of the thirteen arithmetic tools; never raises, whatever the text.

    Args:
        tool: a name out of ``OPERATIONS``.
        argument_text: what stands between the opening bracket and its matching closing one.
        rounding: of results that are not whole, as ``calculating.number_text`` has it.
    """
    if tool not in OPERATIONS:
        return Outcome(None, "unknown_tool", "no arithmetic tool has this name")
    arity, operation = OPERATIONS[tool]
    try:
        expressions = read_arguments(argument_text, takes_one=arity == "1")
        check_count(len(expressions), arity)
        result = checked(operation(*map(compute, expressions)))
    except Failure as failure:
        return Outcome(None, failure.error, failure.detail)
    except ZeroDivisionError:
        return Outcome(None, "zero_division", "a division by zero")
    except OverflowError:
        return Outcome(None, "too_large", "the number is too large")
    return Outcome(number_text(result, rounding))


def arity_bounds(arity: str) -> tuple[int, int | None]:
    """Return the least and the largest number of arguments; ``2`` is (2, 2), ``1-2`` is (1, 2), ``1+`` is (1, None).

    Raises:
        ValueError: ``arity`` is written in no such way.
    """
    match = _ARITY.fullmatch(arity)
    if match is None:
        raise ValueError(f"{arity!r} is no arity")
    least = int(match[1])
    most = None if match[2] else int(match[3] or least)
    if most is not None and most < least:
        raise ValueError(f"{arity!r} ends below its start")
    return least, most


def check_count(count: int, arity: str) -> None:
    """Raise ``Failure`` where a tool of this arity does not take ``count`` arguments."""
    least, most = arity_bounds(arity)
    if count < least or (most is not None and count > most):
        raise Failure("arity", f"{count} argument{'' if count == 1 else 's'} given, {arity} due")
