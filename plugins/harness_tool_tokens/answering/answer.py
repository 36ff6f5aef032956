"""One answer with tools: reasoning, a tool's arguments, its result, reasoning again; kept as parts, never read back from text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from harness.models.acting import Prompt, common_length
from harness.models.greedy import cut
from harness.requests import Explained
from harness.tasks.written_calls import closing_bracket
from harness_tool_tokens.answering.parts import Wanted, around, plan_with
from harness_tool_tokens.tools.call import Call
from harness_tool_tokens.tools.written import first_call

if TYPE_CHECKING:
    from harness_tool_tokens.answering.equipped import Tools
    from harness_tool_tokens.tools.tool import Tool

MOST_PLAN_TOKENS = 48  # of a plan, as in the code of Li et al., 2025


@dataclass(eq=False)
class ToolPrompt(Prompt):
    """A prompt of an answer, with what may be chosen in it.

    Args:
        answer: whose it is.
        mode: writing the answer, writing a tool's arguments, or writing plan tokens.
        barred_first: numbers of the tools that may not be its first token.
        after_result: its first token may be no tool, and no digit either where the result ended with one.
    """

    answer: Answer | None = None
    mode: Literal["reasoning", "arguments", "plan"] = "reasoning"
    barred_first: frozenset[int] = frozenset()
    after_result: bool = False
    fired: dict[int, tuple[float | None, str]] = field(default_factory=dict)


@dataclass
class Writing:
    """What an answer needs of an LM.

    Attributes:
        encode, decode: text to ids and back; tools have no text.
        ends: the ids that end a text.
        first_tool: the number of the first tool, after the last word.
        max_length: the most tokens of a text.
        limit: the most tokens of reasoning; ``until``: the texts that end it.
        stop: says whether it ends with the ids generated last; ``stop_answer``: the same once thinking has ended.
        cut: takes off an answer's text what comes after its end.
        finished: the text of an answer without calls, of its ids: as the plain model's.
        thinks: whether it may begin with thinking, in which no text ends it.
        think_end, think_mark: the token, or the text, with which thinking ends and the answer begins.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    ends: frozenset[int]
    first_tool: int
    max_length: int
    limit: int
    until: tuple[str, ...]
    stop: Callable[[list[int]], bool]
    stop_answer: Callable[[list[int]], bool]
    cut: Callable[[str], str]
    finished: Callable[[list[int]], str]
    thinks: bool = False
    think_end: int | None = None
    think_mark: str | None = None

    def added(self, before: Sequence[int], new: Sequence[int]) -> str:
        """Return what ``new`` ids add to the text of the ids before them; alone they may lose a leading space."""
        tail = list(before[-8:])
        whole, head = self.decode([*tail, *new]), self.decode(tail)
        return whole[len(head) :] if whole.startswith(head) else self.decode(new)


class Answer:
    """The state of one answer. ``text`` is the answer so far with results, ``called`` the same with calls written out.

    Args:
        first_ids: the prompt's ids, cut on the left where they would leave no room.
    """

    def __init__(self, wanted: Wanted, tools: Tools, writing: Writing, first_ids: list[int]) -> None:
        self.wanted, self.tools, self.writing = wanted, tools, writing
        self.toolbox, self.max_length = tools.toolbox, writing.max_length
        self.dropped = len(writing.encode(wanted.context)) - len(first_ids)
        self.first = ToolPrompt(first_ids, writing.limit, self._is_finished, keeps=True, answer=self)
        if wanted.procedure == "plan":
            self.first = ToolPrompt(first_ids, 1, lambda _: True, keeps=True, answer=self, mode="plan")
        self.begin()

    def begin(self) -> None:
        """Forget all that was written: the first prompt begins, perhaps again, after memory ran out."""
        self.text, self.called, self.used, self.seen, self.start = "", "", 0, 0, 0
        self.calls: list[Call] = []
        self.first.kept = None
        self.reasoning = self.first
        self.generated: list[int] = []  # of an answer without calls: decoded as the plain model's
        self.result: Explained | None = None
        self._failed: set[int] = set()  # numbers of the tools that failed at this place

    def took(self, prompt: Prompt, generated: list[int]) -> list[ToolPrompt]:
        """Take what a prompt of this answer ended with; return what comes next, nothing when the answer is there."""
        assert isinstance(prompt, ToolPrompt)
        if prompt.mode == "plan":
            return self._planned(prompt, generated)
        if prompt.mode == "arguments":
            return self._executed(self._arguments(self.writing.decode(generated)))
        self._now_at(prompt)
        self.used += sum(token < self.writing.first_tool for token in generated)
        if generated[-1] >= self.writing.first_tool:
            return self._fired(prompt, generated)
        self._write(prompt, generated)
        if self._watches and (found := first_call(self.text[self.seen :], self.toolbox)):
            return self._written(*found)
        return self._finish()

    @property
    def is_begun(self) -> bool:
        """Whether anything came after the first prompt."""
        return bool(self.used or self.calls)

    def is_open(self) -> bool:
        """Whether another tool may be called."""
        return len(self.calls) < self.tools.limits.max_calls and not self.tools.is_in_context

    @property
    def _answer_text(self) -> str | None:
        """The text behind the thinking; None while the model may still be thinking."""
        if self.start:
            return self.text[self.start :].lstrip()
        mark = self.writing.think_mark
        if mark is not None and mark in self.text:
            return self.text.rpartition(mark)[2].lstrip()
        return None if self.writing.thinks else self.text

    @property
    def _watches(self) -> bool:
        """Whether calls that are written as text are run."""
        return self.tools.is_in_context and len(self.calls) < self.tools.limits.max_calls

    # What happens at the end of each prompt.

    def _write(self, prompt: ToolPrompt, generated: list[int]) -> None:
        added = self.writing.added(prompt.token_ids, generated) if generated else ""
        if prompt is self.first:
            self.generated = generated
        if self.writing.think_end in generated:
            behind = len(generated) - generated[::-1].index(self.writing.think_end)
            self.start = len(self.text) + len(added) - len(self.writing.added(generated[:behind], generated[behind:]))
        if added:
            self._failed = set()
        self.text += added
        self.called += added

    def _fired(self, prompt: ToolPrompt, generated: list[int]) -> list[ToolPrompt]:
        """A tool's row won: have its arguments written, unless naming it is all that is wanted."""
        self._write(prompt, generated[:-1])
        tool = self.toolbox[generated[-1] - self.writing.first_tool]
        margin, forced = prompt.fired[len(generated) - 1]
        self.calls.append(Call(tool.key, len(self.text), margin, forced=forced))
        if self.wanted.procedure == "name":
            return self._finish(f"<{tool.key}>")
        shared, rest = self.tools.prompts.of_tool(tool, self.wanted)
        ending = f"{rest}{self.called}<{tool.name}>("
        shared, ids = self._fitting(shared, ending)
        if ids is None:
            return self._executed(None, "the question does not fit the context beside the tool")
        count = common_length(self.writing.encode(shared), ids)
        return [ToolPrompt(ids, self._argument_tokens, self._is_closed, shared=count, answer=self, mode="arguments")]

    def _fitting(self, shared: str, ending: str) -> tuple[str, list[int] | None]:
        """Return the text before the question with examples dropped from its front until the ids fit, and the ids.

        None for the ids where even the question does not fit.
        """
        head, room = self.wanted.head, self.max_length - self._argument_tokens
        blocks = shared.split("\n\n")  # a line on what to do, the examples, nothing
        ids = self.writing.encode(head + shared + ending)
        if len(ids) > room:
            self.calls[-1].add_detail("examples dropped to fit the context")
        while len(ids) > room and len(blocks) > 1:
            blocks = [blocks[0], *blocks[2:]] if len(blocks) > 2 else [""]
            shared = "\n\n".join(blocks)
            ids = self.writing.encode(head + shared + ending)
        return head + shared, ids if len(ids) <= room else None

    @property
    def _argument_tokens(self) -> int:
        return min(self.tools.limits.max_argument_tokens, max(1, self.max_length // 4))

    def _arguments(self, text: str) -> str | None:
        """Return the argument text up to its closing bracket; None when it never closed."""
        end = closing_bracket(text)
        if end is None:
            self.calls[-1].arguments = text
        return None if end is None else text[:end]

    def _executed(self, arguments: str | None, why_none: str = "never closed") -> list[ToolPrompt]:
        """Run the call and put its result where it belongs, or do what is to be done with one that failed."""
        call = self.calls[-1]
        if arguments is None:
            call.error = "syntax"
            call.add_detail(why_none)
        else:
            call.arguments = arguments
            self._run(call)
        name = self.toolbox[self.toolbox.number(call.tool)].name
        if call.error is None and call.result is not None:
            self._failed = set()
            self.called += f"<{name}>({call.arguments})={call.result}"
            self.text += call.result
            return self._go_on(after_result=True)
        if self.tools.limits.on_error == "stop":
            return self._finish()
        if self.tools.limits.on_error == "text":
            self.text += f"[{call.error}]"
            self.called += f"<{name}>({call.arguments})=[{call.error}]"
            return self._go_on(after_result=True)
        self._failed.add(self.toolbox.number(call.tool))
        return self._go_on()

    def _run(self, call: Call) -> None:
        outcome = self.tools.executor.call(call.tool, call.arguments)
        call.result, call.error = outcome.text, outcome.error
        call.add_detail(outcome.detail)

    def _go_on(self, *, after_result: bool = False) -> list[ToolPrompt]:
        """Return the prompt that goes on with the answer, its text encoded as a whole."""
        context = self.wanted.context
        ids = self.writing.encode(context + (self.called if self.tools.is_in_context else self.text))
        ids = ids[self.dropped :]  # cut on the left as the prompt itself, and no further
        room = min(self.writing.limit - self.used, self.max_length - len(ids))
        if room < 1 or any(text in (self._answer_text or "") for text in self.writing.until):
            return self._finish()
        return [
            ToolPrompt(
                ids,
                room,
                self._is_finished,
                after=self.reasoning,
                keeps=True,
                answer=self,
                barred_first=frozenset(self._failed),
                after_result=after_result,
            )
        ]

    def _now_at(self, prompt: ToolPrompt) -> None:
        """Note the prompt whose keys the answer will go on with, and let go of those before: they are large."""
        if prompt is not self.reasoning:
            self.reasoning.kept = None
        self.reasoning = prompt

    def _finish(self, ending: str = "") -> list[ToolPrompt]:
        self.reasoning.kept = None
        answer = self._answer_text
        text = self.text if answer is None else answer
        before = len(self.text) - len(text)
        if ending:
            text += ending
        elif not self.calls and self.generated:
            text = self.writing.finished(self.generated)
        elif answer is None and self.used >= self.writing.limit:
            text = cut()
        else:
            text = self.writing.cut(text)
        calls = [replace(call, at=max(0, call.at - before)) for call in self.calls]
        trace = around(text, [call for call in calls if call.at <= len(text)])
        self.result = Explained(text, [*trace, *getattr(text, "trace", [])])
        return []

    # A model that writes calls as text.

    def _written(self, tool: Tool, start: int, end: int) -> list[ToolPrompt]:
        """A call was written as text: run it, and put its result behind it."""
        start, end = self.seen + start, self.seen + end
        inside = self.text[self.text.index("(", start) + 1 : end]
        self.text = self.called = self.text[: end + 1]
        self.calls.append(Call(tool.key, start, arguments=inside, forced="written"))
        self.seen = len(self.text)
        if self.wanted.procedure == "name":
            return self._finish(f" <{tool.key}>")
        call = self.calls[-1]
        self._run(call)
        if call.result is not None:
            self.text = self.called = f"{self.text}={call.result}"
            self.seen = len(self.text)
        return self._go_on(after_result=call.result is not None)

    # Plans: nothing but tool tokens.

    def _planned(self, prompt: ToolPrompt, generated: list[int]) -> list[ToolPrompt]:
        tool = self.toolbox[generated[-1] - self.writing.first_tool]
        self._now_at(prompt)
        if not self.plan_allows(tool):  # nor any other
            return self._finish()
        self.used += 1
        margin, forced = prompt.fired[0]
        self.calls.append(Call(tool.key, len(self.text), margin, forced=forced))
        self.text = plan_with(self.text, tool.text)
        if tool.text == self.wanted.end or self.used >= min(self.writing.limit, MOST_PLAN_TOKENS):
            return self._finish()
        ids = self.writing.encode(self.wanted.context + self.text)
        if len(ids) >= self.max_length:
            return self._finish()
        return [ToolPrompt(ids, 1, lambda _: True, after=prompt, keeps=True, answer=self, mode="plan")]

    def plan_allows(self, tool: Tool) -> bool:
        """Whether a plan may go on with ``tool``: objects of the scene, no action twice in a row but walking."""
        if self.wanted.allowed is not None and self.toolbox.number(tool.key) not in self.wanted.allowed:
            return False
        if not tool.text.startswith("["):
            return tool.text.strip("<>") in self.wanted.objects or not self.wanted.objects
        last = self.text.strip().split("\n")[-1].split(" ")[0]
        return "WALK" in tool.text or tool.text == self.wanted.end or tool.text != last

    # When a prompt ends.

    def _is_finished(self, generated: list[int]) -> bool:
        if (
            generated[-1] >= self.writing.first_tool
            or (self.writing.stop if self._answer_text is None else self.writing.stop_answer)(generated)
            or self._completes_an_end(generated)
        ):
            return True
        return self._watches and first_call(self.writing.decode(generated), self.toolbox) is not None

    def _completes_an_end(self, generated: list[int]) -> bool:
        """Whether a text that ends the answer began before these ids, in a result for example."""
        longest = max(map(len, self.writing.until), default=0)
        if not self._answer_text or len(generated) > longest:
            return False
        text = self._answer_text[-longest:] + self.writing.decode(generated)
        return any(end in text for end in self.writing.until)

    def _is_closed(self, generated: list[int]) -> bool:
        text = self.writing.decode(generated)
        return generated[-1] in self.writing.ends or "\n" in text or closing_bracket(text) is not None
