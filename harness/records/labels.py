"""How records are named for people: the method, and the options that set it apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.names import printable

if TYPE_CHECKING:
    from harness.records.record import Record

# At a number that is not what it seems; the sentence stands below the table.
NOTED = "†"
# At a difference of two scores that do not compare as they stand; the sentence stands below the table.
DIFFERS = "‡"
MOST_PLACES = 8
# Values of an option that a sentence names, and characters of each.
MOST_VALUES, MOST_CHARACTERS = 4, 40


def method_label(record: Record) -> str:
    """Return the method as people name it: ``stochastok`` alone, ``plugin:method`` where the two differ."""
    name = record.method.name
    return printable(name if record.plugin.name in {None, name} else f"{record.plugin.name}:{name}")


def options_that_differ(records: Sequence[Record]) -> list[str]:
    """Return the names of the options, plugin version included, that are not the same in all ``records``."""
    names = dict.fromkeys(name for record in records for name in record.method.options)
    return [name for name in names if len({_text(r.method.options.get(name, "")) for r in records}) > 1]


def telling_options(records: Sequence[Record]) -> list[str]:
    """Return the options that tell all these apart, without those that only differ where others do already."""
    found: list[str] = []
    groups = 1
    for name in options_that_differ(records):
        told = len(
            {tuple(option_text(record.method.options.get(each)) for each in (*found, name)) for record in records}
        )
        if told > groups:
            found.append(name)
            groups = told
    return found


def told_methods(records: Sequence[Record]) -> list[str]:
    """Return the method of each record as people name it, with the options that tell it from others of its name."""
    alike: dict[str, list[Record]] = {}
    for record in records:
        alike.setdefault(method_label(record), []).append(record)
    telling = {label: telling_options(several) for label, several in alike.items()}
    found = []
    for record in records:
        label, options = method_label(record), record.method.options
        said = [f"{name}={option_text(options[name])}" for name in telling[label] if name in options]
        found.append(printable(label + (f" ({', '.join(said)})" if said else "")))
    return found


def untold_options(records: Sequence[Record]) -> list[str]:
    """Return a sentence for each method whose options differ in more than ``told_methods`` names, with their values."""
    alike: dict[str, list[Record]] = {}
    for record in records:
        alike.setdefault(method_label(record), []).append(record)
    found = []
    for label, several in alike.items():
        telling = telling_options(several)
        said = [_values(name, several, telling) for name in options_that_differ(several) if name not in telling]
        if said:
            found.append(printable(f"Rows of {label} also differ in {', '.join(said)}"))
    return found


def _values(name: str, records: Sequence[Record], telling: Sequence[str]) -> str:
    """Return an option with its values, those with the row that has them where each is of one row."""
    rows: dict[str, dict[str, None]] = {}
    for record in records:
        options = record.method.options
        told = ", ".join(f"{each}={option_text(options[each])}" for each in telling if each in options)
        rows.setdefault(option_text(options[name]) if name in options else "not given", {})[told] = None
    is_of_one_each = all(len(told) == 1 and "" not in told for told in rows.values())
    said = [
        _short(value) + (f" at {_short(next(iter(told)))}" if is_of_one_each else "")
        for value, told in list(rows.items())[:MOST_VALUES]
    ]
    more = [f"{len(rows) - MOST_VALUES} more"] if len(rows) > MOST_VALUES else []
    return f"{name} ({', '.join([*said, *more])})"


def _short(text: str) -> str:
    half = MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[: half - 1]}…{text[-half:]}"


def option_text(value: object) -> str:
    """Return an option's value as it is written on a command line: lists joined by +."""
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return "none" if value is None else str(value)


def model_label(record: Record) -> str:
    """Return the model as people name it: its name, its revision and the adapter that was put on it."""
    revision, adapter = record.model.revision, record.settings.model_args.get("peft")
    more = [*([f"revision {revision}"] if revision else []), *([f"adapter {adapter}"] if adapter else [])]
    return printable(", ".join([record.model.name, *more]))


def tool_label(record: Record) -> str:
    """Return the other tool that measured a record, with its version; empty of our own."""
    found = record.foreign
    return "" if found is None else printable(" ".join(filter(None, (found.tool, found.version))))


def places_of(error: float | None) -> int:
    """Return how many decimals a number with this error deserves: those of the error's first two digits; 4 without one."""
    if not error or error < 0 or not math.isfinite(error):
        return 4
    return min(max(1 - math.floor(math.log10(error)), 0), MOST_PLACES)


def _text(value: Any) -> str:
    return printable("none" if value is None else value)
