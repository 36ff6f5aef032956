"""What the process of a user's tools does: say which tools its file has, and call them."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import repeat
from types import ModuleType
from typing import Any

from harness.isolation.process import Failure, explain
from harness.tasks.calculating import whole
from harness.tasks.expressions import compute, read_arguments
from harness_tool_tokens.tools.tool import MARK

Function = Callable[..., Any]


def describe(module: ModuleType) -> dict[str, Any]:
    """Return the arity of every function of a file, and the fields of those marked as tools."""
    functions: dict[str, dict[str, str]] = {}
    tools = []
    for name, function in vars(module).items():
        marks = getattr(function, MARK, None)
        if name.startswith("__") or not callable(function):
            continue
        try:
            functions[name] = {"arity": arity_of(function)}
        except Failure as failure:
            functions[name] = {"problem": failure.detail}
            if isinstance(marks, dict):
                raise ValueError(f"{name} {failure.detail}") from None
        if isinstance(marks, dict):
            tools.append({"name": name, **functions[name], **marks, "function": name})
    return {"functions": functions, "tools": tools}


def answer(module: ModuleType, request: dict[str, Any]) -> dict[str, Any]:
    """Return what came of the call that a request describes: its ``function``, ``arguments``, and ``most`` characters."""
    return call(getattr(module, request["function"]), request["arguments"], most=request["most"])


def call(function: Function, arguments: list[str], *, most: int) -> dict[str, Any]:
    """Call a tool and return what came of it: ``text``, or ``number`` to be rounded.

    Args:
        function: the tool.
        arguments: texts, which are turned into numbers for parameters annotated so.
        most: characters that a result may have.

    Raises:
        Failure: it has no result.
    """
    try:
        return _result(function(*_converted(function, arguments)), most)
    except ZeroDivisionError as error:
        raise Failure("zero_division", explain(error)) from error


def arity_of(function: Function) -> str:
    """Return how many arguments a function takes.

    Raises:
        Failure: it cannot be called with arguments in order, or gives no result at once.
    """
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise Failure("domain", "is asynchronous; make it a plain function")
    if inspect.isgeneratorfunction(function):
        raise Failure("domain", "is a generator; make it return its result")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions written in C have none
        return "0+"
    if any(each.kind is each.KEYWORD_ONLY and each.default is each.empty for each in parameters):
        raise Failure("domain", "has a parameter that must be given by name; give it a default")
    ordered = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    least = sum(each.default is each.empty for each in ordered)
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return f"{least}+"
    return str(least) if least == len(ordered) else f"{least}-{len(ordered)}"


def _converted(function: Function, arguments: list[str]) -> list[Any]:
    """Return the arguments, as numbers where the function's annotations ask for them."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return list(arguments)
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise Failure("arity", str(error)) from error
    kinds = map(_number_type, _annotations(signature))
    return [
        _number(text, kind, place) for place, (text, kind) in enumerate(zip(arguments, kinds, strict=False), start=1)
    ]


def _annotations(signature: inspect.Signature) -> Iterator[Any]:
    """Yield the annotation of every argument in order, without end for ``*arguments``."""
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            yield from repeat(parameter.annotation)
        yield parameter.annotation


def _number_type(annotation: Any) -> type[int] | type[float] | None:
    """Return int or float for such an annotation, also one in quotes or ``| None``."""
    spelled = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    spelled = (
        spelled.replace("typing.", "")
        .replace(" ", "")
        .replace("Optional[int]", "int")
        .replace("Optional[float]", "float")
    )
    return {"int": int, "float": float}.get(spelled.removesuffix("|None"))


def _number(argument: str, kind: type[int] | type[float] | None, place: int) -> Any:
    """Return an argument as the number it spells, by the grammar of the arithmetic tools."""
    if kind is None:
        return argument
    try:
        (expression,) = read_arguments(argument, takes_one=True)
        value = compute(expression)
        return whole(value) if kind is int else float(value)
    except (Failure, ArithmeticError, ValueError):
        wanted = "whole number" if kind is int else "number"
        raise Failure("syntax", f"argument {place} is no {wanted}") from None


def _result(value: Any, most: int) -> dict[str, Any]:
    """Return a tool's result as ``text``, or as ``number`` where it is no whole one."""
    if value is None:
        raise Failure("domain", "returned None")
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return {"text": _digits(int(value), most)}
    if isinstance(value, numbers.Real | Decimal) and not isinstance(value, bool):
        return {"number": _finite(value)}
    text = " ".join(str(value).splitlines())
    if not text.strip():
        raise Failure("domain", "returned an empty text")
    if len(text) > most:
        raise Failure("too_large", f"a result of {len(text):,} characters, where {most:,} are allowed")
    return {"text": text}


def _digits(value: int, most: int) -> str:
    """Return all digits of a whole number; long ones by way of Decimal, as str refuses more than 4300 of them."""
    if value.bit_length() > 4 * most:
        raise Failure("too_large", f"a result of more than {most:,} digits")
    return format(Decimal(value), "f")


def _finite(value: Any) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise Failure("too_large", "the number is too large") from None
    if not math.isfinite(number):
        raise Failure("domain", f"returned {number}")
    return number
