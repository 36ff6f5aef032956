"""What the model reads: the text before a tool's arguments, and the list of tools for a model without tool rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from harness import HarnessError
from harness.names import printable
from harness_tool_tokens.answering.parts import Wanted
from harness_tool_tokens.tasks.data import QUESTION_SLOT, read_prompts
from harness_tool_tokens.tools.tool import Tool
from harness_tool_tokens.tools.toolbox import Toolbox


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

    @property
    def digest(self) -> str:
        """The SHA-256 of the file's texts."""
        return hashlib.sha256(json.dumps(self.texts, sort_keys=True).encode()).hexdigest()

    def of_tool(self, tool: Tool, wanted: Wanted) -> tuple[str, str]:
        """Return the text under which the model writes the arguments of ``tool``: what all questions share, and the rest."""
        text = self.texts.get(wanted.prompts or "", {}).get(tool.name)
        if text is not None and wanted.question is not None:
            before, _, after = text.partition(QUESTION_SLOT)
            return before, wanted.question + after + wanted.tail
        lines = [f"Answer the question with the tool <{tool.name}>{_of(tool)}.", *tool.examples]
        return "\n\n".join(lines) + "\n\n", wanted.ending

    def in_context(self, wanted: Wanted, tools: Sequence[Tool]) -> str:
        """Return the prompt that lists all ``tools``, with an example of each, for a model without tool rows."""
        text = self.texts.get(wanted.prompts or "", {}).get("func")
        if text is not None and wanted.question is not None:
            before, _, after = text.partition(QUESTION_SLOT)
            return wanted.head + before + wanted.question + after + wanted.tail
        names = [f"<{tool.name}>({tool.argument}){_of(tool)}" for tool in tools]
        examples = [tool.examples[0] for tool in tools if tool.examples]
        lines = ["Answer the question; these tools can be called:\n" + "\n".join(names), *examples]
        return wanted.head + "\n\n".join(lines) + "\n\n" + wanted.ending


def _of(tool: Tool) -> str:
    return f": {tool.description.rstrip('.')}" if tool.description else ""


def _read(file: Path) -> dict[str, dict[str, str]]:
    content = read_prompts(file)
    for name, texts in content.items():
        for key, text in texts.items():
            if text.count(QUESTION_SLOT) != 1:
                raise HarnessError(
                    f"prompts '{printable(file)}': '{printable(key)}' of '{printable(name)}' has to hold one {QUESTION_SLOT}"
                )
    return content
