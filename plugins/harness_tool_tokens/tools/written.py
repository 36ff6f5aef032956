"""Calls as they are written in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness_tool_tokens.tools.tool import Tool


def closing_bracket(text: str) -> int | None:
    """Return where the bracket closes that was opened before ``text``; None where it does not before the line ends."""
    depth = 0
    for place, character in enumerate(text):
        if character == "\n":
            return None
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return place
    return None


def first_call(text: str, toolbox: Iterable[Tool]) -> tuple[Tool, int, int] | None:
    """Return the first whole call that is written in ``text``: its tool, where it starts, where its bracket closes."""
    names = {tool.name: tool for tool in toolbox}
    for match in re.finditer(r"<([^<>\n]{1,100})>\(|\b(\w+)\(", text):
        tool = names.get(match[1] or match[2])
        end = closing_bracket(text[match.end() :]) if tool is not None else None
        if tool is not None and end is not None:
            return tool, match.start(), match.end() + end
    return None
