"""Run the calls that a model writes: arithmetic in this process, a user's tools in one of their own."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import cast

from harness.errors import HarnessError
from harness.isolation.process import Failure, IsolatedFile
from harness.names import printable, suggestion
from harness.tasks.calculating import Rounding, number_text
from harness.tasks.written_calls import split_arguments
from harness_tool_tokens.tools.arguments import Outcome, check_count, evaluate
from harness_tool_tokens.tools.tool import WORKER, Tool, source_parts
from harness_tool_tokens.tools.toolbox import Toolbox

MOST_ARGUMENT_CHARACTERS = 5000
"""As JSON these fit any pipe's buffer, so that sending a call never waits."""


class Executor:
    """Runs calls of the tools in a toolbox.

    A file of tools runs in a process of its own that lives from the first call to ``close``; a call that takes too long
    or ends that process costs only its own result. Collecting the executor or ending the interpreter closes it, too.
    """

    def __init__(
        self, toolbox: Toolbox, *, timeout: float = 5.0, rounding: str = "paper", most_characters: int = 2000
    ) -> None:
        """Start nothing yet.

        Args:
            toolbox: the tools that can be called.
            timeout: seconds that one call of a user's tool may take.
            rounding: of numbers that are not whole, ``paper`` or ``exact``.
            most_characters: a longer result is the error ``too_large``.

        Raises:
            HarnessError: an argument could serve no call.
        """
        if not timeout > 0 or most_characters < 1:
            raise HarnessError(
                f"a timeout of {timeout} s and {most_characters} characters let no tool answer; give more than 0"
            )
        if rounding not in ("paper", "exact"):
            raise HarnessError(
                f"there is no rounding '{printable(rounding)}'; {suggestion(rounding, ('paper', 'exact'))}"
            )
        self._tools = {tool.key: tool for tool in toolbox}
        self._timeout = timeout
        self._rounding = cast("Rounding", rounding)
        self._most_characters = most_characters
        self._processes: dict[Path, IsolatedFile] = {}
        self._not_loaded: dict[Path, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def call(self, key: str, argument_text: str) -> Outcome:
        """Run one call; whatever goes wrong is in the outcome.

        Args:
            key: of the tool.
            argument_text: what stands between the brackets.
        """
        tool = self._tools.get(key)
        if tool is None:
            return Outcome(None, "unknown_tool", f"no tool has the key '{printable(key)}'")
        if tool.kind == "none":
            return Outcome(None, "unknown_tool", "has no code")
        if tool.kind == "arithmetic":
            outcome = evaluate(tool.name, argument_text, rounding=self._rounding)
        else:
            try:
                with self._lock:
                    outcome = Outcome(self._call_function(tool, argument_text))
            except Failure as failure:
                outcome = Outcome(None, failure.error, failure.detail)
        if outcome.text is not None and len(outcome.text) > self._most_characters:
            return Outcome(None, "too_large", f"a result of more than {self._most_characters:,} characters")
        return outcome

    def close(self) -> None:
        """End the processes; a later call starts them again."""
        with self._lock:
            for process in self._processes.values():
                process.end()
            self._processes.clear()

    def __enter__(self) -> Executor:
        """Return this executor, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _call_function(self, tool: Tool, argument_text: str) -> str:
        """Return the result of a user's tool, or raise Failure."""
        if len(argument_text) > MOST_ARGUMENT_CHARACTERS:
            raise Failure("too_large", f"arguments of more than {MOST_ARGUMENT_CHARACTERS:,} characters")
        arguments = split_arguments(argument_text)
        check_count(len(arguments), tool.arity)
        file, function = source_parts(tool.source)
        request = {"function": function, "arguments": arguments, "most": self._most_characters}
        reply = self._process(file).ask(request, seconds=self._timeout)
        if "number" in reply:
            return number_text(reply["number"], self._rounding)
        # Half a surrogate pair is no text that a tokenizer takes.
        return str(reply["text"]).encode("utf-8", "replace").decode()

    def _process(self, file: Path) -> IsolatedFile:
        """Return the running process of a file, started if it is not; a file that failed to load stays failed."""
        if file in self._not_loaded:
            raise Failure(*self._not_loaded[file])
        running = self._processes.get(file)
        if running is None or running.has_ended:
            if running is not None:
                running.end()
            try:
                self._processes[file] = IsolatedFile(file, handler=WORKER)
            except Failure as failure:
                self._not_loaded[file] = failure.error, failure.detail
                raise
        return self._processes[file]
