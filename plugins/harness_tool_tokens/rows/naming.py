"""The text that stands for a tool: its name as people write it, its description, or both."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from harness_tool_tokens.tools.tool import Tool
    from harness_tool_tokens.tools.toolbox import Toolbox

SLOT = re.compile(r"\{(name|description|name\+description)\}")
_CAPITALS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def prior_texts(toolbox: Toolbox, text: str = "{name}") -> list[str]:
    """Return the text that stands for each tool.

    Names lose ``[ ] < >``, have spaces for underscores and before capitals inside them. A tool without a description
    is described by its name.

    Args:
        text: with a slot ``{name}``, ``{description}`` or ``{name+description}``.

    Raises:
        HarnessError: it has no such slot.
    """
    check_slot(text)
    return [SLOT.sub(lambda slot, tool=tool: _text(tool, slot[1]), text) for tool in toolbox]  # type: ignore[misc]


def check_slot(text: str) -> None:
    """Raise ``HarnessError`` where a text has no slot for a tool's name or description."""
    if not SLOT.search(text):
        raise HarnessError(
            f"prior_text '{printable(text)}' has no slot; write {{name}}, {{description}} or {{name+description}} where the "
            "tool's text goes"
        )


def _text(tool: Tool, use: str) -> str:
    spelled = " ".join(re.sub(r"[\[\]<>]", " ", tool.name).replace("_", " ").split())
    name = _CAPITALS.sub(" ", spelled) or tool.key
    if use == "name" or not tool.description:
        return name
    if use == "description":
        return tool.description
    return f"{name}: {tool.description}"
