"""Method, the baseline, and options built from text."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Union, runtime_checkable

from harness.errors import HarnessError
from harness.names import printable, suggestion

if TYPE_CHECKING:
    from lm_eval.api.model import LM


@runtime_checkable
class Method(Protocol):
    """One published technique, as a change to the LM under evaluation.

    A frozen dataclass; its fields are its options. Three members are optional:

    * ``leaves_model_unchanged`` (bool): True when, with these options, no tensor and no tokenizer will change. Without
      it, a method that changed nothing is an error.
    * ``fingerprint() -> str``: called before any weights are loaded. Reads what the options name (training text),
      raises ``HarnessError`` when it cannot be used, and returns a digest of its content.
    * ``answers`` (frozenset of request types): what the LM that ``apply`` returns answers besides what the one it is
      given does. Without it, a task that asks for more is refused before weights are loaded.
    """

    name: ClassVar[str]

    def apply(self, lm: LM, *, seed: int, workdir: Path) -> LM:
        """Return the LM to evaluate. May change ``lm`` in place: the caller gives it away.

        Args:
            lm: the untouched LM.
            seed: seeds everything random the method does.
            workdir: a folder of this method's own, named by the digest of everything that decides the result (method,
                plugin version and code, options, model, seed, training data). It is empty, or it holds exactly what
                an earlier identical run left when it *finished*: what a killed run left was removed. A file
                ``report.json`` written there (one JSON object) becomes the ``report`` of the record.
        """
        ...


@dataclass(frozen=True)
class Baseline:
    """The model as it is."""

    name: ClassVar[str] = "baseline"
    leaves_model_unchanged: ClassVar[bool] = True

    def apply(self, lm: LM, *, seed: int, workdir: Path) -> LM:
        """Return ``lm`` itself."""
        return lm


@dataclass(frozen=True)
class Option:
    """One option of a method: its type and default as text, and what its docstring says of it."""

    name: str
    type: str
    default: str
    meaning: str


def options(method: type[Method]) -> list[Option]:
    """Return the options of ``method`` in the order of its fields, their meaning taken from its docstring.

    The docstring lists them under ``Options:``, one ``name: meaning`` each, longer ones indented further.
    """
    meanings = _documented_options(method.__doc__ or "")
    hints = _hints(method)
    return [
        Option(field.name, _type_text(hints[field.name]), _default_text(field), meanings.get(field.name, ""))
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


def build(method: type[Method], args: Mapping[str, Any]) -> Method:
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


def resolved_options(method: Method) -> dict[str, Any]:
    """Return every option with the value it has, as JSON values; paths as text."""
    return {field.name: _jsonable(getattr(method, field.name)) for field in _fields(type(method))}


def parse_args(text: str | Mapping[str, Any] | None, *, flag: str) -> dict[str, Any]:
    """Parse ``k=v,k=v`` or a JSON object into a dict; commas inside brackets and quotes do not split.

    Args:
        text: what the user gave; a mapping is taken as it is.
        flag: the flag's name, for the error.

    Raises:
        HarnessError: broken JSON, an item without ``=``, or an option given twice.
    """
    if text is None or isinstance(text, Mapping):
        return dict(text or {})
    if text.lstrip().startswith("{"):
        return _parse_json_object(text, flag=flag)
    parsed: dict[str, Any] = {}
    for item in _split_top_level(text, flag=flag):
        name, equals, value = item.partition("=")
        name = name.strip()
        if not equals or not name:
            raise HarnessError(f"{flag} takes k=v,k=v or a JSON object; '{printable(item)}' is neither")
        if name in parsed:
            raise HarnessError(f"{flag} gives '{printable(name)}' twice")
        parsed[name] = _unquoted(value.strip())
    return parsed


def convert(value: Any, hint: Any) -> Any:
    """Convert text or a JSON value to the type ``hint``.

    Raises:
        ValueError: it cannot be; the message continues "option 'x' is ...".
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {Union, types.UnionType}:
        return _convert_optional(value, arguments)
    if origin is Literal:
        choices = {str(choice): choice for choice in arguments}
        if str(value) not in choices:
            raise ValueError(f"{_shown(value)}, where one of {', '.join(choices)} is due")
        return choices[str(value)]
    if origin is tuple:
        return tuple(convert(item, arguments[0]) for item in _items(value))
    converter = _CONVERTERS.get(hint)
    if converter is None:
        raise ValueError(f"of a type that text cannot give ({_type_text(hint)})")
    return converter(value)


def _convert_optional(value: Any, arguments: tuple[Any, ...]) -> Any:
    if type(None) in arguments and (
        value is None or (isinstance(value, str) and value.lower() in {"none", "null", ""})
    ):
        return None
    # Text fits everything, so it comes last: 8 is a number where number or text is due.
    kinds = sorted((a for a in arguments if a is not type(None)), key=lambda kind: kind in {str, Path})
    for kind in kinds[:-1]:
        with suppress(ValueError):
            return convert(value, kind)
    return convert(value, kinds[-1])


def _items(value: Any) -> Sequence[Any]:
    """Return the items of a list option: a JSON list, words in brackets by comma, or words by + or space."""
    if isinstance(value, list | tuple):
        return value
    text = str(value).strip()
    if not (text.startswith("[") and text.endswith("]")):
        return [part for part in re.split(r"[+\s]+", text) if part]
    with suppress(ValueError):
        return list(json.loads(text))
    return [_unquoted(part.strip()) for part in text[1:-1].split(",") if part.strip()]


def _to_bool(value: Any) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in known:
        raise ValueError(f"{_shown(value)}, where true or false is due")
    return known[str(value).lower()]


def _to_int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{_shown(value)}, where a whole number is due")
    try:
        return int(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{_shown(value)}, where a whole number is due") from None


def _to_float(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{_shown(value)}, where a finite number is due")
    return number


def _to_path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError(f"{_shown(value)}, where a path is due")
    return Path(value).expanduser()


def _to_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)}, where text is due")
    return value


_CONVERTERS: dict[Any, Any] = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str, Path: _to_path}


def _shown(value: Any) -> str:
    return f"'{printable(value)}'"


def _parse_json_object(text: str, *, flag: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _without_twins(pairs, flag=flag))
    except ValueError as error:
        raise HarnessError(f"{flag} begins like JSON but does not parse: {error}") from error
    if not isinstance(value, dict):
        raise HarnessError(f"{flag} takes a JSON object, not {type(value).__name__}")
    return value


def _split_top_level(text: str, *, flag: str) -> list[str]:
    items, depth, quote, start = [], 0, "", 0
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and text[position - 1 : position] in {"=", "[", ",", " "}:
            quote = character  # elsewhere it is an apostrophe
        elif character in "[({" and (depth or text[position - 1 : position] == "="):
            depth += 1
        elif character in "])}" and depth:
            depth -= 1
        elif character == "," and not depth:
            items.append(text[start:position])
            start = position + 1
    items.append(text[start:])
    if quote or depth:
        raise HarnessError(
            f"{flag} has {'a quote' if quote else 'a bracket'} that is never closed: {printable(items[-1])}"
        )
    return [item for item in items if item.strip()]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _without_twins(pairs: list[tuple[str, Any]], *, flag: str) -> dict[str, Any]:
    """Return a JSON object's dict; a key given twice is a mistake, of which JSON would keep the last."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise HarnessError(f"{flag} gives '{printable(name)}' twice")
    return dict(pairs)


def _fields(method: type[Any]) -> list[dataclasses.Field[Any]]:
    if not dataclasses.is_dataclass(method):
        raise HarnessError(f"method '{getattr(method, 'name', method)}' is no dataclass, so its options are unknown")
    return [field for field in dataclasses.fields(method) if field.init]


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


def _type_text(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {Union, types.UnionType}:
        return " or ".join("none" if a is type(None) else _type_text(a) for a in arguments)
    if origin is Literal:
        return "|".join(str(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {_type_text(arguments[0])}"
    return {Path: "path", str: "text", float: "number", int: "whole number", bool: "true|false"}.get(
        hint, getattr(hint, "__name__", str(hint))
    )


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
