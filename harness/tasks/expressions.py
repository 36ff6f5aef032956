"""Arithmetic that stands in a text, read and computed by a small grammar of our own, so that no text can run code."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

from harness.isolation.process import Failure
from harness.tasks.calculating import Number, add, checked, divide, multiply, power, subtract

MOST_CHARACTERS = 200
MOST_LEVELS = 20

_MINUS_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-"})
_CURRENCY = re.compile(r"[$€£]")
_CURRENCY_INSIDE = re.compile(r"[0-9.][$€£]+[0-9.]")
_SEPARATOR = re.compile(r",\s+")
_GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:(?P<whole>[0-9][0-9,]*)(?P<fraction>\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<sign>\*\*|[-+*/^%()]))"
)

_BINARY: dict[str, tuple[int, Callable[[Number, Number], Number]]] = {
    "+": (1, add),
    "-": (1, subtract),
    "*": (2, multiply),
    "/": (2, divide),
    "^": (4, power),
}
_NEGATE = "negate"
_NEGATE_RANK = 3
"""A minus before a number binds closer than ``*`` and looser than ``^``: -2^2 is -4."""

Expression = list[Number | str]
"""An argument in postfix order: numbers, and after its operands each of ``+ - * / ^ %`` and ``negate``."""


def read_arguments(text: str, *, takes_one: bool = False) -> list[Expression]:
    """Return every expression in ``text``, read but not yet computed.

    Where a comma is followed by white space, such commas separate and bare ones group thousands. Otherwise every comma
    separates, unless one is due (``takes_one``) and the commas group thousands well.

    Raises:
        Failure: the text breaks the grammar.
    """
    text = _normalise(text)
    if not text:
        return []
    if _SEPARATOR.search(text):
        return [_read(part, grouped=True) for part in _SEPARATOR.split(text)]
    if takes_one and "," in text:
        try:
            return [_read(text, grouped=True)]
        except Failure:  # some comma does not group thousands, so all of them separate
            pass
    return [_read(part, grouped=False) for part in text.split(",")]


def compute(expression: Expression) -> Number:
    """Return the value of one argument.

    Raises:
        Failure, ZeroDivisionError, OverflowError: it has none, or one that is too large.
    """
    values: list[Number] = []
    for item in expression:
        if not isinstance(item, str):
            values.append(checked(item))
        elif item in _BINARY:
            right = values.pop()
            values[-1] = _BINARY[item][1](values[-1], right)
        else:
            values[-1] = divide(values[-1], 100) if item == "%" else -values[-1]
    return values[0]


def _normalise(text: str) -> str:
    """Return the text in plain characters, without currency signs and outer white space."""
    if len(text) > MOST_CHARACTERS:
        raise Failure("syntax", f"longer than {MOST_CHARACTERS} characters")
    # NFKC would make 32 of a 3 with a raised 2.
    if any(unicodedata.decomposition(character).startswith(("<super>", "<sub>")) for character in text):
        raise Failure("syntax", "a raised or lowered character")
    plain = unicodedata.normalize("NFKC", text).translate(_MINUS_SIGNS)
    if len(plain) > MOST_CHARACTERS:
        raise Failure("syntax", f"longer than {MOST_CHARACTERS} characters")
    if _CURRENCY_INSIDE.search(plain):
        raise Failure("syntax", "a currency sign inside a number")
    return _CURRENCY.sub("", plain).strip()


def _read(argument: str, *, grouped: bool) -> Expression:
    """Bring one argument into postfix order by operator precedence, with a stack of our own instead of recursion."""
    output: Expression = []
    waiting: list[str] = []  # operators whose right operand is not complete, and opening brackets
    is_operand_due, is_percent = True, False
    for token in _tokens(argument, grouped=grouped):
        if is_operand_due:
            is_operand_due = _take_operand(token, output, waiting)
        elif token == "%" and not is_percent:
            output.append("%")
        elif token == ")":
            _close_bracket(output, waiting)
        elif isinstance(token, str) and token in _BINARY:
            _release(output, waiting, rank=_BINARY[token][0], keeps_equal=token == "^")
            waiting.append(token)
            is_operand_due = True
        else:
            raise Failure("syntax", "an operator is missing")
        is_percent = token == "%"
    if is_operand_due:
        raise Failure("syntax", "a number is missing")
    _release(output, waiting)
    if waiting:
        raise Failure("syntax", "a bracket is not closed")
    return output


def _tokens(argument: str, *, grouped: bool) -> Iterator[Number | str]:
    """Yield the numbers and signs of one argument; ``**`` becomes ``^``."""
    position, end = 0, len(argument.rstrip())
    while position < end:
        match = _TOKEN.match(argument, position)
        if match is None:
            raise Failure("syntax", "a character that no number or expression has")
        sign: str | None = match["sign"]
        yield _literal(match, grouped) if sign is None else sign.replace("**", "^")
        position = match.end()


def _literal(match: re.Match[str], grouped: bool) -> Number:
    """Return the number that one token spells: whole without point and exponent, else a float."""
    spelled, whole_part = match["number"], match["whole"] or ""
    if "," in whole_part:
        if not grouped or not _GROUPED.fullmatch(whole_part):
            raise Failure("syntax", "a comma that does not group three digits")
        spelled = spelled.replace(",", "")
    return int(spelled) if spelled.isdigit() else float(spelled)


def _take_operand(token: Number | str, output: Expression, waiting: list[str]) -> bool:
    """Take a token where a number, a sign before one or an opening bracket may stand; is a number still due?"""
    if not isinstance(token, str):
        output.append(token)
        return False
    if token not in ("+", "-", "("):
        raise Failure("syntax", "a number is missing")
    if token == "(" and waiting.count("(") == MOST_LEVELS:
        raise Failure("syntax", f"more than {MOST_LEVELS} levels of brackets")
    if token != "+":
        waiting.append(_NEGATE if token == "-" else token)
    return True


def _close_bracket(output: Expression, waiting: list[str]) -> None:
    """Release what waits since the opening bracket, and take that away."""
    _release(output, waiting)
    if not waiting:
        raise Failure("syntax", "a bracket is closed that was not opened")
    waiting.pop()


def _release(output: Expression, waiting: list[str], *, rank: int = 0, keeps_equal: bool = False) -> None:
    """Move operators to the output that bind closer than one of ``rank``, or as close unless ``keeps_equal``."""
    while waiting and waiting[-1] != "(":
        own_rank = _NEGATE_RANK if waiting[-1] == _NEGATE else _BINARY[waiting[-1]][0]
        if own_rank < rank or (own_rank == rank and keeps_equal):
            return
        output.append(waiting.pop())
