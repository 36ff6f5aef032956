"""A run of another tool on the terminal: what its files state of it, and what they do not."""

from __future__ import annotations

from typing import Any

from harness.records.grouping import weights_label
from harness.records.labels import model_label, tool_label
from harness.records.record import UNKNOWN, Record


def what_ran(run: str, record: Record) -> list[tuple[str, Any]]:
    """Return name and value of each line on a run, of which ``record`` is the first, without what its files leave out."""
    assert record.foreign is not None
    tool, settings = record.foreign, record.settings.model_dump(exclude_defaults=True)
    seeds = {name: seed for name, seed in record.seeds.model_dump().items() if seed is not None}
    weights = weights_label(record) if record.states("model.dtype") else ""
    told: list[tuple[str, Any]] = [
        ("run", run),
        ("measured by", tool_label(record)),
        *record.method.options.items(),
        ("model", ", ".join(filter(None, (model_label(record), weights)))),
        *((name.replace("_", " "), value) for name, value in settings.items()),
        *(("note", note) for note in record.notes),
    ]
    if seeds:
        told.append(("seeds", ", ".join(f"{name} {seed}" for name, seed in seeds.items())))
    if record.created != UNKNOWN:
        told.append(("created", record.created))
    return [*told, ("not stated", ", ".join(tool.unknown))]
