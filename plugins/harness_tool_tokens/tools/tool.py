"""Tool, and the decorator that makes one of a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.errors import HarnessError
from harness.names import printable

Function = TypeVar("Function", bound=Callable[..., Any])

WORKER = "harness_tool_tokens.tools.worker"
"""The module that runs tools in a process of their own."""

MARK = "harness_tool"
"""The attribute by which ``tool`` marks a function: a dictionary of the fields of its Tool that were given."""


@dataclass(frozen=True)
class Tool:
    """Something a model can call.

    Attributes:
        key: unique in a toolbox.
        name: what prompts show, as ``<name>(``.
        description: one sentence.
        arity: how many arguments it takes: ``2``, ``1-2``, ``1+`` or ``0+``.
        argument: what it is called with, for lists of tools, such as ``station``.
        examples: worked examples, ``"Q: ...\\nA: ... <name>(a, b)=result ..."``.
        kind: ``none`` can be chosen, but has no code to run.
        source: of a ``python`` tool, ``FILE.py:function``.
        text: what a chosen tool puts into a plan, such as ``[WALK]``.
    """

    key: str
    name: str
    description: str = ""
    arity: str = "0+"
    argument: str = ""
    examples: tuple[str, ...] = ()
    kind: Literal["arithmetic", "python", "none"] = "none"
    source: str = ""
    text: str = ""


def tool(
    *,
    description: str,
    examples: Sequence[str] = (),
    name: str | None = None,
    key: str | None = None,
    arity: str | None = None,
) -> Callable[[Function], Function]:
    """Make a function a tool: written before it in a file that ``tools`` names.

    The function gets the arguments of a call as text, or as numbers where its parameters are annotated ``int`` or
    ``float``. It may print, take its time up to the limit, and raise where it has no result.

    Args:
        description: one sentence on what it gives.
        examples: worked examples that hold ``<name>(``; two are enough for a start.
        name: what prompts show; the function's own by default.
        key: unique among all tools; the name by default.
        arity: how many arguments it takes; by default as many as the function does.
    """
    if isinstance(examples, str):
        raise HarnessError("the examples of a tool are one text; give a list of texts")
    given = {"name": name, "key": key, "arity": arity, "description": description, "examples": list(examples)}

    def mark(function: Function) -> Function:
        try:
            setattr(function, MARK, {field: value for field, value in given.items() if value is not None})
        except AttributeError as error:
            raise HarnessError(
                f"{printable(function)} cannot be marked as a tool; mark a function made with def"
            ) from error
        return function

    return mark


def source_parts(source: str) -> tuple[Path, str]:
    """Return the file and the function of ``FILE.py:function``."""
    file, _, function = source.rpartition(":")
    return Path(file), function
