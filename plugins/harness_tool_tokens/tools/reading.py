"""Read tools from files: Python with marked functions, or TOML, JSON and JSONL tables."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.isolation.process import Failure, IsolatedFile
from harness.names import printable, suggestion
from harness_tool_tokens.tools.tool import WORKER, Tool

_TEXTS = ("key", "property", "token", "name", "description", "arity", "argument", "function", "text")
_OTHERS = ("arguments", "examples", "index", "kind", "raw")


def read_file(path: Path) -> list[Tool]:
    """Return the tools in a file, in its order.

    Python runs in a process of its own, never in this one.

    Raises:
        HarnessError: the file cannot be read or run, or a tool in it is not well described; the error names both.
    """
    if path.is_dir():
        raise HarnessError(f"{printable(path)} is a folder, where a file of tools is due; name the file in it")
    if path.suffix.lower() == ".py":
        return _marked_functions(path)
    readers = {".toml": _toml, ".json": _json, ".jsonl": _json_lines}
    if path.suffix.lower() not in readers:
        raise HarnessError(
            f"tools cannot be read from {printable(path)}; give a file of type .py, {', '.join(readers)}"
        )
    running: dict[Path, dict[str, Any]] = {}
    return [_tool(fields, where, path.parent, running) for where, fields in readers[path.suffix.lower()](path)]


def _marked_functions(path: Path) -> list[Tool]:
    described = _describe(path)
    if not described["tools"]:
        raise HarnessError(
            f"{printable(path)} holds no tools; write @tool(description=...) before a function, "
            "after 'from harness_tool_tokens import tool'"
        )
    tools = []
    for fields in described["tools"]:
        where = f"the tool '{printable(fields['function'])}' in {printable(path)}"
        source = f"{path.resolve()}:{fields.pop('function')}"
        tools.append(replace(_from_fields(fields, where), kind="python", source=source))
    return tools


def _describe(path: Path) -> dict[str, Any]:
    """Run a Python file in a process of its own, and return what functions and marked tools it holds."""
    try:
        process = IsolatedFile(path.resolve(), handler=WORKER)
    except Failure as failure:
        raise HarnessError(f"the tools in {printable(path)} {printable(failure.detail)}; mend the file") from failure
    process.end()
    return process.description


def _tool(fields: Any, where: str, folder: Path, running: dict[Path, dict[str, Any]]) -> Tool:
    """Return the tool that one table describes, with its function looked up in the file that it names."""
    described = _from_fields(fields, where)
    if not described.source:
        return _as_arithmetic(described)
    file, _, function = described.source.rpartition(":")
    path = folder / file
    if not file.endswith(".py") or not function:
        raise HarnessError(f"{where} has the function '{printable(described.source)}'; write FILE.py:name")
    if not path.is_file():
        raise HarnessError(
            f"{where} has its function in {printable(path)}, where no file is; mend the path or add the file"
        )
    if path not in running:
        running[path] = _describe(path)
    signatures = running[path]["functions"]
    if function not in signatures:
        known = suggestion(function, signatures)
        raise HarnessError(f"{where} has the function '{printable(function)}', which {printable(path)} lacks; {known}")
    if "problem" in signatures[function]:
        raise HarnessError(f"{where}: {printable(function)} {signatures[function]['problem']}")
    arity = fields.get("arity") or signatures[function]["arity"]
    return replace(described, kind="python", arity=arity, source=f"{path.resolve()}:{function}")


def _from_fields(fields: Any, where: str) -> Tool:
    """Return what a table says of a tool."""
    if not isinstance(fields, dict):
        raise HarnessError(f"{where} is {_kind_of(fields)}, where a table of fields is due")
    _check_fields(fields, where)
    name = fields.get("name") or ""
    if not name.strip():
        raise HarnessError(f"{where} has no name; give it one")
    return Tool(
        key=fields.get("key") or fields.get("property") or fields.get("token") or name,
        name=name,
        description=fields.get("description", ""),
        arity=fields.get("arity") or "0+",
        argument=fields.get("argument", ""),
        examples=tuple(fields.get("examples", ())),
        source=fields.get("function", ""),
        text=fields.get("text") or fields.get("token") or "",
    )


def _as_arithmetic(described: Tool) -> Tool:
    """Return the tool as one of the thirteen if it has the name of one, with what was given in place of its own."""
    from harness_tool_tokens.tools.arithmetic import ARITHMETIC

    for own in ARITHMETIC:
        if own.name == described.name:
            description, examples = described.description or own.description, described.examples or own.examples
            return replace(described, kind="arithmetic", arity=own.arity, description=description, examples=examples)
    return described


def _check_fields(fields: dict[str, Any], where: str) -> None:
    """Refuse fields of a wrong type, and those that look like a known one misspelled; others are let be."""
    known = (*_TEXTS, *_OTHERS)
    for name, value in fields.items():
        if name in _TEXTS and not isinstance(value, str):
            raise HarnessError(f"{where} has {_kind_of(value)} as its {name}, where text is due")
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if near and name not in known:
            raise HarnessError(
                f"{where} has a field '{printable(name)}', which means nothing; did you mean '{near[0]}'?"
            )
    examples = fields.get("examples", [])
    if not isinstance(examples, list) or not all(isinstance(example, str) for example in examples):
        raise HarnessError(f"{where} has examples that are not a list of texts; give one text per example")


def _kind_of(value: object) -> str:
    kinds = {
        "bool": "true or false",
        "str": "text",
        "int": "a number",
        "float": "a number",
        "list": "a list",
        "dict": "a table",
    }
    return "null" if value is None else kinds.get(type(value).__name__, f"a {type(value).__name__}")


def _toml(path: Path) -> Iterator[tuple[str, Any]]:
    text = _text(path)
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise HarnessError(f"{printable(path)} is not valid TOML: {printable(error)}; mend it") from error
    yield from _items(content, path)


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    yield from _items(_parsed(_text(path), f"{printable(path)}"), path)


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    lines = [(number, line) for number, line in enumerate(_text(path).split("\n"), start=1) if line.strip()]
    if not lines:
        raise HarnessError(f"{printable(path)} holds no tools; write one JSON object a line")
    for number, line in lines:
        where = f"line {number} of {printable(path)}"
        yield where, _parsed(line, where)


def _items(content: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the tables of a file that is a list, or has one called ``tools``, each with its place."""
    items = content.get("tools") if isinstance(content, dict) else content
    if not isinstance(items, list) or not items:
        raise HarnessError(
            f"{printable(path)} holds no list of tools; write [[tools]] tables in TOML, or a list of objects in JSON"
        )
    for number, item in enumerate(items, start=1):
        yield f"tool {number} of {printable(path)}", item


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{where} is not valid JSON: {printable(error)}; mend it") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise HarnessError(f"{printable(path)} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise HarnessError(
            f"{printable(path)} cannot be read: {error.strerror}; check its path and permissions"
        ) from error
