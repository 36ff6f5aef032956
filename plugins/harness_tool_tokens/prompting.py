"""What the model reads: the text before a tool's arguments, and the list of tools for a model without tool rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import HarnessError
from harness.names import printable
from harness_tool_tokens.parts import Wanted
from harness_tool_tokens.tools import Tool, Toolbox

SLOT = "[QUESTION]"


class PromptBook:
    """Prompt texts by data set: those of a file where it has them, else made of the tools' own examples.

    Args:
        toolbox: whose tools are shown.
        file: JSON, ``{data set: {tool name: text with [QUESTION], "func": text with [QUESTION]}}``.

    Raises:
        HarnessError: the file is no such JSON.
    """

    def __init__(self, toolbox: Toolbox, file: Path | None = None) -> None:
        self.toolbox = toolbox
        self.texts: dict[str, dict[str, str]] = {} if file is None else _read(file)

    def of_tool(self, tool: Tool, wanted: Wanted) -> tuple[str, str]:
        """Return the text under which the model writes the arguments of ``tool``: what all questions share, and the rest."""
        text = self.texts.get(wanted.prompts or "", {}).get(tool.name)
        if text is not None and wanted.question is not None:
            before, _, after = text.partition(SLOT)
            return before, wanted.question + after + wanted.tail
        lines = [f"Answer the question with the tool <{tool.name}>{_of(tool)}.", *tool.examples]
        return "\n\n".join(lines) + "\n\n", wanted.ending

    def in_context(self, wanted: Wanted, tools: Sequence[Tool]) -> str:
        """Return the prompt that lists all ``tools``, with an example of each, for a model without tool rows."""
        text = self.texts.get(wanted.prompts or "", {}).get("func")
        if text is not None and wanted.question is not None:
            before, _, after = text.partition(SLOT)
            return wanted.head + before + wanted.question + after + wanted.tail
        names = [f"<{tool.name}>({tool.argument}){_of(tool)}" for tool in tools]
        examples = [tool.examples[0] for tool in tools if tool.examples]
        lines = ["Answer the question; these tools can be called:\n" + "\n".join(names), *examples]
        return wanted.head + "\n\n".join(lines) + "\n\n" + wanted.ending


def _of(tool: Tool) -> str:
    return f": {tool.description.rstrip('.')}" if tool.description else ""


def _read(file: Path) -> dict[str, dict[str, str]]:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HarnessError(f"prompts '{printable(file)}' cannot be read: {printable(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(texts, dict) for texts in content.values()):
        raise HarnessError(f"prompts '{printable(file)}' are no JSON object of objects, one for each data set")
    for name, texts in content.items():
        for key, text in texts.items():
            if not isinstance(text, str) or text.count(SLOT) != 1:
                raise HarnessError(
                    f"prompts '{printable(file)}': '{printable(key)}' of '{printable(name)}' has to be text with one {SLOT}"
                )
    return content
