"""What a request and its document tell of an answer, and whether it may be asked at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness import HarnessError
from harness.methods.known_texts import text_digest
from harness.models.guards import named
from harness_tool_tokens.answering.parts import Wanted

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from harness.models.chat import ChatTemplate
    from harness_tool_tokens.answering.equipped import Tools


def wanted_of(request: Instance, tools: Tools, chat: ChatTemplate | None) -> Wanted:
    """Return what a request's document and prompt tell; ``doc["tool_use"]`` is described in the plugin's README.

    Args:
        chat: the tokenizer's chat template, which may have made the prompt.

    Raises:
        HarnessError: an oracle is asked for what the document does not tell.
    """
    doc = request.doc if isinstance(request.doc, dict) else {}
    told: dict[str, Any] = doc.get("tool_use") or {}
    context = str(request.args[0])
    question = told.get("question") or doc.get("question")
    if not isinstance(question, str) or not question or question not in context:
        question = None
    head, tail = chat.around(context) if chat else ("", "")
    start = context.rfind("\n\n", 0, context.rfind(question)) if question else -1
    gold = tuple(told.get("calls") or ())
    if tools.variant in {"oracle_tool", "oracle_call"} and not gold:
        raise HarnessError(f"{named(request)}: its task tells no right calls, which {tools.variant} needs")
    allowed, known = told.get("tools"), set(tools.toolbox.keys)
    wanted = Wanted(
        context=context,
        procedure=told.get("procedure", "calls"),
        question=question,
        ending=context[max(start + 2, len(head)) :] if start >= 0 else context[len(head) :],
        head=head,
        tail=tail,
        prompts=told.get("prompts"),
        gold=gold,
        allowed=None if allowed is None else frozenset(tools.toolbox.number(key) for key in allowed if key in known),
        objects=frozenset(str(name).strip("<>") for name in told.get("objects") or ()),
        end=str(told.get("end") or "[END]"),
    )
    if not tools.is_in_context:
        return wanted
    shown = [tool for n, tool in enumerate(tools.toolbox) if wanted.allowed is None or n in wanted.allowed]
    return replace(wanted, context=tools.prompts.in_context(wanted, shown))


def check(request: Instance, wanted: Wanted, tools: Tools) -> None:
    """Raise ``HarnessError`` when the answer would mean nothing: it was trained on, or is no plan that can be written."""
    if wanted.procedure == "plan":
        _check_plan(request, tools)
    if wanted.question is None or not tools.trained_on:
        return
    if text_digest(wanted.question) in tools.trained_on:
        raise HarnessError(
            f"{named(request)} asks what the tools were trained on, so its score would mean nothing; leave the text out of "
            "train_file, for example with FILE[:200] or holdout"
        )


def _check_plan(request: Instance, tools: Tools) -> None:
    if not any(tool.text for tool in tools.toolbox):
        raise HarnessError(
            f"{named(request)} asks for a plan, and none of the tools is a token of plans; name some with "
            "--method_args tools=virtualhome_tools.jsonl"
        )
    if tools.variant in {"in_context", "oracle_tool"}:
        raise HarnessError(
            f"{named(request)} asks for a plan of tool tokens, and there is none with variant={tools.variant}; use no_tools "
            "or oracle_call beside tools"
        )
