"""A task that was tried out, on the terminal: what it is, one document of it, and the requests that this becomes."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.names import counted, printable
from harness.showing.runs import console

if TYPE_CHECKING:
    from harness.run.trying_tasks import Request, Tried

# What lm-eval calls the version of a file that has none.
UNVERSIONED = "Yaml"
LONGEST, MOST_REQUESTS, INDENT = 1_000, 4, "    "


def print_tried(task: Tried) -> None:
    """Print a task with its first document."""
    width = console().width
    for name, text in _lines(task):
        for number, line in enumerate(text.splitlines() or [""]):
            start = f"{name if number == 0 else '':<10} "
            for part in textwrap.wrap(line, width, initial_indent=start, subsequent_indent=" " * 11) or [
                start.rstrip()
            ]:
                print(part)


def _lines(task: Tried) -> Iterator[tuple[str, str]]:
    whose = f", of plugin {printable(task.plugin)}" if task.plugin else ""
    version = "no version" if task.version == UNVERSIONED else f"version {task.version}"
    yield "task", f"{printable(task.name)}, {printable(version)}{whose}"
    if task.file:
        yield "file", printable(task.file)
    split = f" in split {printable(task.split)}" if task.split else ""
    yield "data", f"{printable(task.data)}: {counted(task.documents, 'document')}{split}"
    yield (
        "asks",
        f"{printable(task.output_type)}, {counted(task.shots, 'shot')} unless --num_fewshot says another number",
    )
    for metric, aggregation in task.metrics.items():
        arrow = {True: "higher is better", False: "lower is better", None: "neither way is better"}
        better = arrow[task.higher_is_better.get(metric)]
        yield "metric", f"{printable(metric)}: {printable(aggregation or 'an aggregation of its own')}, {better}"
    yield "document", _shown(task.document)
    kinds = dict.fromkeys(request.kind for request in task.requests)
    yield "requests", f"{len(task.requests)} of type {', '.join(map(printable, kinds))} for this document"
    for number, request in enumerate(task.requests[:MOST_REQUESTS], start=1):
        yield f"request {number}", _asked(request)
    if len(task.requests) > MOST_REQUESTS:
        yield "", f"and {len(task.requests) - MOST_REQUESTS} more"
    if task.target not in (None, ""):
        yield "target", _shown(task.target)
    if task.scored is not None:
        said = ", ".join(f"{printable(name)} {_shown(value)}" for name, value in task.scored.items())
        yield "scored", f"the right answer gets {said}"
    yield from (("note", printable(note)) for note in task.notes)


def _asked(request: Request) -> str:
    """Return the arguments of a request, white space at their ends made visible."""
    return "\n".join(_shown(part) for part in request.arguments)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)")


def as_json(task: Tried) -> dict[str, Any]:
    """Return a task that was tried out as JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(task), default=str))
    return plain
