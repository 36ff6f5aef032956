"""Tool tokens: a frozen model calls tools through learned rows of its output head (Hao et al., 2023; Li et al., 2025)."""

from __future__ import annotations

from pathlib import Path

from harness import Method, hookimpl
from harness_tool_tokens.tools.tool import tool

__all__ = ["harness_methods", "harness_task_folders", "tool"]


@hookimpl
def harness_methods() -> list[type[Method]]:
    """Offer tool tokens."""
    from harness_tool_tokens.method import ToolTokens

    return [ToolTokens]


@hookimpl
def harness_task_folders() -> list[Path]:
    """Offer the tasks that belong to this method alone."""
    return [Path(__file__).parent / "tasks"]
