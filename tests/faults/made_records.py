"""Records that name themselves: each has a number, so a test can tell which ones a file still holds."""

from __future__ import annotations

import json
from typing import Any

from harness.records.record import SCHEMA, Record

CONTENT: dict[str, Any] = {
    "schema_version": SCHEMA,
    "created": "2026-01-02T03:04:05Z",
    "plugin": {"name": "p", "distribution": "d", "version": "1", "code_digest": "c"},
    "method": {"name": "m", "options": {"steps": 3, "file": None}},
    "model": {"name": "tiny İıß 🎉", "digest": "abc", "dtype": "float32"},
    "tokenizer": {"digest": "def", "vocabulary": 400, "prefix_token_id": 0},
    "task": {"name": "t", "version": "1.0", "docs_digest": "d1"},
    "metric": {"name": "acc", "filter": "none", "higher_is_better": True},
    "value": 0.1 + 0.2,
    "stderr": 1e-7,
    "counts": {"docs": 4},
    "settings": {"num_fewshot": 2, "gen_kwargs": {"until": ["\n"]}},
    "environment": {
        "python": "3.11", "torch": "2", "transformers": "5", "lm_eval": "0.4", "peft": "0.1", "harness": "0.1",
        "platform": "Linux", "device": "cpu",
    },
    "batch_size": "8",
    "command": "harness eval",
}  # fmt: skip


def made(number: int, *, size: int = 0, **changes: Any) -> Record:
    """Return the record called ``number``, its line about ``size`` bytes longer than it has to be.

    Args:
        changes: top-level fields that differ.
    """
    seeds = {"random": number, "numpy": 1, "torch": 2, "fewshot": 3}
    padding = {"padding": "".join(chr(97 + (number + place) % 26) for place in range(26)) * (size // 26)}
    return Record.model_validate(CONTENT | {"seeds": seeds, "report": padding} | changes)


def number_of(record: Record) -> int:
    """Return the number of a record made here."""
    number = record.seeds.random
    assert number is not None
    return number


def line_of(record: Record) -> bytes:
    """Return the record's line with its newline, as a writer without a chain writes it."""
    return record.to_line().encode() + b"\n"


def plain(content: dict[str, Any], **changes: Any) -> bytes:
    """Return a line without key and digest: what another program might have written."""
    return json.dumps(content | changes, ensure_ascii=False).encode() + b"\n"
