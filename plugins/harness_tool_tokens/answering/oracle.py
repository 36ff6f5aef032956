"""The answer that right calls give: what is wrong in it is lost by the tools and the question, not by the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.requests import Explained
from harness_tool_tokens.answering.parts import Wanted, around, plan_with
from harness_tool_tokens.tools.call import Call

if TYPE_CHECKING:
    from harness_tool_tokens.tools.arguments import Outcome

FORCED = "oracle call"


def oracle_answer(wanted: Wanted, execute: Callable[[str, str], Outcome]) -> Explained:
    """Run the right calls one after the other and answer with the last result.

    Args:
        wanted: with its right calls.
        execute: runs a call, given a tool's key and the text of its arguments.
    """
    if wanted.procedure == "name":
        key = str(wanted.gold[0]["tool"])
        return _explained(f" <{key}>", [Call(key, 1, forced=FORCED)])
    calls: list[Call] = []
    text = ""
    if wanted.procedure == "plan":
        for gold in wanted.gold:
            calls.append(Call(str(gold["tool"]), len(text), forced=FORCED))
            text = plan_with(text, str(gold["result"]))
        return _explained(text if text.endswith(wanted.end) else plan_with(text, wanted.end), calls)
    lines: list[str] = []
    for gold in wanted.gold:
        key, arguments = str(gold["tool"]), str(gold["args"])
        outcome = execute(key, arguments)
        at = sum(len(line) + 1 for line in lines)
        calls.append(Call(key, at, None, arguments, outcome.text, outcome.error, outcome.detail, FORCED))
        # Some right answers have a sign before the call.
        lines.append((gold.get("before") or "") + (outcome.text or f"[{outcome.error}]"))
    if calls[-1].error is not None:  # an earlier result is no answer
        return _explained(lines[-1], [replace(call, at=0) for call in calls])
    return _explained("\n".join([*lines, f"#### {lines[-1]}"]), calls)


def _explained(text: str, calls: list[Call]) -> Explained:
    return Explained(text, around(text, calls))
