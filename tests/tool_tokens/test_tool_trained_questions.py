"""Questions that were trained on are refused, in whatever form they are asked; others are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from answered import answers, request, training_row, write_lines
from lm_eval.api.instance import Instance

from harness import HarnessError
from harness.methods.known_texts import text_digest
from harness_tool_tokens.method import ROWS_FILE

pytestmark = pytest.mark.usefixtures("own_cache")

KNOWN = "How many clocks has the shop of Anna Bell?"


OTHER = "How many clocks has the shop of Carl Dorn?"


@pytest.fixture(params=["trained", "loaded"])
def leaked(apply: Callable[..., Any], tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that gives an LM whose rows were trained on rows of text, or were loaded from a file of such."""

    def make(rows: Sequence[Any], **options: Any) -> Any:
        common = {"prior": "zeros", "bias": 0.0, **options}
        lm = apply(train_file=write_lines(tmp_path / "leak.jsonl", rows), steps=1, **common)
        if request.param == "loaded":
            lm = apply(rows_file=lm.workdir / ROWS_FILE, **common)
        return lm

    return make


def about(question: str, procedure: str, context: str, **more: Any) -> Instance:
    return request(context, {"tool_use": {"procedure": procedure, "question": question, "calls": [], **more}})


def test_tool_choice_knows_a_training_text_whatever_white_space_ends_it(leaked: Callable[..., Any]) -> None:
    """Demand: a text up to its call is a trained one also where the space before the result is not there."""
    rows = [training_row(0, f"Question: {KNOWN}\nAnswer: The answer is ", "14", ".")]
    lm = leaked(rows)

    def ask(text: str) -> Any:
        calls = {"calls": [{"tool": "add", "start": len(text), "end": len(text)}]}
        return lm.tool_choice([Instance("tool_choice", {}, (text, calls), 0, metadata=("made_up", 0, 1))])

    for text in (f"Question: {KNOWN}\nAnswer: The answer is", f"Question: {KNOWN}\nAnswer: The answer is \n"):
        with pytest.raises(HarnessError, match="is among the rows that the tools were trained on"):
            ask(text)
    [answer] = ask(f"Question: {OTHER}\nAnswer: The answer is")
    assert [call["tool"] for call in answer["calls"]] == ["add"]


@pytest.mark.parametrize(
    ("procedure", "trained", "context"),
    [
        ("name", "Question: {}\nAnswer: The answer is ", "Question: {}\nAnswer: The answer is"),
        ("name", "{}\nIt is ", "Question: Who?\nAnswer: He\n\nQuestion: {}\nAnswer: The answer is"),
        ("calls", "Q: {}\nA: They are 3+4=", "Answer it.\n\nQ: What is 1 and 1?\nA: 1+1=2\n\nQ: {}\nA:"),
        ("calls", "Q: What is 1 and 1?\nA: 2\n\nQ: {}\nA: They are 3+4=", "{}"),
    ],
)
def test_a_question_that_was_trained_on_is_refused_and_another_is_not(
    leaked: Callable[..., Any], procedure: str, trained: str, context: str
) -> None:
    """Demand: answers to training questions mean nothing, whatever stands around these; any other question is asked."""
    rows = [training_row(0, trained.format(KNOWN), "7", " in all."), training_row(1, "Q: 2+2?\nA: 2+2=", "4", ".")]
    lm = leaked(rows)
    with pytest.raises(HarnessError, match="asks what the tools were trained on") as refused:
        answers(lm, [about(OTHER, procedure, context.format(OTHER)), about(KNOWN, procedure, context.format(KNOWN))])
    assert "\n" not in str(refused.value) and "train_file" in str(refused.value)
    for question in (
        OTHER,
        f"Has Anna Bell more clocks than Carl Dorn?\n{KNOWN}",
    ):  # the whole of it was not trained on
        [found] = answers(lm, [about(question, procedure, context.format(question))])
        assert isinstance(found.trace, list)


def plan_prompt(goal: str) -> str:
    """Return a prompt of which only the goal is its own."""
    return f"Objects at hand:\nattic, letter\nGoal:\n{goal}\nHint:\nWhat is to be done is written below?\nPlan:\n"


def test_a_plan_that_was_trained_on_is_refused_and_another_of_the_same_scene_is_not(
    leaked: Callable[..., Any], plan_tools: str
) -> None:
    """Demand: of plans the whole prompt counts, since each of its lines is that of many others."""
    plan = ["[WALK] <attic>", "[OPEN] <letter>", "[END]"]
    rows = [{"id": "plan-0", "prompt": plan_prompt("Read the letter"), "plan": plan}]
    lm = leaked(rows, tools=(plan_tools,), positions="tools")
    known, other = plan_prompt("Read the letter"), plan_prompt("Write a letter")
    with pytest.raises(HarnessError, match="asks what the tools were trained on"):
        answers(lm, [about(known, "plan", f"Make plans.\n\n{known}")])
    [found] = answers(lm, [about(other, "plan", f"Make plans.\n\n{other}", objects=["attic", "letter"])])
    assert found.trace


def test_digests_of_texts_do_not_depend_on_white_space_but_on_words() -> None:
    """Demand: what is trained on is known by its words."""
    assert text_digest(" a  b\n") == text_digest("a b") != text_digest("ab")
