"""A method's options: declared by its fields, picked by name, built from text."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.arguments import convert, type_text
from harness.errors import HarnessError
from harness.methods.method import Baseline, Method
from harness.names import described, printable, suggestion

Built = TypeVar("Built", bound=Method)


@dataclass(frozen=True)
class Option:
    """One option of a method: its type and default as text, and what its docstring says of it."""

    name: str
    type: str
    default: str
    meaning: str


def options(method: type[Method]) -> list[Option]:
    """Return the options of ``method`` in the order of its fields, their meaning taken from its docstring.

    The docstring lists them under ``Options:``, one ``name: meaning`` each, longer ones indented further. A method may have
    some of them, and their docstring, from a dataclass that it shares with another (``kw_only``): they stand behind its own.
    """
    meanings: dict[str, str] = {}
    for place in reversed(method.__mro__):
        meanings |= _documented_options(place.__doc__ or "")
    hints = _hints(method)
    return [
        Option(field.name, type_text(hints[field.name]), _default_text(field), meanings.get(field.name, ""))
        for field in _fields(method)
    ]


def pick(methods: Mapping[str, type[Method]], name: str | None, *, plugin: str) -> type[Method]:
    """Return the method the user means: the named one, or the only one there is.

    Raises:
        HarnessError: unknown name, or several methods and no name.
    """
    if name == Baseline.name or (name is None and not methods):
        return Baseline
    if name is None:
        if len(methods) > 1:
            names = ", ".join(printable(n) for n in methods)
            raise HarnessError(f"plugin '{printable(plugin)}' has several methods; pick one with --method: {names}")
        return next(iter(methods.values()))
    if name not in methods:
        hint = suggestion(name, [*methods, Baseline.name])
        raise HarnessError(f"plugin '{printable(plugin)}' has no method '{printable(name)}'; {hint}")
    return methods[name]


def build(method: type[Built], args: Mapping[str, Any]) -> Built:
    """Build ``method`` from options given as text or JSON values.

    Raises:
        HarnessError: an unknown or missing option, a value of the wrong type, NaN or infinity, or a value the method
            itself refuses.
    """
    fields = {field.name: field for field in _fields(method)}
    hints = _hints(method)
    values = {}
    for name, value in args.items():
        if name not in fields:
            known = ", ".join(fields) or "none at all"
            raise HarnessError(f"method '{method.name}' has no option '{printable(name)}'; it has {known}")
        try:
            values[name] = convert(value, hints[name])
        except ValueError as error:
            raise HarnessError(f"option '{name}' of method '{method.name}' is {error}") from error
    for name, field in fields.items():
        if name not in values and not _has_default(field):
            raise HarnessError(f"method '{method.name}' needs option '{name}'; give it with --method_args {name}=...")
    try:
        return method(**values)
    except (ValueError, TypeError) as error:
        raise HarnessError(f"method '{method.name}' refuses its options: {printable(error)}") from error
    except (Exception, SystemExit) as error:
        if isinstance(error, HarnessError):
            raise
        raise HarnessError(f"method '{method.name}' fails over its options: {described(error)}") from error


def check_least(options: object, **least: int) -> None:
    """Raise ``ValueError`` for the first of some attributes that is less than it has to be; None is never."""
    for name, bound in least.items():
        value = getattr(options, name)
        if value is not None and value < bound:
            raise ValueError(f"{name} is {value}; it has to be {bound} or more")


def resolved_options(method: Method) -> dict[str, Any]:
    """Return every option with the value it has, as JSON values; paths as text."""
    return {field.name: _jsonable(getattr(method, field.name)) for field in _fields(type(method))}


def _fields(method: type[Any]) -> list[dataclasses.Field[Any]]:
    if not dataclasses.is_dataclass(method):
        raise HarnessError(f"method '{getattr(method, 'name', method)}' is no dataclass, so its options are unknown")
    found = [field for field in dataclasses.fields(method) if field.init]
    return sorted(found, key=lambda field: bool(field.kw_only))


def _hints(method: type[Any]) -> dict[str, Any]:
    """Return the types of the fields; one that names something not imported stays text."""
    try:
        return typing.get_type_hints(method)
    except Exception:  # an annotation is any expression
        return {field.name: field.type for field in dataclasses.fields(method)}


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _default_text(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        if isinstance(field.default, tuple):
            are_words = field.default and all(isinstance(item, str) for item in field.default)
            return "+".join(field.default) if are_words else str(list(field.default))
        return "none" if field.default is None else str(_jsonable(field.default))
    return "(computed)" if field.default_factory is not dataclasses.MISSING else "(required)"


def _jsonable(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    return value


def _documented_options(docstring: str) -> dict[str, str]:
    """Read the ``Options:`` section: a name, a colon, a meaning that may run on over deeper lines."""
    _, _, section = docstring.partition("Options:\n")
    meanings: dict[str, str] = {}
    name, indent = "", None
    for line in section.splitlines():
        if not line.strip():
            break
        depth = len(line) - len(line.lstrip())
        indent = depth if indent is None else indent
        match = re.match(r"\s*(\w+):\s*(.*)", line) if depth == indent else None
        if match:
            name, meanings[match[1]] = match[1], match[2].strip()
        elif name:
            meanings[name] += " " + line.strip()
    return meanings
