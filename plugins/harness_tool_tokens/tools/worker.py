"""The process in which a user's tools run: JSON lines in and out, with whatever the tools print kept out of them."""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import numbers
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import repeat
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from harness_tool_tokens.tools.arguments import compute, read_arguments
from harness_tool_tokens.tools.calculating import Failure, whole
from harness_tool_tokens.tools.process import LOADING_SECONDS
from harness_tool_tokens.tools.tool import MARK

GRACE_SECONDS = 2
"""The caller ends a call that takes too long; only if the caller is gone does this process end itself."""
MOST_DETAIL = 300

Function = Callable[..., Any]


def main(path: str) -> None:
    """Load a file of tools, say what is in it, and answer calls until the input ends."""
    requests, replies = _take_pipes()
    owner = os.getpid()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_pass_on, args=(requests, lines), daemon=True).start()
    _limit(LOADING_SECONDS)
    try:
        module = _load(Path(path))
        if os.getpid() != owner:
            os._exit(0)
        _write(replies, _describe(module))
    except BaseException as error:
        _write(replies, {"error": "domain", "detail": _explain(error)})
        return
    while True:
        _limit(None)
        request = json.loads(lines.get())
        _limit(request["seconds"])
        reply = answer(getattr(module, request["function"]), request["arguments"], most=request["most"])
        if os.getpid() != owner:  # a fork that the tool made came back from it, too: one reply is enough
            os._exit(0)
        _write(replies, reply)


def answer(function: Function, arguments: list[str], *, most: int) -> dict[str, Any]:
    """Call a tool and return what came of it: ``text``, or ``number`` to be rounded, or ``error`` and ``detail``.

    Args:
        function: the tool.
        arguments: texts, which are turned into numbers for parameters annotated so.
        most: characters that a result may have.
    """
    try:
        return _result(function(*_converted(function, arguments)), most)
    except Failure as failure:
        return {"error": failure.error, "detail": failure.detail}
    except ZeroDivisionError as error:
        return {"error": "zero_division", "detail": _explain(error)}
    except BaseException as error:  # sys.exit in a tool is its mistake, not our end
        return {"error": "domain", "detail": _explain(error)}


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


def _take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Keep the input and output for ourselves, and give the tools empty ones.

    The descriptors are changed, not only ``sys.stdout``: libraries in C and programs that a tool starts write there.
    """
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(empty, descriptor)
    # Whatever the locale, printing never fails.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    return requests, replies


def _pass_on(requests: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Queue the requests; when the caller is gone, end this process with all that it started, even during a call."""
    for line in requests:
        lines.put(line)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def _limit(seconds: float | None) -> None:
    """Let the system end this process after a time, or no more.

    Unlike a thread, its alarm also ends a call into C that never lets other threads run.
    """
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_SECONDS if seconds else 0)


def _write(replies: IO[bytes], reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply).encode() + b"\n")
    replies.flush()


def _load(path: Path) -> ModuleType:
    """Run a file as a module; what lies beside it can be imported, as in a script."""
    sys.path.insert(0, str(path.parent))
    name = f"tools_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _describe(module: ModuleType) -> dict[str, Any]:
    """Return the arity of every function, and the fields of those marked as tools."""
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


def _explain(error: BaseException) -> str:
    """Return an exception in a few words."""
    if isinstance(error, Failure):
        return error.detail
    try:
        words = " ".join(str(error).split())
    except BaseException:
        words = ""
    return f"{type(error).__name__}{': ' if words else ''}{words}"[:MOST_DETAIL]


if __name__ == "__main__":
    main(sys.argv[1])
