"""A tool's worked examples as rows of text with calls: enough to set a bias, and to train on when there is nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness import HarnessError
from harness.tasks.written_calls import closing_bracket
from harness_tool_tokens.rows.texts import CallPlace, Row

if TYPE_CHECKING:
    from harness_tool_tokens.tools.toolbox import Toolbox

# The train_file that stands for them.
EXAMPLES = "examples"
RESULT = re.compile(r"=(\S+?)(?=[.,;:!?]*(?:\s|$))")


def example_rows(toolbox: Toolbox) -> list[Row]:
    """Return the examples in which each call is followed by ``=result``, the calls taken out and their results left.

    ``12+5=<add>(12, 5)=17 apples`` becomes ``12+5=17 apples`` with a call of ``add`` at ``17``.
    """
    rows = []
    for tool in toolbox:
        for number, example in enumerate(tool.examples):
            row = _row(f"{tool.key}-example-{number}", example, toolbox)
            if row is not None:
                rows.append(row)
    return rows


def needed_example_rows(toolbox: Toolbox) -> list[Row]:
    """Return ``example_rows``.

    Raises:
        HarnessError: there are none.
    """
    rows = example_rows(toolbox)
    if not rows:
        raise HarnessError(
            "train_file=examples trains on the tools' own examples, but none of them holds a call with its result, such as "
            "'<name>(1, 2)=3'; add some, or name a file"
        )
    return rows


def _row(name: str, example: str, toolbox: Toolbox) -> Row | None:
    keys = {tool.name: tool.key for tool in toolbox}
    text, calls, place = "", [], 0
    for match in re.finditer(r"<([^<>\n]{1,100})>\(", example):
        if match[1] not in keys or match.start() < place:
            continue
        end = closing_bracket(example[match.end() :])
        result = RESULT.match(example, match.end() + end + 1) if end is not None else None
        if end is None or result is None:
            continue
        text += example[place : match.start()]
        arguments = example[match.end() : match.end() + end]
        calls.append(CallPlace(keys[match[1]], len(text), len(text) + len(result[1]), arguments))
        text += result[1]
        place = result.end()
    return Row(name, text + example[place:], tuple(calls)) if calls else None
