"""Parts of records that were read already: the thousands of records of a board share models, settings and versions."""

from __future__ import annotations

import marshal
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.records import beside
from harness.records.record import FINITE, Record, canonical, field_text

# No float holds a larger one.
MOST_NUMBER = 10**300
# What many records have in common; not the numbers, and not what only one record has.
SHARED = frozenset(Record.model_fields) - {"value", "stderr"}


@dataclass(frozen=True, slots=True)
class Known:
    """A part of a record, its canonical JSON, and how many strings are in it, names included."""

    part: Any
    text: str
    strings: int


class Parts:
    """Gives each part of a record once, however many records have it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes | str], Known] = {}
        self._names: dict[frozenset[str], set[str]] = {}
        self._files: dict[tuple[Path, str, str], dict[str, tuple[Known, str]]] = {}

    def of(self, name: str, content: Any) -> Known:
        """Return the part called ``name`` with this content: made, written as text and counted once."""
        if name not in SHARED:
            # A finite float, the most frequent case, is its own JSON.
            text = repr(content) if type(content) is float and math.isfinite(content) else field_text(name, content)
            return Known(content, text, count_strings(content))
        key = (name, content if isinstance(content, str) else marshal.dumps(content))
        known = self._known.get(key)
        if known is None:
            part, text = _part(name, content), field_text(name, content)
            known = self._known[key] = Known(part, text, count_strings(content))
        return known

    def beside(self, content: dict[str, Any], folder: Path) -> dict[str, Known]:
        """Return the fields that stand beside a ledger in ``folder``, by the files that a line with this content names.

        Raises:
            ValueError: a file is not there or not what its name says, or the line says otherwise.
        """
        names = beside.named(content.get(beside.FIELD, {}))
        if names and "digest" not in content:
            raise ValueError("it leaves out fields and has no digest that vouches for them")
        found: dict[str, Known] = {}
        for where, digest in names.items():
            for name, (known, left) in self._file(folder, where, digest).items():
                found[name] = known
                if canonical(content.get(name)) != left:
                    raise ValueError(f"its {name} is not what {where}/{digest}.json says: it was edited or damaged")
        return found

    def _file(self, folder: Path, where: str, digest: str) -> dict[str, tuple[Known, str]]:
        """Return the fields in a file beside a ledger, each with what a line that names the file keeps of it."""
        place = (folder, where, digest)
        if place not in self._files:
            fields = beside.read(folder, where, digest)
            self._files[place] = {n: (self.of(n, v), canonical(beside.kept(n, v))) for n, v in fields.items()}
        return self._files[place]

    def record(self, fields: dict[str, Any]) -> Record:
        """Return the record with these parts as fields."""
        record = Record.model_validate(fields, context=FINITE)
        # pydantic notes in every record which fields were given: the same few sets, 2 kB each.
        names = record.__pydantic_fields_set__
        object.__setattr__(record, "__pydantic_fields_set__", self._names.setdefault(frozenset(names), names))
        return record


def _part(name: str, content: Any) -> Any:
    kind: Any = Record.model_fields[name].annotation if isinstance(content, dict) else None
    try:
        return kind.model_validate(content) if hasattr(kind, "model_validate") else content
    except ValidationError:
        return content  # the record's own validation says it with the name of the part


def count_strings(value: Any) -> int:
    """Return how many strings are in a JSON value, names included.

    Raises:
        ValueError: it holds a number that nothing here can compute with.
    """
    if isinstance(value, dict):
        return len(value) + sum(map(count_strings, value.values()))
    if isinstance(value, list):
        return sum(map(count_strings, value))
    if type(value) is int and abs(value) > MOST_NUMBER:
        raise ValueError("a whole number in it is too large to compute with")
    return isinstance(value, str)
