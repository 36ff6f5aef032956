"""Tools as an answer uses them: the toolbox, its rows in the head, and the bias that opens a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness_tool_tokens.answering.parts import Limits
from harness_tool_tokens.answering.tool_head import ToolHead

if TYPE_CHECKING:
    from harness_tool_tokens.answering.prompting import PromptBook
    from harness_tool_tokens.tools.executing import Executor
    from harness_tool_tokens.tools.toolbox import Toolbox


@dataclass(frozen=True)
class Tools:
    """All that makes a model one with tools.

    Args:
        toolbox: the tools.
        head: their rows; None for variants that have none.
        executor: runs the calls.
        prompts: the texts under which arguments are written.
        limits: bounds on every answer.
        variant: tools, no_tools, in_context, oracle_tool or oracle_call.
        trained_on: digests of the texts that the rows were trained on, and of their beginnings.
    """

    toolbox: Toolbox
    head: ToolHead | None
    executor: Executor
    prompts: PromptBook
    limits: Limits = field(default_factory=Limits)
    variant: str = "tools"
    trained_on: frozenset[str] = frozenset()

    @property
    def is_in_context(self) -> bool:
        """Whether the model writes calls as text; then no tool row takes part."""
        return self.variant == "in_context"
