"""What is told of sides that another tool measured: which tool, what differs unasked, and what its files do not state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.comparing.sides import Side
from harness.names import printable
from harness.records.labels import tool_label
from harness.records.record import Record

# Told where both sides state it and it differs; nobody has to ask for it then.
_TOLD = ("model.name", "model.revision", "model.dtype", "model.quantization")
# What is not compared of our own records either.
_DECIDE_NOTHING = {"environment", "cost", "counts.docs", "settings.samples_digest"}


def notes_on(sides: Sequence[Side]) -> Iterator[str]:
    """Yield a sentence for each thing to know of sides with results of other tools; nothing where all are ours."""
    foreign = [side for side in sides if side.first.foreign is not None]
    if not foreign:
        return
    yield "; ".join(f"{printable(side.label)} was measured by {tool_label(side.first)}" for side in foreign)
    for field in _TOLD:
        values = [_value(side.first, field) for side in sides if side.first.states(field)]
        if len(set(values)) > 1:
            told = ", ".join(
                f"{_value(side.first, field)} for {printable(side.label)}" for side in sides if side.first.states(field)
            )
            yield f"{field.replace('.', ' ')}: {told}"
    unknown = dict.fromkeys(name for side in foreign for name in side.first.foreign.unknown)  # type: ignore[union-attr]
    said = [name.removeprefix("settings.") for name in unknown if name not in _DECIDE_NOTHING]
    if said:
        yield f"not stated by all sides, so neither assumed nor held against each other: {', '.join(said)}"


def _value(record: Record, field: str) -> str:
    part, _, name = field.partition(".")
    value = getattr(getattr(record, part), name)
    return "none" if value is None else printable(value)
