"""The documents of a task on the terminal: prompt, target, answers, scores; the next wrong one, the next changed one."""

from __future__ import annotations

import math
import os
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import printable
from harness.records import answers, samples
from harness.showing import content

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from harness.records.record import Record

KEYS = "n next  p previous  w next wrong  c next changed  t next task  f whole prompt  q quit"
ARROWS = {"[C": "n", "[D": "p"}
SHOWN_CHARACTERS = 2_000
SHOWN_TEXTS = 100


@dataclass(frozen=True)
class Side:
    """The answers of a run to a task: one record, and the sample file it came from."""

    record: Record
    path: Path


class Documents:
    """The rows of one sample file under one filter, found by number without keeping them.

    Kept of a document are its number, where its row begins, whether it is wrong, and whether its answer is another than
    that of the other side.
    """

    def __init__(self, side: Side, other: Side | None = None) -> None:
        """Read the file once; ``other`` is the run to compare with.

        Raises:
            HarnessError: the file cannot be read. That of the other side costs the comparison alone, and ``problem`` says so.
        """
        self.record, self._path = side.record, side.path
        self.problem, self.other = "", None
        try:
            self.other = None if other is None else _Answers(other)
        except HarnessError as error:
            self.problem = str(error)
        self.has_wrong = True
        self._ids, self._starts, self._wrong, self._changed = array("q"), array("q"), bytearray(), bytearray()
        metric, better = side.record.metric.name, side.record.metric.higher_is_better
        for start, row in _rows_of(side):
            self._ids.append(row.get("doc_id", -1))
            self._starts.append(start)
            self._wrong.append(answers.is_wrong(row, metric, higher_is_better=better))
            self._changed.append(self.other is not None and self.other.differs(row))
            self.has_wrong = self.has_wrong and content.is_right_or_wrong(row.get(metric))

    def __len__(self) -> int:
        """Return how many documents there are."""
        return len(self._starts)

    def row(self, number: int) -> dict[str, Any]:
        """Return the row of the document at ``number``, from 0."""
        return samples.row_at(self._path, self._starts[number])

    def is_wrong(self, number: int) -> bool:
        """Whether the document was answered wrong; never where the metric is not right or wrong for every document."""
        return self.has_wrong and bool(self._wrong[number])

    @property
    def why_no_wrong(self) -> str:
        """What is said where the metric cannot tell which documents are wrong."""
        task, metric = self.record.task.name, self.record.metric.name
        return printable(
            f"'{metric}' of '{task}' is not 0 or 1 for every document, so none is wrong; --metric NAME takes another"
        )

    def is_changed(self, number: int) -> bool:
        """Whether the answer is another than the other side's."""
        return bool(self._changed[number])

    def find(self, doc_id: int) -> int:
        """Return where the document of the task's number ``doc_id`` stands.

        Raises:
            HarnessError: it was not asked.
        """
        if doc_id in self._ids:
            return self._ids.index(doc_id)
        raise HarnessError(f"document {doc_id} of '{printable(self.record.task.name)}' was not asked in this run")


class _Answers:
    """The answers of another run by document, as digests, so that a million of them fit."""

    def __init__(self, side: Side) -> None:
        self.record, self._path = side.record, side.path
        self._places: dict[bytes, tuple[int, bytes]] = {}
        for start, row in _rows_of(side):
            self._places[content.digest(samples.document_key(row))] = (start, content.digest(content.answer_key(row)))

    def differs(self, row: dict[str, Any]) -> bool:
        place = self._places.get(content.digest(samples.document_key(row)))
        return place is not None and place[1] != content.digest(content.answer_key(row))

    def row(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return the other run's row of the same document."""
        place = self._places.get(content.digest(samples.document_key(row)))
        return None if place is None else samples.row_at(self._path, place[0])


def print_document(out: Console, documents: Documents, number: int, *, whole: bool = False) -> None:
    """Print one document: prompt, target, answers with the likeliest marked, metrics, and the other side's answer."""
    from rich.text import Text

    row, task = documents.row(number), documents.record.task.name
    marks = [
        word
        for word, holds in (("wrong", documents.is_wrong(number)), ("changed", documents.is_changed(number)))
        if holds
    ]
    title = f"{printable(task)}, document {printable(row.get('doc_id'))} ({number + 1} of {len(documents)})"
    out.print(Text(title + (f": {', '.join(marks)}" if marks else ""), style="bold"))
    _print_prompt(out, answers.prompt(row), whole=whole)
    out.print(_labelled("target", printable(content.target(row))))
    for line in _answer_lines(row):
        out.print(line)
    out.print(_labelled("metrics", _metrics(row)))
    then = documents.other.row(row) if documents.other is not None else None
    if then is not None and documents.other is not None:
        name = printable(documents.other.record.method.name)
        out.print(Text(f"{name} answered", style="bold"))
        for line in _answer_lines(then):
            out.print(line)
        out.print(_labelled("metrics", _metrics(then)))
    out.print()


class Browser:
    """A walk through the documents of several tasks, one key a step."""

    def __init__(self, tasks: Sequence[Callable[[], Documents]], out: Console) -> None:
        """``tasks`` give the documents of each task when they are wanted first."""
        self._tasks, self._out = tasks, out
        self._task, self._number, self._whole = 0, -1, False
        self._documents: Documents | None = None

    @property
    def documents(self) -> Documents:
        """The documents of the task at hand."""
        if self._documents is None:
            self._documents = self._tasks[self._task]()
        return self._documents

    def start(self, number: int) -> None:
        """Show the document at ``number``."""
        self._show(number)

    def run(self, keys: Iterator[str]) -> None:
        """Follow ``keys`` until ``q`` or their end."""
        self._prompt()
        for key in keys:
            if key == "q":
                break
            self.follow(key)
            self._prompt()

    def follow(self, key: str) -> None:
        """Do what ``key`` stands for; samples that cannot be read are told, and another task may be looked at."""
        try:
            self._follow(key)
        except HarnessError as error:
            self._out.print(str(error))

    def _follow(self, key: str) -> None:
        if key == "t":
            self._task, self._number, self._documents = (self._task + 1) % len(self._tasks), -1, None
            self._go(0, lambda _: True, "the task has no documents", step=1)
            return
        documents = self.documents
        if key in {"n", " ", "\r", "\n"}:
            self._go(self._number + 1, lambda _: True, "this is the last document", step=1)
        elif key == "p":
            self._go(self._number - 1, lambda _: True, "this is the first document", step=-1)
        elif key == "w":
            none = "no further wrong document" if documents.has_wrong else documents.why_no_wrong
            self._go(self._number + 1, documents.is_wrong, none, step=1)
        elif key == "c":
            none = "no further changed document"
            if documents.other is None:
                none = "there is no run to compare with; name one with --against RUN"
            self._go(self._number + 1, documents.is_changed, none, step=1)
        elif key == "f":
            self._whole = not self._whole
            self._show(max(self._number, 0))
        else:
            self._out.print(f"no such key; {KEYS}")

    def _go(self, start: int, wanted: Callable[[int], bool], otherwise: str, *, step: int) -> None:
        number = start
        while 0 <= number < len(self.documents):
            if wanted(number):
                self._show(number)
                return
            number += step
        self._out.print(otherwise)

    def _show(self, number: int) -> None:
        self._number = number
        self._out.clear()
        print_document(self._out, self.documents, number, whole=self._whole)

    def _prompt(self) -> None:
        from rich.text import Text

        self._out.print(Text(KEYS, style="reverse"), end="\n")


@contextmanager
def pressed_keys() -> Iterator[Iterator[str]]:
    """Give the keys pressed on this terminal, one by one and without echo; the terminal is as before afterwards.

    Raises:
        HarnessError: the system has no terminal that can do so.
    """
    try:
        import termios
        import tty
    except ImportError as error:  # Windows
        raise HarnessError(
            "documents can be browsed on POSIX terminals only; choose some with --doc or --wrong"
        ) from error
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield _keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


def _keys(descriptor: int) -> Iterator[str]:
    while pressed := os.read(descriptor, 8):
        text = pressed.decode("utf-8", "replace")
        if text.startswith("\x1b"):
            yield ARROWS.get(text[1:], text[:1])
        else:
            yield from text


def _rows_of(side: Side) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows under the filter of a side's record, each with the place in the uncompressed file where it begins."""
    record = side.record
    for start, row in samples.placed_rows(side.path, most_docs=record.counts.docs):
        if row.get("filter", "none") == record.metric.filter:
            yield start, row


def _print_prompt(out: Console, prompt: str, *, whole: bool) -> None:
    from rich.text import Text

    hidden = 0 if whole else max(len(prompt) - SHOWN_CHARACTERS, 0)
    if hidden:
        out.print(Text(f"({hidden:,} characters before this are not shown)", style="dim"))
    for line in prompt[hidden:].split("\n"):
        out.print(Text("  " + printable(line.expandtabs(4)), overflow="fold"))


def _answer_lines(row: dict[str, Any]) -> Iterator[Text]:
    from rich.text import Text

    choices, chosen, gold = answers.continuations(row), answers.chosen(row), answers.gold(row)
    for number, choice in enumerate(choices):
        said = [word for word, at in (("chosen", chosen), ("right", gold)) if at == number]
        if chosen is None and choice.is_greedy:
            said.append("the model's own")
        number_text = f"{choice.loglikelihood:.3f}" if math.isfinite(choice.loglikelihood) else "no number"
        line = f"{'>' if number == chosen else ' '} {number_text:>10}  {printable(choice.text)[:SHOWN_CHARACTERS]}"
        yield Text(line + (f"   ({', '.join(said)})" if said else ""), style="bold" if number == chosen else "")
    texts = answers.texts(row)
    for text in (content.shortened(content.cut(text)) for text in texts[:SHOWN_TEXTS]):
        lines = text.split("\n")
        for position, line in enumerate(lines):
            label = "answer " if position == 0 else "       "
            yield _labelled(label, printable(line.expandtabs(4)) or "(empty)")
    if len(texts) > SHOWN_TEXTS:
        yield _labelled("", f"and {len(texts) - SHOWN_TEXTS:,} more answers")


def _metrics(row: dict[str, Any]) -> str:
    values = answers.metrics(row).items()
    shown = (f"{value:g}" if isinstance(value, int | float) else printable(value)[:80] for _, value in values)
    return "   ".join(f"{printable(name)} {text}" for (name, _), text in zip(values, shown, strict=True))


def _labelled(label: str, value: str) -> Text:
    from rich.text import Text

    return Text.assemble((f"{label:<8} ", "dim"), value, overflow="fold")
