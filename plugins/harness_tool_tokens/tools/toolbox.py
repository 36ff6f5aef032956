"""Tools, and collections of them that are loaded from files."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import overload

from harness.errors import HarnessError
from harness.names import printable, suggestion
from harness_tool_tokens.tools.arguments import arity_bounds
from harness_tool_tokens.tools.tool import Tool, source_parts

_BUILT_IN = {"arithmetic": "arithmetic", "gsm8k": "arithmetic[:4]"}
_FIRST = re.compile(r"(.+)\[:(-?\d+)\]", re.DOTALL)
_FILE_TYPES = (".py", ".toml", ".json", ".jsonl")


@dataclass(frozen=True)
class Toolbox(Sequence[Tool]):
    """The tools of one run, numbered in order."""

    tools: tuple[Tool, ...]
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the tools, one by one and against each other."""
        if not self.tools:
            raise HarnessError("there is no tool in the list of tools; give at least one")
        for each in self.tools:
            _check(each)
        _check_distinct(self.tools)
        object.__setattr__(self, "_numbers", {each.key: number for number, each in enumerate(self.tools)})

    @classmethod
    def load(cls, specs: Sequence[str], *, folder: str | None = None) -> Toolbox:
        """Load and concatenate tools.

        Args:
            specs: each ``arithmetic`` (all thirteen), ``gsm8k`` (its first four) or a file: Python with functions marked by
                ``tool``, or TOML, JSON or JSONL. A file that does not exist here is looked for in the data folder.
                ``FILE[:30]`` are its first thirty tools.
            folder: the data folder, as a task is told it.

        Raises:
            HarnessError: a file cannot be read, or a tool in it or all of them together do not do.
        """
        from harness_tool_tokens.tools.reading import read_file

        tools: list[Tool] = []
        for spec in [specs] if isinstance(specs, str) else specs:
            name, first = first_of(_BUILT_IN.get(spec, str(spec)))
            found = _arithmetic() if name == "arithmetic" else read_file(_located(name, folder))
            if first is not None and not 1 <= first <= len(found):
                raise HarnessError(
                    f"the first {first} of {len(found)} tools are asked for; give a number from 1 to {len(found)}"
                )
            tools += found[:first]
        return cls(tuple(tools))

    @overload
    def __getitem__(self, index: int) -> Tool: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Tool, ...]: ...
    def __getitem__(self, index: int | slice) -> Tool | tuple[Tool, ...]:
        """Return a tool by number, or a tuple of tools."""
        return self.tools[index]

    def __len__(self) -> int:
        """Return how many tools there are."""
        return len(self.tools)

    def __iter__(self) -> Iterator[Tool]:
        """Yield the tools in order."""
        return iter(self.tools)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys in order."""
        return tuple(each.key for each in self.tools)

    def number(self, key: str) -> int:
        """Return the place of the tool with this key.

        Raises:
            HarnessError: there is none.
        """
        if key not in self._numbers:
            raise HarnessError(f"no tool has the key '{printable(key)}'; {suggestion(key, self._numbers)}")
        return self._numbers[key]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that decides what the tools are and do; the place of a source file does not."""
        described = [asdict(each) | {"source": _portable(each.source)} for each in self.tools]
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for path in sorted({source_parts(each.source)[0] for each in self.tools if each.source}):
            digest.update(hashlib.sha256(_bytes(path)).digest())
        return digest.hexdigest()


def first_of(spec: str) -> tuple[str, int | None]:
    """Return name and number of ``NAME[:NUMBER]``, which stands for the first things in a file; None for all of them."""
    found = None if Path(spec).exists() else _FIRST.fullmatch(spec)
    return (found[1], int(found[2])) if found else (spec, None)


def _portable(source: str) -> str:
    return ":".join([source_parts(source)[0].name, source_parts(source)[1]]) if source else ""


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise HarnessError(f"the tools' file {printable(path)} cannot be read any more: {error.strerror}") from error


def _arithmetic() -> list[Tool]:
    from harness_tool_tokens.tools.arithmetic import ARITHMETIC

    return list(ARITHMETIC)


def _located(spec: str, folder: str | None) -> Path:
    """Return the file that a spec names, here or in the data folder."""
    path = Path(spec).expanduser()
    if path.exists():
        return path
    if path.suffix.lower() not in _FILE_TYPES:
        raise HarnessError(
            f"no tools are called '{printable(spec)}'; {suggestion(str(spec), _BUILT_IN)}, "
            f"or give a file of type {', '.join(_FILE_TYPES)}"
        )
    from harness_tool_tokens.tools.data_folder import find

    return find(path, folder)


def _check(each: Tool) -> None:
    """Refuse a tool that could not be shown or called."""
    label = f"tool '{printable(each.key)}'"
    if not each.key.strip() or not each.name.strip():
        raise HarnessError(f"{label} has no {'name' if each.key.strip() else 'key'}; give it one")
    if not each.name.isprintable() or not each.key.isprintable():
        raise HarnessError(f"{label} has a control character in its key or name '{printable(each.name)}'; take it out")
    try:
        arity_bounds(each.arity)
    except ValueError:
        raise HarnessError(
            f"{label} has the arity '{printable(each.arity)}'; write how many arguments it takes as 2, 1-2, 1+ or 0+"
        ) from None
    for number, example in enumerate(each.examples, start=1):
        if f"<{each.name}>(" not in example:
            raise HarnessError(
                f"example {number} of {label} holds no call; write it as <{printable(each.name)}>(...)=result"
            )


def _check_distinct(tools: Sequence[Tool]) -> None:
    """Refuse two tools with one key, and a shared name that stands for a key of its own."""
    for key, count in Counter(each.key for each in tools).items():
        if count > 1:
            raise HarnessError(f"{count} tools have the key '{printable(key)}'; give each a key of its own")
    names = Counter(each.name for each in tools)
    for each in tools:
        if names[each.name] > 1 and each.key == each.name:
            raise HarnessError(
                f"{names[each.name]} tools are called '{printable(each.name)}' and one has that as its key, too; "
                "give each a key of its own"
            )
