"""What an answer with tools is made of: what its task tells, bounds, and how calls stand in text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness_tool_tokens.tools.call import Call

SHOWN = 80  # characters of text around a call in its trace


@dataclass(frozen=True)
class Limits:
    """Bounds and choices of every answer; see the method's options of the same names."""

    max_calls: int = 10
    max_argument_tokens: int = 64
    on_error: Literal["next_best", "text", "stop"] = "next_best"


@dataclass(frozen=True)
class Wanted:
    """What a task tells of one answer.

    Args:
        context: the prompt as the task has it.
        procedure: calls tools and goes on, ends with the name of a tool, or writes a plan of tool tokens.
        question: the question alone, as it stands in ``context``; None where the task does not tell.
        ending: the end of ``context``, from the question on.
        head, tail: what of ``context`` a chat template put before the user's last words and behind them.
        prompts: the data set whose prompt texts are used.
        gold: the right calls, in order, where the task tells.
        allowed: numbers of the tools that may fire; None: all.
        objects: what a plan may name (plans only).
        end: the token that ends a plan.
    """

    context: str
    procedure: Literal["calls", "name", "plan"] = "calls"
    question: str | None = None
    ending: str = ""
    head: str = ""
    tail: str = ""
    prompts: str | None = None
    gold: tuple[dict[str, Any], ...] = ()
    allowed: frozenset[int] | None = None
    objects: frozenset[str] = frozenset()
    end: str = "[END]"


def around(text: str, calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Return the trace of an answer's calls, each with some of the text before it and after."""
    return [
        asdict(call) | {"before": text[max(0, call.at - SHOWN) : call.at], "after": text[call.at : call.at + SHOWN]}
        for call in calls
    ]


def plan_with(plan: str, token: str) -> str:
    """Return a plan with one more token: an action begins a line, an object ends it."""
    if not token.startswith("["):
        return f"{plan} {token}\n"
    return plan + ("\n" if plan and not plan.endswith("\n") else "") + token
