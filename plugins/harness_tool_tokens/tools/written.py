"""Calls as they are written in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness.tasks.written_calls import closing_bracket

if TYPE_CHECKING:
    from harness_tool_tokens.tools.tool import Tool


def first_call(text: str, toolbox: Iterable[Tool]) -> tuple[Tool, int, int] | None:
    """Return the first whole call that is written in ``text``: its tool, where it starts, where its bracket closes."""
    names = {tool.name: tool for tool in toolbox}
    for match in re.finditer(r"<([^<>\n]{1,100})>\(|\b(\w+)\(", text):
        tool = names.get(match[1] or match[2])
        end = closing_bracket(text[match.end() :]) if tool is not None else None
        if tool is not None and end is not None:
            return tool, match.start(), match.end() + end
    return None
