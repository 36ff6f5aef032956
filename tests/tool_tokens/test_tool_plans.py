"""Plans: refused where no tool is a token of plans, and over where nothing may come next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from answered import answers, request

from harness import HarnessError
from harness.models.causal import CausalLM

pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_plan_is_refused_in_a_sentence_when_no_tool_is_a_token_of_plans(apply: Callable[..., Any]) -> None:
    """Demand: arithmetic makes no plan; the sentence says which tools would."""
    doc = {"tool_use": {"procedure": "plan", "question": "Read", "objects": ["letter"], "tools": ["[WALK]"]}}
    for tools in (("arithmetic",), ("gsm8k",)):
        with pytest.raises(HarnessError, match="none of the tools is a token of plans") as refused:
            answers(apply(tools=tools, bias=0.0), [request("Goal:\nRead\nPlan:\n", doc)])
        assert "\n" not in str(refused.value) and "tools=virtualhome_tools.jsonl" in str(refused.value)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(
    ("allowed", "objects", "written"),
    [
        ([], ["letter"], {""}),
        (["[FLY]"], ["letter"], {""}),  # no tool that there is
        (["<attic>"], ["letter"], {""}),  # an object that is not at hand
        (["[OPEN]"], ["letter"], {"[OPEN]", "[OPEN]\n[OPEN]"}),
        (["<letter>", "[END]"], ["lamp"], {"[END]"}),
    ],
)
def test_a_plan_in_which_nothing_may_come_next_ends(
    apply: Callable[..., Any],
    model: Any,
    tokenizer: Any,
    plan_tools: str,
    share: bool,
    allowed: list[str],
    objects: list[str],
    written: set[str],
) -> None:
    """Demand: where no token is allowed the plan is over; none that is not allowed is written."""
    lm = apply(CausalLM(model, tokenizer, share_prefixes=share), tools=(plan_tools,), bias=0.0)
    doc = {"tool_use": {"procedure": "plan", "question": "Read", "objects": objects, "tools": allowed}}
    [found] = answers(lm, [request("Goal:\nRead\nPlan:\n", doc, until=["\n\n"], max_gen_toks=9)])
    assert str(found) in written
    assert str(found).split() == [call["tool"] for call in found.trace]
    assert {call["tool"] for call in found.trace} <= set(allowed)
