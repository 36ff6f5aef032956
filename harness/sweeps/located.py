"""YAML with the line of everything in it; what YAML would silently lose, or blow up, is refused."""

from __future__ import annotations

import datetime
import json
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.errors import HarnessError
from harness.names import printable

MOST_BYTES = 1_000_000
MOST_VALUES = 100_000
MOST_LEVELS = 50
MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Located:
    """A value, and where it stands.

    Attributes:
        value: as YAML means it: text, numbers, lists, mappings.
        where: how an error calls the place: ``sweep.yaml:7``; of an entry of a mapping, that of its key.
        text: how a single value is written.
        parts: of a list or a mapping, what it is made of.
    """

    value: Any
    where: str = field(compare=False)
    text: str = field(default="", compare=False)
    parts: list[Located] | dict[str, Located] | None = field(default=None, repr=False, compare=False)

    @property
    def items(self) -> list[Located]:
        """The parts of a list; of anything else, itself alone."""
        return self.parts if isinstance(self.parts, list) else [self]

    @property
    def entries(self) -> dict[str, Located]:
        """The parts of a mapping by their keys."""
        return self.parts if isinstance(self.parts, dict) else {}

    @property
    def mark(self) -> str:
        """What tells it from other values: 0 and "0" are one, 1 and true are two."""
        is_single = not isinstance(self.value, list | Mapping)
        return as_text(self.value) if is_single else json.dumps(self.value, sort_keys=True, default=str)

    def mistake(self, sentence: object) -> HarnessError:
        """Return the error that says a sentence of this place."""
        return HarnessError(f"{self.where}: {sentence}")


def located(value: Any, where: str) -> Located:
    """Return a plain value as if it stood in a file, all of it at one place."""
    parts: list[Located] | dict[str, Located] | None = None
    if isinstance(value, list):
        parts = [located(part, where) for part in value]
    elif isinstance(value, Mapping):
        parts = {str(name): located(part, where) for name, part in value.items()}
    return Located(value, where, as_text(value), parts)


def as_text(value: Any) -> str:
    """Return a single value as YAML writes it, empty for a list or a mapping."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return "" if isinstance(value, list | Mapping) else str(value)


def read(path: Path) -> Located:
    """Return the mapping that a file holds.

    Raises:
        HarnessError: there is none, it is no text or no YAML, gives a key twice, or its aliases grow without bounds; file and
            line are named.
    """
    shown = printable(path)
    content = _content(path, shown)
    kind = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_levels(content, kind, shown)
        loader = kind(content)
        node = loader.get_single_node()
        if node is None:
            raise HarnessError(f"{shown}: it holds nothing; give `name: value`, as of the flags of `harness eval`")
        found = _Made(loader, shown).of(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{shown}:{mark.line + 1}" if mark else shown
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise HarnessError(f"{place}: this is no YAML: {printable(problem)}") from error
    if not isinstance(found.parts, dict):
        raise HarnessError(f"{found.where}: a sweep is `name: value`, as of the flags of `harness eval`")
    return found


def _content(path: Path, shown: str) -> str:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise HarnessError(f"{shown} is a folder; give the file of a sweep in it, such as {shown}/sweep.yaml")
        if not stat.S_ISREG(status.st_mode):  # a pipe would wait for a writer
            raise HarnessError(f"{shown} is no ordinary file")
        if status.st_size > MOST_BYTES:
            raise HarnessError(f"{shown} is larger than {MOST_BYTES:,} bytes, which no file of a sweep is")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HarnessError(f"the sweep '{shown}' cannot be read: {printable(reason)}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise HarnessError(f"{shown}:{line}: this is no UTF-8 text") from error


def _check_levels(content: str, kind: Any, shown: str) -> None:
    """Raise before a composer that calls itself for each level is given too many."""
    level = 0
    for event in yaml.parse(content, Loader=kind):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            line = "" if event.start_mark is None else f":{event.start_mark.line + 1}"
            raise HarnessError(f"{shown}{line}: this is nested too deep")


class _Made:
    """What nodes of YAML are as values, with their places."""

    def __init__(self, loader: Any, shown: str) -> None:
        self._loader, self._shown = loader, shown
        self._within: list[int] = []
        self._count = 0

    def of(self, node: yaml.Node, key: yaml.Node | None = None) -> Located:
        """Return what a node is; ``key`` is that of its entry."""
        where = self._where(key or node)
        self._count += 1
        if self._count > MOST_VALUES:
            raise HarnessError(f"{where}: its aliases grow to more than {MOST_VALUES:,} values")
        if id(node) in self._within:
            raise HarnessError(f"{where}: it holds itself, by an alias")
        self._within.append(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                parts = self._entries(node)
                return Located({name: part.value for name, part in parts.items()}, where, parts=parts)
            if isinstance(node, yaml.SequenceNode):
                items = [self.of(child) for child in node.value]
                return Located([item.value for item in items], where, parts=items)
            return Located(self._scalar(node, where), where, str(node.value))
        finally:
            self._within.pop()

    def _entries(self, node: yaml.MappingNode) -> dict[str, Located]:
        """Return what a mapping holds, what is merged into it by ``<<`` included; its own keys win."""
        merged: dict[str, Located] = {}
        own: dict[str, Located] = {}
        lines: dict[str, str] = {}
        for key, value in node.value:
            where = self._where(key)
            if key.tag == MERGE:
                for mapping in self._merged(value, where):
                    merged = self._entries(mapping) | merged
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise HarnessError(f"{where}: a key has to be a name")
            name = str(key.value)
            if name in own:
                first = lines[name].rpartition(":")[2]
                raise HarnessError(f"{where}: '{printable(name)}' stands here again, after line {first}; give it once")
            own[name], lines[name] = self.of(value, key), where
        return {name: own.get(name, part) for name, part in (merged | own).items()}

    def _merged(self, node: yaml.Node, where: str) -> Iterator[yaml.MappingNode]:
        for mapping in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(mapping, yaml.MappingNode):
                raise HarnessError(f"{where}: << takes mappings, as an alias gives them")
            self._count += 1
            if self._count > MOST_VALUES or id(mapping) in self._within:
                raise HarnessError(f"{where}: its aliases grow to more than {MOST_VALUES:,} values")
            yield mapping

    def _scalar(self, node: yaml.Node, where: str) -> Any:
        try:
            value = self._loader.construct_object(node)
        except yaml.constructor.ConstructorError as error:
            raise HarnessError(f"{where}: '{printable(node.tag)}' is understood by no sweep; leave it out") from error
        except ValueError:  # what looks like a date and is none
            value = str(node.value)
        is_plain = value is None or isinstance(value, str | int | float)
        return str(node.value) if isinstance(value, datetime.date) or not is_plain else value

    def _where(self, node: yaml.Node) -> str:
        return f"{self._shown}:{node.start_mark.line + 1}"
