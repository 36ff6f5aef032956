"""How records are named for people: the method, and the options that set it apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.names import printable

if TYPE_CHECKING:
    from harness.records.record import Record

# At a number that is not what it seems; the sentence stands below the table.
NOTED = "†"


def method_label(record: Record) -> str:
    """Return the method as people name it: ``stochastok`` alone, ``plugin:method`` where the two differ."""
    name = record.method.name
    return printable(name if record.plugin.name in {None, name} else f"{record.plugin.name}:{name}")


def options_that_differ(records: Sequence[Record]) -> list[str]:
    """Return the names of the options, plugin version included, that are not the same in all ``records``."""
    names = dict.fromkeys(name for record in records for name in record.method.options)
    return [name for name in names if len({_text(r.method.options.get(name, "")) for r in records}) > 1]


def _text(value: Any) -> str:
    return printable("none" if value is None else value)
