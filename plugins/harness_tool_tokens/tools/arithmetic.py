"""The thirteen arithmetic tools as a model sees them: what they are called, what they do, and worked examples."""

from __future__ import annotations

from pathlib import Path

from harness.json_lines import read_json_lines
from harness_tool_tokens.tools.operations import OPERATIONS
from harness_tool_tokens.tools.tool import Tool

ARITHMETIC: tuple[Tool, ...] = tuple(
    Tool(
        row["name"], row["name"], row["description"], arity=OPERATIONS[row["name"]][0], argument="number",
        examples=tuple(row["examples"]), kind="arithmetic",
    )
    for row in read_json_lines(Path(__file__).with_suffix(".jsonl"), {"name": str, "description": str, "examples": list})
)  # fmt: skip
"""In the order that rows of tools are numbered in; the first four are GSM8K's."""
