"""Digests of the harness's own code: what of it decides an answer, and what decides none."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent
# Modules and folders of harness/. The longest name that fits a module is its place, so a folder may stand in one list
# and a module of it in the other.
DECIDES = (
    "arguments",
    "control_groups",
    "cores",
    "folders",
    "generation_settings",
    "isolation",  # what a tool gives enters the answer
    "json_lines",
    "methods",
    "metrics",
    "models",
    "records.aggregation",  # a task may make its score with it
    "records.answers",
    "records.whole_scores",
    "requests",
    "run",
    "seeds",
    "tasks",
    "threads",  # another number of them is another rounding
)
DECIDES_NOTHING = (
    "__init__",
    "board",
    "cli",
    "commands",
    "comparing",
    "errors",
    "exports",
    "foreign",
    "hookspecs",
    "imports",
    "names",
    "own_code",
    "packages",
    "pages",
    "plain_files",
    "plugins",
    "progress",
    "publishing",
    "records",
    "redaction",
    "removal",
    "run.claims",
    "run.artefacts",
    "run.estimating",
    "run.exporting",
    "run.flags",
    "run.folder",
    "run.foreseeing",
    "run.named_code",
    "run.reproducing",
    "run.shards",
    "run.summary",
    "run.trying_tasks",
    "secret_shapes",
    "showing",
    "sweeps",
    "timeouts",
    "verifying",
    "viewing",
)
# What a method builds on: its training, and all that reads a model.
MAKES_METHODS = ("json_lines", "methods", "models", "seeds")


def code_of(parts: Iterable[str] = DECIDES) -> str:
    """Return the SHA-256 over the files of ``parts``, of which those that decide no answer are left out."""
    return _digest_of(tuple(sorted(parts)))


def module_names() -> dict[str, Path]:
    """Return the file of each module of harness/, by its name there: ``run.asking``, ``run.__init__``."""
    files = sorted(ROOT.rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


def place_of(module: str) -> str | None:
    """Return the entry of the two lists that a module belongs to, None where neither has one."""
    fitting = [place for place in (*DECIDES, *DECIDES_NOTHING) if f"{module}.".startswith(f"{place}.")]
    return max(fitting, key=len, default=None)


@functools.cache
def _digest_of(parts: tuple[str, ...]) -> str:
    # Read once: what is edited below a running process is not the code that runs.
    unknown = sorted(set(parts) - set(DECIDES))
    if unknown:
        raise ValueError(f"{unknown[0]} is no part of the harness that decides an answer")
    total = hashlib.sha256()
    for name, path in module_names().items():
        if place_of(name) in parts:
            total.update(name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
