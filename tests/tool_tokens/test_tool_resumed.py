"""A run that goes on gives each document its own answer, also where prompts are equal."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answered import ALWAYS, answers, request, told
from lm_eval.api.instance import Instance

from harness.run.journal import Journal

pytestmark = pytest.mark.usefixtures("own_cache")


def gold(key: str, arguments: str, number: int, question: str = "what is it?") -> Instance:
    call = {"tool": key, "args": arguments, "result": "?"}
    doc = {"question": question, "tool_use": {"question": question, "calls": [call]}}
    return request(f"Question: {question}\nAnswer:", doc, number)


def mixed_gold() -> list[Instance]:
    return [
        gold("add", "1, 2", 0),
        gold("lcm", "5, 6", 1),
        gold("multiply", "7, 7", 2, "and how many clocks?"),
        gold("add", "1, 2", 3),
        gold("gcd", "8, 12", 4),
    ]


@pytest.fixture(params=["oracle_call", "oracle_tool"])
def oracle(request: pytest.FixtureRequest, apply: Callable[..., Any]) -> Callable[[], Any]:
    """Return a function that gives an LM whose answers depend on what documents tell."""
    more = {} if request.param == "oracle_call" else {"bias": ALWAYS, "max_argument_tokens": 5, "prior": "zeros"}
    return lambda: apply(variant=request.param, **more)


def test_documents_with_equal_prompts_get_their_own_answers_when_a_run_goes_on(
    oracle: Callable[[], Any], tmp_path: Path
) -> None:
    """Demand: whatever of them was answered before the run was stopped, and after it was over, too."""
    lm = oracle()
    right = told(answers(lm, mixed_gold()))
    assert right[0] == right[3] and len({repr(one) for one in right}) == 4
    call = lm.tools.executor.call
    for stops_at in (1, 2, 3, 4, 99):
        times, output = itertools.count(1), tmp_path / f"run-{stops_at}"

        def stopping(*arguments: str, times: Any = times, stops_at: int = stops_at) -> Any:
            if next(times) == stops_at:
                raise KeyboardInterrupt
            return call(*arguments)

        lm.tools.executor.call = stopping
        try:
            with Journal(output, {"run": 1}).answering(lm, "made_up"):
                assert told(answers(lm, mixed_gold())) == right
        except KeyboardInterrupt:
            pass
        lm.tools.executor.call = call
        again = Journal(output, {"run": 1})
        with again.answering(lm, "made_up"):
            assert told(answers(lm, mixed_gold())) == right, stops_at
        assert stops_at < 99 or again.reused == 5


def test_a_document_that_changed_behind_its_prompt_is_asked_again(oracle: Callable[[], Any], tmp_path: Path) -> None:
    """Demand: an answer to what a document told before is not one to what it tells now."""
    lm = oracle()
    with Journal(tmp_path / "run", {"run": 1}).answering(lm, "made_up"):
        answers(lm, mixed_gold())
    changed = [*mixed_gold()[:2], gold("sqrt", "16", 2, "and how many clocks?"), *mixed_gold()[3:]]
    again = Journal(tmp_path / "run", {"run": 1})
    with again.answering(lm, "made_up"):
        found = answers(lm, changed)
    assert again.reused == 4
    assert [one.trace[0]["tool"] for one in found] == ["add", "lcm", "sqrt", "add", "gcd"]
    assert told(found) == told(answers(lm, changed))
