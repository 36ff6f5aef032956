"""The state machine of one answer, driven by a scripted model whose tokens are bytes: final text, trace and prompts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.models.tree.prompts import Candidates, Place, Prompt
from harness.tasks.written_calls import closing_bracket
from harness_tool_tokens.answering.answer import Answer, ToolPrompt, Writing
from harness_tool_tokens.answering.choosing import CONTINUES_NUMBER, Chooser
from harness_tool_tokens.answering.equipped import Tools
from harness_tool_tokens.answering.parts import Limits, Wanted
from harness_tool_tokens.answering.tool_head import ToolHead
from harness_tool_tokens.tools.arguments import Outcome
from harness_tool_tokens.tools.executing import Executor
from harness_tool_tokens.tools.tool import Tool
from harness_tool_tokens.tools.toolbox import Toolbox
from harness_tool_tokens.tools.written import first_call

END, FIRST_TOOL = 256, 257
# The logit of what the script prefers; the next one has one less.
BEST = 20.0
ARITHMETIC = Toolbox.load(("arithmetic",))
QUESTION = "Q: How many?\nA:"
SHARED = "Use a tool.\n\nQ: one\nA: first\n\nQ: two\nA: second\n\n"
Piece = str | int | tuple[int, ...]


def tool(key: str, toolbox: Toolbox = ARITHMETIC) -> int:
    return FIRST_TOOL + toolbox.number(key)


def stream(*pieces: Piece) -> list[tuple[int, ...]]:
    """Return what is preferred at each place: texts byte by byte, ids as they are, or several ids, the best first."""
    wanted: list[tuple[int, ...]] = []
    for piece in pieces:
        if isinstance(piece, str):
            wanted += [(byte,) for byte in piece.encode()]
        else:
            wanted.append(piece if isinstance(piece, tuple) else (piece,))
    return wanted


def decode(ids: Sequence[int]) -> str:
    return bytes(id_ for id_ in ids if id_ < END).decode("utf-8", "replace")


def cut(text: str) -> str:
    return text.split("\n")[0]


@dataclass
class Scripted:
    """An answer, and what the model says in it: the reasoning, and the arguments of one call after the other."""

    reasoning: Sequence[Piece]
    arguments: Sequence[Sequence[Piece]] = ()
    context: str = QUESTION
    toolbox: Toolbox = ARITHMETIC
    limits: Limits = field(default_factory=Limits)
    limit: int = 60
    max_length: int = 2000
    wanted: dict[str, Any] = field(default_factory=dict)
    tool_text: Callable[[Tool], tuple[str, str]] = lambda tool: (SHARED, QUESTION)
    variant: str = "tools"
    execute: Callable[[str, str], Outcome] | None = None
    is_oracle: bool = False
    cut: Callable[[str], str] = cut

    def __post_init__(self) -> None:
        self.says = stream(*self.reasoning)
        self.says_in_calls = [stream(*pieces) for pieces in self.arguments]
        self.prompts: list[ToolPrompt] = []
        self.generated: list[list[int]] = []
        self.executed: list[tuple[str, str]] = []
        self.spoken = 0
        executor = Executor(self.toolbox)

        def execute(key: str, arguments: str) -> Outcome:
            self.executed.append((key, arguments))
            return (self.execute or executor.call)(key, arguments)

        writing = Writing(
            encode=lambda text: list(text.encode()),
            decode=decode,
            ends=frozenset({END}),
            first_tool=FIRST_TOOL,
            max_length=self.max_length,
            limit=self.limit,
            until=("\n",),
            stop=lambda ids: ids[-1] == END or "\n" in decode(ids[-2:]),
            stop_answer=lambda ids: ids[-1] == END or "\n" in decode(ids[-2:]),
            cut=self.cut,
            finished=lambda ids: self.cut(decode(ids)),
        )
        executing: Any = SimpleNamespace(call=execute)
        prompts: Any = SimpleNamespace(of_tool=lambda tool, wanted: self.tool_text(tool))
        head = ToolHead(torch.eye(len(self.toolbox)), 0.0) if self.variant == "tools" else None
        self.answer = Answer(
            Wanted(self.context, **{"question": "How many?", "ending": QUESTION, **self.wanted}),
            Tools(self.toolbox, head, executing, prompts, self.limits, self.variant),
            writing,
            list(self.context.encode())[-(self.max_length - self.limit) :],
        )
        self.chooser = Chooser(
            head,
            first_tool=FIRST_TOOL,
            continues_number=torch.tensor([id_ < 256 and chr(id_).isdigit() for id_ in range(FIRST_TOOL)]),
            is_oracle=self.is_oracle,
            decode=decode,
        )

    def preferred(self, place: Place) -> tuple[int, ...]:
        prompt = place.prompt
        assert isinstance(prompt, ToolPrompt)
        if prompt.mode == "arguments":
            return self.says_in_calls[len(self.answer.calls) - 1][len(place.generated)]
        at = self.spoken + len(place.generated)
        return self.says[at] if at < len(self.says) else (END,)

    def candidates(self, place: Place) -> Candidates:
        """Prefer what the script says; a logit less for each rank, the least of all words is a full stop."""
        words, hidden = torch.full((1, FIRST_TOOL), -5.0), torch.full((1, len(self.toolbox)), -9.0)
        words[0, ord(".")] = 0.0
        for rank, id_ in enumerate(self.preferred(place)):
            if id_ < FIRST_TOOL:
                words[0, id_] = BEST - rank
            else:
                hidden[0, id_ - FIRST_TOOL] = BEST - rank

        def best(barred: Any) -> tuple[torch.Tensor, torch.Tensor]:
            left = words.clone()
            if barred is not None:
                barred.hide(left, 0)
            value, token = left.max(-1)
            return token, value

        return Candidates(hidden, best, words.clone)

    def took(self, prompt: Prompt, generated: list[int]) -> list[ToolPrompt]:
        """Hand what a prompt ended with to the answer."""
        assert isinstance(prompt, ToolPrompt)
        self.prompts.append(prompt)
        self.generated.append(generated)
        self.spoken += len(generated) if prompt.mode != "arguments" else 0
        return self.answer.took(prompt, generated)

    def run(self) -> tuple[str, list[dict[str, Any]]]:
        """Generate as ``harness.models.acting`` does, and return text and trace."""
        waiting: list[ToolPrompt] = [self.answer.first]
        while waiting:
            prompt = waiting.pop(0)
            generated: list[int] = []
            while not generated or not (len(generated) >= prompt.limit or prompt.is_finished(generated)):
                place = Place(prompt, list(generated))
                generated += self.chooser(self.candidates(place), [place])
                assert len(prompt.token_ids) + len(generated) <= self.max_length
            waiting += self.took(prompt, generated)
        result = self.answer.result
        assert result is not None
        return str(result), result.trace

    def text_of(self, number: int) -> str:
        return decode(self.prompts[number].token_ids)


def call(tool: str, at: int, arguments: str, result: str | None, **others: Any) -> dict[str, Any]:
    return {
        "tool": tool, "at": at, "margin": BEST, "arguments": arguments, "result": result, "error": None, "detail": "",
        "forced": "", **others,
    }  # fmt: skip


def check(scripted: Scripted, text: str, calls: Sequence[dict[str, Any]]) -> None:
    """Compare final text and trace, the text around each call included."""
    found, trace = scripted.run()
    assert found == text
    expected = [
        one | {"before": text[max(0, one["at"] - 80) : one["at"]], "after": text[one["at"] : one["at"] + 80]}
        for one in calls
    ]
    assert trace == expected


# --- acceptance property 14: the machine ---------------------------------------------------------------------------------


def test_no_call_is_the_plain_text_and_an_empty_trace() -> None:
    """Acceptance property 14: no call at all."""
    check(Scripted([" seven apples", END]), " seven apples", [])


def test_one_call_puts_the_result_where_the_token_was() -> None:
    """Acceptance property 14: one call."""
    scripted = Scripted([" 3+4=", tool("add"), " in all", END], [["3, 4)"]])
    check(scripted, " 3+4=7 in all", [call("add", 5, "3, 4", "7")])
    assert scripted.text_of(1) == SHARED + QUESTION + " 3+4=<add>("
    assert scripted.text_of(2) == QUESTION + " 3+4=7"
    assert scripted.prompts[1].limit == 64
    assert scripted.prompts[1].shared == len(SHARED)


def test_two_calls_and_the_first_stands_in_call_form_in_the_prompt_of_the_second() -> None:
    """Acceptance property 14: two calls; section 2.4: earlier results are put back into call form in tool mode."""
    scripted = Scripted([" 3+4=", tool("add"), ", and 7*2=", tool("multiply"), ".", END], [["3, 4)"], ["7", ", 2)"]])
    check(scripted, " 3+4=7, and 7*2=14.", [call("add", 5, "3, 4", "7"), call("multiply", 16, "7, 2", "14")])
    assert scripted.text_of(3) == SHARED + QUESTION + " 3+4=<add>(3, 4)=7, and 7*2=<multiply>("
    assert scripted.text_of(4) == QUESTION + " 3+4=7, and 7*2=14"


@pytest.mark.parametrize(
    ("written", "arguments", "result"),
    [
        ("2, (3+4))=9", "2, (3+4)", "9"),
        ("((1+2)*(3+4)), 1)", "((1+2)*(3+4)), 1", "22"),
        ("3, 4)=", "3, 4", "7"),
        (" 3,4 ).", " 3,4 ", "7"),
    ],
)
def test_the_matching_bracket_ends_the_arguments(written: str, arguments: str, result: str) -> None:
    """Acceptance property 14: nested brackets; section 9: the matching bracket, not the first."""
    scripted = Scripted([" =", tool("add"), ".", END], [[written]])
    check(scripted, f" ={result}.", [call("add", 2, arguments, result)])


@pytest.mark.parametrize("token", [")=", ").", ")\n", ")) and", "4)=7\nQ"])
def test_a_token_that_holds_more_than_the_bracket_ends_the_arguments(token: str) -> None:
    """Section 9: merged tokens such as `)=` and `).` end the mode too, and what is behind the bracket is dropped."""
    inner = "3, 4" if not token.startswith("4") else "3, "
    scripted = Scripted([" =", tool("add"), "!", END], [["unused"]])
    writing = scripted.answer.writing
    writing.decode = lambda ids: "".join({300: token}.get(id_, decode([id_])) for id_ in ids)
    [prompt] = scripted.answer.took(scripted.answer.first, _fire(scripted, tool("add"), " ="))
    ids = [*inner.encode(), 300]
    assert [prompt.is_finished(ids[: n + 1]) for n in range(len(ids))] == [False] * len(inner) + [True]
    [more] = scripted.answer.took(prompt, ids)
    assert decode(more.token_ids) == QUESTION + " =7"
    assert scripted.answer.calls[0].arguments == "3, 4"


def _fire(scripted: Scripted, id_: int, before: str) -> list[int]:
    scripted.answer.first.fired[len(before)] = (1.0, "")
    return [*before.encode(), id_]


def test_a_failing_call_is_dropped_and_the_tool_barred_for_that_place_alone() -> None:
    """Acceptance property 14: failing call; section 9: typed outcome, barred for one position, next-best, counted."""
    scripted = Scripted(
        [" 1/0=", tool("divide"), (tool("divide"), tool("add")), (tool("divide"), ord("?")), "x ", tool("divide"), END],
        [["1, 0)"], ["oops)"], ["6, 3)"], ["6, 3)"]],
    )
    check(
        scripted,
        " 1/0=?x 2",
        [
            call("divide", 5, "1, 0", None, error="zero_division", detail="a division by zero"),
            call("add", 5, "oops", None, error="syntax", detail=scripted_detail("add", "oops"), margin=BEST - 1),
            call("divide", 8, "6, 3", "2"),
        ],
    )
    assert [prompt.barred_first for prompt in scripted.prompts if prompt.mode == "reasoning"] == [
        frozenset(), {3}, {0, 3}, frozenset()
    ]  # fmt: skip
    assert scripted.text_of(2) == QUESTION + " 1/0="


def scripted_detail(key: str, arguments: str) -> str:
    return Executor(ARITHMETIC).call(key, arguments).detail


@pytest.mark.parametrize(
    ("written", "arguments"),
    [(["3, (4", END], "3, (4"), (["3, 4\n", END], "3, 4\n"), (["1" * 64], "1" * 64), ([END], "")],
)
def test_a_call_that_never_closes_is_a_syntax_error(written: list[Piece], arguments: str) -> None:
    """Acceptance property 14: never-closing call. Section 9: token limit, newline and end-of-text stop it."""
    scripted = Scripted([" =", tool("add"), "?", END], [written])
    check(scripted, " =?", [call("add", 2, arguments, None, error="syntax", detail="never closed")])
    assert scripted.executed == []


def test_a_call_at_the_very_first_token() -> None:
    """Acceptance property 14: call at the very first token."""
    scripted = Scripted([tool("add"), " it is", END], [["3, 4)"]])
    check(scripted, "7 it is", [call("add", 0, "3, 4", "7")])
    assert scripted.text_of(1) == SHARED + QUESTION + "<add>("


def test_a_call_then_end_of_text() -> None:
    """Acceptance property 14: call then end-of-text."""
    check(Scripted([" =", tool("add"), END], [["3, 4)"]]), " =7", [call("add", 2, "3, 4", "7")])


def test_a_stop_string_right_after_a_result_ends_the_answer() -> None:
    """Section 9 and brief: the stop string right after a result; nothing of it is left in the text."""
    check(Scripted([" =", tool("add"), "\nmore", END], [["3, 4)"]]), " =7", [call("add", 2, "3, 4", "7")])


def test_tools_are_off_after_the_call_limit() -> None:
    """Acceptance property 14: call limit; section 9: after the limit tools are off and the answer goes on."""
    scripted = Scripted(
        ["a", tool("add"), "b", tool("add"), "c", (tool("add"), ord("d")), "e", END],
        [["1, 1)"], ["2, 2)"], ["never"]],
        limits=Limits(max_calls=2),
    )
    check(scripted, "a2b4cde", [call("add", 1, "1, 1", "2"), call("add", 3, "2, 2", "4")])


def test_without_calls_allowed_no_tool_ever_fires() -> None:
    """Section 9, tool loops: max_calls 0."""
    scripted = Scripted(["a", (tool("add"), ord("b")), END], limits=Limits(max_calls=0))
    check(scripted, "ab", [])


def test_failing_calls_count_towards_the_limit() -> None:
    """Section 9, tool loops: a model that only ever calls, wrongly, comes to an end."""
    scripted = Scripted(
        [tuple(tool(key) for key in ARITHMETIC.keys)] * 30, [["?)"]] * 13, limits=Limits(max_calls=5), limit=30
    )
    text, trace = scripted.run()
    assert [one["error"] for one in trace] == ["syntax"] * 5
    assert [one["tool"] for one in trace] == list(ARITHMETIC.keys[:5])
    assert text == "." * 25


def test_every_tool_failing_at_one_place_leaves_the_words() -> None:
    """Section 9, tool loop: with every tool barred a word is written, though all tool rows beat it."""
    scripted = Scripted(
        [*[tuple(tool(key) for key in ARITHMETIC.keys)] * 14, END], [["?)"]] * 13, limits=Limits(max_calls=50)
    )
    text, trace = scripted.run()
    assert (text, len(trace), len({one["tool"] for one in trace})) == (".", 13, 13)


def test_a_result_cannot_trigger_a_tool_at_once() -> None:
    """Section 9, tool loop: the result triggers the same tool; a word has to come between two calls."""
    scripted = Scripted(
        ["=", tool("add"), (tool("add"), ord("+")), tool("add"), END],
        [["1, 1)"], ["2, 2)"]],
        limits=Limits(max_calls=9),
    )
    check(scripted, "=2+4", [call("add", 1, "1, 1", "2"), call("add", 3, "2, 2", "4")])


def test_the_token_budget_counts_what_the_model_wrote_itself() -> None:
    """Acceptance property 14: results, arguments and tool tokens do not count towards the task's limit on new tokens."""
    scripted = Scripted(["abc", tool("power"), "defghijkl"], [["10, 12)"]], limit=8)
    check(scripted, "abc1000000000000defgh", [call("power", 3, "10, 12", "1000000000000")])
    last = Scripted(["abc", tool("power")], [["10, 2)"]], limit=4)
    check(last, "abc100", [call("power", 3, "10, 2", "100")])


# --- acceptance property 15: numbers are not continued --------------------------------------------------------------------


def test_a_point_after_a_result_is_followed_by_neither_digits_nor_a_tool() -> None:
    """Acceptance property 15, and beyond: 0 stays 0 and does not become 0.0 or 0.1 by way of a token that is a point."""
    scripted = Scripted(["=", tool("subtract"), ".", (ord("1"), tool("add"), ord(" ")), "12", END], [["2, 2)"]])
    check(scripted, "=0. 12", [call("subtract", 1, "2, 2", "0")])


def test_the_token_after_a_result_is_no_digit_and_the_one_after_may_be() -> None:
    """Acceptance property 15."""
    scripted = Scripted(["=", tool("divide"), (ord("5"), ord("9"), ord(",")), "42", END], [["1, 7)"]])
    check(scripted, "=0.14,42", [call("divide", 1, "1, 7", "0.14")])


def test_a_digit_may_follow_a_result_that_ends_in_no_digit() -> None:
    """Acceptance property 15: only numbers are protected."""
    words = Toolbox((Tool("unit", "unit", kind="none"),))
    scripted = Scripted(
        ["=", FIRST_TOOL, "5", END], [["x)"]], toolbox=words, execute=lambda key, arguments: Outcome("x=")
    )
    check(scripted, "=x=5", [call("unit", 1, "x", "x=")])


@pytest.mark.parametrize(
    ("text", "continues"),
    [("7", True), ("14", True), (".5", True), (",5", True), (".", False), (",", False), ("Ġ5", False), ("", False)],
)
def test_what_goes_on_with_a_number(text: str, continues: bool) -> None:
    """Section 9: a digit, or point or comma followed by a digit."""
    assert bool(CONTINUES_NUMBER.match(text)) is continues


# --- on_error -------------------------------------------------------------------------------------------------------------


def test_an_error_can_be_written_as_text() -> None:
    """Section 4, on_error=text; the next token is no tool."""
    scripted = Scripted(
        ["=", tool("divide"), (tool("add"), ord("!")), " ", tool("add"), END],
        [["1, 0)"], ["1, 2)"]],
        limits=Limits(on_error="text"),
    )
    check(
        scripted,
        "=[zero_division]! 3",
        [
            call("divide", 1, "1, 0", None, error="zero_division", detail="a division by zero"),
            call("add", 18, "1, 2", "3"),
        ],
    )
    assert scripted.text_of(3).endswith("=<divide>(1, 0)=[zero_division]! <add>(")


def test_an_error_can_stop_the_answer() -> None:
    """Section 4, on_error=stop."""
    scripted = Scripted(["it is ", tool("divide"), "never"], [["1, 0)"]], limits=Limits(on_error="stop"))
    check(scripted, "it is ", [call("divide", 6, "1, 0", None, error="zero_division", detail="a division by zero")])


# --- text that looks like calls -----------------------------------------------------------------------------------------


def test_text_of_the_user_that_looks_like_a_call_is_never_taken_for_one() -> None:
    """Section 9: user text that looks like a call or contains a tool's name; state is never re-parsed."""
    question = "Q: Is <add>(2, 3)=6, add( or <add>( right?\nA:"
    scripted = Scripted(
        [" <add>(9, 9) add(", tool("add"), " <multiply>(2, 2)", END],
        [["2, 3)"]],
        context=question,
        wanted={"question": "Is <add>(2, 3)=6, add( or <add>( right?", "ending": question},
        tool_text=lambda tool: (SHARED, question),
    )
    check(scripted, " <add>(9, 9) add(5 <multiply>(2, 2)", [call("add", 17, "2, 3", "5")])
    assert scripted.text_of(1) == SHARED + question + " <add>(9, 9) add(<add>("


def test_names_that_begin_alike_and_one_name_for_two_keys_are_told_apart() -> None:
    """Section 9: two tools with one name, or a name equal to another's prefix; the key is the id."""
    toolbox = Toolbox(
        (Tool("P1", "area", kind="none"), Tool("P2", "area", kind="none"), Tool("P3", "area_code", kind="none"))
    )
    said = {"P1": "12 ha", "P2": "a lake", "P3": "0341"}
    scripted = Scripted(
        ["a ", tool("P2", toolbox), " b ", tool("P3", toolbox), " c ", tool("P1", toolbox), END],
        [["x)"], ["y)"], ["z)"]],
        toolbox=toolbox,
        execute=lambda key, arguments: Outcome(said[key]),
    )
    text, trace = scripted.run()
    assert text == "a a lake b 0341 c 12 ha"
    assert [one["tool"] for one in trace] == ["P2", "P3", "P1"]
    assert scripted.executed == [("P2", "x"), ("P3", "y"), ("P1", "z")]
    assert scripted.text_of(3).endswith("a <area>(x)=a lake b <area_code>(")


# --- long prompts ---------------------------------------------------------------------------------------------------------


def test_examples_are_dropped_from_the_front_until_the_tools_prompt_fits() -> None:
    """Section 9: tool-mode prompt over the context; examples dropped, question and text kept, counted in the trace."""
    examples = [f"Q: example {n} {'x' * 40}\nA: <add>(1, 1)=2" for n in range(8)]
    shared = "\n\n".join(["Use <add>.", *examples]) + "\n\n"
    scripted = Scripted(
        [" 3+4=", tool("add"), ".", END],
        [["3, 4)"]],
        limits=Limits(max_argument_tokens=20),
        max_length=320,
        tool_text=lambda tool: (shared, QUESTION),
    )
    check(scripted, " 3+4=7.", [call("add", 5, "3, 4", "7", detail="examples dropped to fit the context")])
    prompt = scripted.text_of(1)
    assert prompt.endswith(QUESTION + " 3+4=<add>(")
    assert prompt.startswith("Use <add>.\n\nQ: example ")
    kept = re.findall(r"example (\d)", prompt)
    assert kept == [str(n) for n in range(8 - len(kept), 8)]
    assert 0 < len(kept) < 8
    assert len(prompt) + 20 <= 320 < len(prompt) + 20 + len(examples[0]) + 2


def test_why_a_call_failed_is_told_where_examples_were_dropped_as_well() -> None:
    """Section 8, trace: errors of a call stay readable beside the note on dropped examples."""
    scripted = Scripted(
        [" =", tool("divide"), "?", END],
        [["1, 0)"]],
        limits=Limits(max_argument_tokens=20),
        max_length=150,
        tool_text=lambda tool: (SHARED.replace("first", "x" * 100), QUESTION),
    )
    _, [only] = scripted.run()
    assert "examples dropped" in only["detail"]
    assert "a division by zero" in only["detail"]


def test_a_question_too_long_for_the_tools_prompt_is_an_error_of_that_call() -> None:
    """Section 9: where not even the question fits beside the tool the call fails in words and the answer goes on."""
    question = "Q: " + "long " * 30 + "\nA:"
    scripted = Scripted(
        [" =", tool("add"), "?", END],
        context=question,
        limits=Limits(max_argument_tokens=64),
        limit=10,
        max_length=200,
        tool_text=lambda tool: (SHARED, question),
    )
    text, [only] = scripted.run()
    assert (text, only["error"], only["detail"]) == (
        " =?", "syntax", "examples dropped to fit the context; the question does not fit the context beside the tool"
    )  # fmt: skip


def test_a_long_result_never_makes_a_prompt_longer_than_the_context() -> None:
    """Section 9: results longer than what is left of the context end the answer; the run goes on."""
    toolbox = Toolbox((Tool("say", "say", kind="none"),))
    for length in (10, 40, 44, 45, 46, 500):
        scripted = Scripted(
            ["=", FIRST_TOOL, "abcdefgh", END],
            [["x)"]],
            toolbox=toolbox,
            limit=20,
            max_length=len(QUESTION) + 1 + 45,
            limits=Limits(max_argument_tokens=8),
            tool_text=lambda tool: ("", "Q:"),
            execute=lambda key, arguments, length=length: Outcome("r" * length),
        )
        text, [only] = scripted.run()
        assert only["result"] == "r" * length
        assert text == "=" + "r" * length + "abcdefgh"[: max(0, 45 - length)]


def test_the_question_survives_when_a_cut_prompt_goes_on_behind_a_long_result() -> None:
    """Section 9, left truncation of the prompt: the question must survive, after a splice as well."""
    toolbox = Toolbox((Tool("say", "say", kind="none"),))
    scripted = Scripted(
        ["=", FIRST_TOOL, "done", END],
        [["x)"]],
        context="Q: an example\nA: of old\n\n" * 20 + QUESTION,
        toolbox=toolbox,
        limit=20,
        max_length=120,
        limits=Limits(max_argument_tokens=8),
        tool_text=lambda tool: ("", QUESTION),
        execute=lambda key, arguments: Outcome("r" * 100),
    )
    scripted.run()
    for prompt in scripted.prompts:
        assert "How many?" in decode(prompt.token_ids)


# --- procedures ---------------------------------------------------------------------------------------------------------


def test_the_procedure_name_ends_with_the_tools_key_and_runs_nothing() -> None:
    """Section 2.4, KAMEL: at most one tool token, no execution; the answer ends with the key."""
    toolbox = Toolbox((Tool("P17", "country", kind="none"), Tool("P36", "capital", kind="none")))
    scripted = Scripted([" is", tool("P36", toolbox), "never"], toolbox=toolbox, wanted={"procedure": "name"}, limit=30)
    check(scripted, " is<P36>", [call("P36", 3, "", None)])
    assert scripted.executed == []
    check(Scripted([" Paris\n"], toolbox=toolbox, wanted={"procedure": "name"}), " Paris", [])


PLAN = Toolbox(
    tuple(
        Tool(text, text.strip("[]<>").lower(), kind="none", text=text)
        for text in ("[WALK]", "[OPEN]", "[END]", "<attic>", "<lamp>", "<old book>")
    )
)


def plan(*wishes: Sequence[str], limit: int = 32, **wanted: Any) -> tuple[str, list[dict[str, Any]]]:
    pieces = [tuple(tool(key, PLAN) for key in wish) for wish in wishes]
    told = {"procedure": "plan", "objects": frozenset({"attic", "old book"}), **wanted}
    return Scripted(pieces, toolbox=PLAN, wanted=told, limit=limit, cut=lambda text: text).run()


def test_a_plan_is_lines_of_action_and_object_and_ends_at_its_end_token() -> None:
    """Section 2.4, VirtualHome: one token a step, ends at [END]; a walk may be repeated."""
    text, trace = plan(["[WALK]"], ["<attic>"], ["[WALK]"], ["<old book>"], ["[OPEN]"], ["<old book>"], ["[END]"])
    assert text == "[WALK] <attic>\n[WALK] <old book>\n[OPEN] <old book>\n[END]"
    assert [one["tool"] for one in trace] == re.findall(r"\[\w+\]|<[^>]+>", text)
    assert [one["at"] for one in trace] == [0, 6, 15, 21, 33, 39, 51]
    assert trace[0]["margin"] == BEST


def test_a_plan_bars_objects_that_are_not_in_the_scene_and_the_action_just_done() -> None:
    """Section 2.4, VirtualHome: objects outside the scene, and an action twice in a row, are barred."""
    text, _ = plan(
        ["[OPEN]"], ["<lamp>", "<attic>"], ["[OPEN]", "[WALK]"], ["<attic>"], ["[OPEN]"], ["<old book>"], ["[END]"]
    )
    assert text == "[OPEN] <attic>\n[WALK] <attic>\n[OPEN] <old book>\n[END]"


def test_an_action_always_begins_a_line() -> None:
    """Section 2.4, VirtualHome: plan lines of [ACTION] <object>, also where a model names two actions in a row."""
    text, _ = plan(["[WALK]"], ["[OPEN]"], ["<attic>"], ["[END]"])
    assert text == "[WALK]\n[OPEN] <attic>\n[END]"


def test_a_plan_ends_at_the_limit_of_tokens() -> None:
    """Section 2.4, VirtualHome: at most so many steps."""
    text, trace = plan(["[WALK]"], ["<attic>"], ["[OPEN]"], ["<attic>"], ["[WALK]"], limit=4)
    assert (text.rstrip("\n"), len(trace)) == ("[WALK] <attic>\n[OPEN] <attic>", 4)


def test_a_plan_without_a_list_of_objects_may_name_all() -> None:
    """Section 2.4, VirtualHome: a task that tells no scene bars no object."""
    text, _ = plan(["[OPEN]"], ["<lamp>"], ["[END]"], objects=frozenset())
    assert text == "[OPEN] <lamp>\n[END]"


def test_a_plan_keeps_to_the_tools_that_the_task_allows() -> None:
    """Contract, doc['tool_use']['tools']: only these may fire, in a plan as well."""
    allowed = frozenset(PLAN.number(key) for key in ("[WALK]", "[END]", "<attic>"))
    text, _ = plan(["[OPEN]", "[WALK]"], ["<old book>", "<attic>"], ["[END]"], allowed=allowed)
    assert text == "[WALK] <attic>\n[END]"


# --- what may fire ------------------------------------------------------------------------------------------------------


def test_only_the_tools_that_a_task_allows_may_fire() -> None:
    """Contract, doc['tool_use']['tools']; section 9: tools off per row via a mask."""
    scripted = Scripted(
        ["=", (tool("multiply"), tool("add")), END],
        [["2, 3)"]],
        wanted={"allowed": frozenset({ARITHMETIC.number("add")})},
    )
    check(scripted, "=5", [call("add", 1, "2, 3", "5", margin=BEST - 1)])


def test_no_tool_fires_while_arguments_are_written() -> None:
    """Section 2.4, tool mode: tool rows are switched off."""
    scripted = Scripted(["=", tool("add"), END], [["2, ", (tool("add"), ord("3")), ")"]])
    check(scripted, "=5", [call("add", 1, "2, 3", "5")])


# --- oracle tool ----------------------------------------------------------------------------------------------------------

GOLD = ({"tool": "add", "args": "3, 4", "result": "7"}, {"tool": "multiply", "args": "7, 2", "result": "14"})


def test_the_oracle_calls_the_right_tool_where_any_fires_or_a_result_is_due() -> None:
    """Section 8, baselines: oracle tool choice, the gold tool is forced and the model writes the arguments."""
    scripted = Scripted(
        [" 3+4=", tool("log"), ", 7*2=", "1", ", 5=", "5", END],
        [["3, 4)"], ["7, 2)"]],
        wanted={"gold": GOLD},
        is_oracle=True,
    )
    check(
        scripted,
        " 3+4=7, 7*2=14, 5=5",
        [
            call("add", 5, "3, 4", "7", forced="oracle tool"),
            call("multiply", 12, "7, 2", "14", margin=None, forced="oracle tool"),
        ],
    )


def test_the_oracle_does_not_repeat_a_failed_call_at_the_same_place() -> None:
    """Section 9: the same call at the same text position is not repeated, by the oracle neither."""
    gold = ({"tool": "divide", "args": "", "result": ""}, {"tool": "divide", "args": "", "result": ""})
    scripted = Scripted(
        ["6/3=", "2", "2", "2 4/2=", "2", "."], [["6, 0)"], ["4, 2)"]], wanted={"gold": gold}, is_oracle=True
    )
    _, trace = scripted.run()
    places = [(one["tool"], one["at"]) for one in trace]
    assert len(places) == len(set(places)), places


# --- calls written as text --------------------------------------------------------------------------------------------------


def test_in_context_calls_are_read_from_what_was_written_and_run() -> None:
    """Section 8, baselines: in-context list of tools; text of the user is not read."""
    scripted = Scripted(
        [" 3+4=<add>(3, 4)", "!", " and 1*(2)= multiply(7, (1+1))", ".", END],
        context="Q: <log>(5)?\nA:",
        variant="in_context",
    )
    text, trace = scripted.run()
    assert text == " 3+4=<add>(3, 4)=7! and 1*(2)= multiply(7, (1+1))=14."
    assert [(one["tool"], one["at"], one["arguments"], one["result"], one["forced"]) for one in trace] == [
        ("add", 5, "3, 4", "7", "written"),
        ("multiply", 31, "7, (1+1)", "14", "written"),
    ]


def test_in_context_a_failed_call_is_not_run_again() -> None:
    """Section 9, tool loops, for a model that writes calls."""
    scripted = Scripted([" <divide>(1, 0)", " so", END], variant="in_context")
    text, trace = scripted.run()
    assert text == " <divide>(1, 0) so"
    assert [one["error"] for one in trace] == ["zero_division"]
    assert scripted.executed == [("divide", "1, 0")]


def test_in_context_after_the_call_limit_tools_are_off_and_the_answer_goes_on() -> None:
    """Section 9: after the limit tools are off; a model that writes calls goes on writing, too."""
    scripted = Scripted(
        [" <add>(1, 1)", " then <add>(2, 2) end", END],
        variant="in_context",
        limits=Limits(max_calls=1),
    )
    text, trace = scripted.run()
    assert [one["arguments"] for one in trace] == ["1, 1"]
    assert text == " <add>(1, 1)=2 then <add>(2, 2) end"


def test_in_context_without_calls_allowed_none_is_run() -> None:
    """Section 9: max_calls 0, for a model that writes calls."""
    scripted = Scripted([" <add>(1, 1) end", END], variant="in_context", limits=Limits(max_calls=0))
    text, trace = scripted.run()
    assert (text, trace, scripted.executed) == (" <add>(1, 1) end", [], [])


# --- beginning again --------------------------------------------------------------------------------------------------------


def test_an_answer_that_begins_again_is_the_same() -> None:
    """docs/writing-a-plugin.md: after memory ran out, a number that was not finished begins again with its first prompt."""

    def scripted() -> Scripted:
        return Scripted(
            ["a", tool("add"), "b", tool("add"), "c", END], [["1, 1)"], ["2, 2)"]], limits=Limits(max_calls=2)
        )

    whole = scripted().run()
    broken = scripted()
    waiting: list[ToolPrompt] = [broken.answer.first]
    for _ in range(4):  # until both calls are made
        prompt, generated = waiting.pop(0), list[int]()
        while not generated or not prompt.is_finished(generated):
            place = Place(prompt, list(generated))
            generated += broken.chooser(broken.candidates(place), [place])
        waiting += broken.took(prompt, generated)
    broken.spoken = 0
    assert broken.run() == whole


# --- brackets ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "end"),
    [(")", 0), ("1)", 1), ("(1))", 3), ("(", None), ("", None), ("1\n)", None), ("((1)", None), ("1)2)", 1)],
)
def test_where_a_bracket_closes(text: str, end: int | None) -> None:
    """Section 9, brackets: an open one, a line that ends, and the first of several."""
    assert closing_bracket(text) == end


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<add>(1, 2)", ("add", 0, 10)),
        ("x add(1, 2)", ("add", 2, 10)),
        ("<add>(1, 2", None),
        ("<nothing>(1)", None),
        ("badd(1)", None),
        ("<add> (1)", None),
        ("nothing(add(1, 2))", ("add", 8, 16)),
        ("<add>(1\n)", None),
        ("<sqrt>(4) <add>(1, 2)", ("sqrt", 0, 8)),
    ],
)
def test_the_first_whole_call_written_in_a_text(text: str, found: tuple[str, int, int] | None) -> None:
    """Section 8, in-context baseline: which text is a call."""
    call_ = first_call(text, ARITHMETIC)
    assert (call_ and (call_[0].key, *call_[1:])) == found
