"""What the files of another tool state, as the content of a record; what they do not state is a placeholder, and listed."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.names import printable
from harness.plain_files import open_plain
from harness.redaction import redact_json

UNKNOWN = "unknown"
# What mteb calls the one of a task's metrics that it is judged by.
MAIN_SCORE = "main_score"
# No file that is read whole is larger: parsed, it takes several times as much memory.
MOST_BYTES = 500_000_000
# What a record of our own would state, by field or whole part, in the order in which it is told.
ASKED = (
    "model.digest", "model.dtype", "model.quantization", "task.version", "task.docs_digest", "task.prompts_digest",
    "counts.docs", "settings.num_fewshot", "settings.limit", "settings.samples_digest", "settings.apply_chat_template",
    "settings.fewshot_as_multiturn", "settings.system_instruction", "settings.gen_kwargs", "settings.metadata",
    "settings.model_args", "seeds", "tokenizer", "environment", "cost",
)  # fmt: skip
_ENVIRONMENT = ("python", "torch", "transformers", "lm_eval", "peft", "harness", "platform", "device")


@dataclass(frozen=True)
class Measured:
    """One score of a foreign file.

    Attributes:
        content: of a record, without what only its samples tell; ``with_unknown`` made it.
        samples: the file whose rows ``harness.records.samples`` reads, None where there is none.
    """

    content: dict[str, Any]
    samples: Path | None = None


@dataclass
class Given:
    """What a foreign file gave: scores, and a sentence for each thing that is wrong with it."""

    scores: list[Measured] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def with_unknown(
    tool: str, version: str | None, parts: Mapping[str, Any], *, stated: Collection[str], trial: str | None = None
) -> dict[str, Any]:
    """Return the content of a record: ``parts`` as they are, placeholders elsewhere, secrets taken out.

    Args:
        tool: as people name it.
        version: as its files state it.
        parts: the parts of a record that are known, some of their fields perhaps.
        stated: those of ``ASKED`` that the files state.
        trial: what tells this measurement from others of the same configuration, where seeds do not.
    """
    unknown = [name for name in ASKED if name not in stated]
    content: dict[str, Any] = {
        "schema_version": 1,
        "created": UNKNOWN,
        "method": {"name": tool},
        "batch_size": UNKNOWN,
        **{name: value for name, value in parts.items() if not isinstance(value, Mapping)},
        "model": {"digest": UNKNOWN, "dtype": UNKNOWN, "quantization": UNKNOWN},
        "tokenizer": {"digest": UNKNOWN, "vocabulary": None},
        "task": {"version": UNKNOWN},
        "counts": {"docs": 0},
        "environment": dict.fromkeys(_ENVIRONMENT, UNKNOWN),
        "foreign": {"tool": tool, "version": version, "unknown": unknown, "trial": trial},
    }
    for name, part in parts.items():
        if isinstance(part, Mapping):
            known = {key: value for key, value in part.items() if value is not None}
            content[name] = {**content.get(name, {}), **known}
    return dict(redact_json(content))


def number(value: Any) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def score_of(value: Any) -> dict[str, Any]:
    """Return the fields that say what a score is: a number, or that there is none."""
    found = number(value)
    return {"value": found, "status": "invalid" if found is None else "ok"}


def time_of(seconds: Any) -> str:
    """Return seconds since 1970, a number or its text, as our records write a time; ``unknown`` where they are none."""
    try:
        return datetime.fromtimestamp(float(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (TypeError, ValueError, OverflowError, OSError):
        return UNKNOWN


def json_of(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        HarnessError: it cannot be read, is too large, or no whole JSON.
    """
    try:
        with open_plain(path) as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise HarnessError(f"cannot be read ({printable(error.strerror or error)})") from error
    if len(text) > MOST_BYTES:
        raise HarnessError(f"holds more than {MOST_BYTES / 1e6:.0f} MB of JSON, which is not read whole")
    return parsed(text)


def parsed(text: bytes) -> Any:
    """Return what JSON says.

    Raises:
        HarnessError: it is none, or cut.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"is no whole JSON, it may be cut ({printable(error)[:120]})") from error


def part(content: Any, *names: str) -> dict[str, Any]:
    """Return the object at a path of names, an empty one where there is none."""
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def entries(content: Any, *names: str) -> list[Any]:
    """Return the list at a path of names, an empty one where there is none."""
    found = part(content, *names[:-1]).get(names[-1])
    return found if isinstance(found, list) else []
