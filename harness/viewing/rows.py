"""One sample file as a page holds it: columns of all its documents, and their texts in blocks that are read when wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.names import counted, printable
from harness.pages import packed, readable
from harness.records import answers, samples
from harness.showing import content
from harness.viewing.tokens import MOST_TOKENS, Strip, Tokens

# Documents, and characters, of a block, which a browser unpacks at once.
BLOCK_ROWS, BLOCK_CHARACTERS = 256, 1_000_000
MOST_STRIPS, MOST_FILTERS, MOST_CHOICES, MOST_ANSWERS, MOST_TRACES, MOST_FIELDS = 20, 12, 100, 50, 200, 20
# Of a list of documents: the end of a prompt, which asks, and the beginning of an answer.
QUESTION_CHARACTERS, ANSWER_CHARACTERS, CONTEXT_CHARACTERS, FIELD_CHARACTERS = 160, 80, 300, 200
MOST_DIGITS = 10  # of the id of a token
LOGLIKELIHOOD = "log-likelihood"

Island = tuple[str, str]
Clean = Callable[[str], str]
Column = list[float | None]


@dataclass
class Filtered:
    """The rows under one filter.

    Attributes:
        name: lm-eval's; ``none`` is that of no filter.
        numbers: for each document, by its place in the file, which of these rows is its own; -1 where none is.
        starts: the first row of each block.
        blocks: the texts, as islands of a page.
        digests: for each row what its answer is told from others by.
        previews: for each row the beginning of its answer.
    """

    name: str
    numbers: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    blocks: list[Island] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    previews: list[str] = field(default_factory=list)
    _open: list[dict[str, Any]] = field(default_factory=list)
    _characters: int = 0

    def add(self, document: int, row: dict[str, Any]) -> None:
        """Take in what the page holds of one row."""
        self.numbers += [-1] * (document + 1 - len(self.numbers))
        self.numbers[document] = len(self.digests) - 1
        self._open.append(row)
        self._characters += _characters(row)
        if len(self._open) >= BLOCK_ROWS or self._characters >= BLOCK_CHARACTERS:
            self.close()

    def close(self) -> None:
        """Pack the rows that are not packed yet."""
        if self._open:
            self.starts.append(len(self.digests) - len(self._open))
            self.blocks.append(packed(self._open))
            self._open, self._characters = [], 0


@dataclass
class Answered:
    """The documents of one sample file, in its order.

    Attributes:
        keys: what names each document in two runs.
        ids: its number in the task.
        questions: the end of its prompt.
        filters: in the order of the file.
        columns: of each metric and filter the value of each document, None where it is no number.
        problem: why documents are missing, empty where none are.
    """

    keys: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    filters: dict[str, Filtered] = field(default_factory=dict)
    columns: dict[tuple[str, str], Column] = field(default_factory=dict)
    problem: str = ""


def read(path: Path, *, docs: int, most: int, clean: Clean, tokens: Tokens) -> Answered:
    """Read a sample file once; of one that is damaged, what stands before the damage, and ``problem`` says so.

    Args:
        path: of the sample file.
        docs: how many documents its record counts.
        most: characters of one text; of a longer one the middle is left out, and it says so.
        clean: takes secrets out of a text.
        tokens: marks those of prompts, where it can.
    """
    reader = _Reader(most, clean, tokens)
    try:
        for row in samples.rows(path, most_docs=docs):
            reader.take(row)
    except HarnessError as error:
        reader.found.problem = str(error)
    return reader.done()


class _Reader:
    def __init__(self, most: int, clean: Clean, tokens: Tokens) -> None:
        self.found = Answered()
        self._most, self._clean, self._tokens = most, clean, tokens
        self._places: dict[str, int] = {}
        self._left_out: set[str] = set()

    def take(self, row: dict[str, Any]) -> None:
        found, name = self.found, str(row.get("filter", "none"))
        if name not in found.filters and len(found.filters) >= MOST_FILTERS:
            self._left_out.add(name)
            return
        count = len(found.filters[name].digests) if name in found.filters else 0
        key = samples.document_key(row) if "doc_id" in row else f"row {count}"
        is_first = key not in self._places
        if is_first:
            self._places[key] = len(found.keys)
            found.keys.append(key)
            found.ids.append(int(row.get("doc_id", len(found.ids))))
        place = self._places[key]
        filtered = found.filters.setdefault(name, Filtered(name))
        filtered.digests.append(content.digest(content.answer_key(row)))
        filtered.previews.append(self._line(_answer(row), ANSWER_CHARACTERS, is_end=False))
        if is_first:
            is_asked = any(len(asked) > 1 for asked in answers.requests(row)[:1])  # else the text itself is scored
            found.questions.append(self._line(answers.prompt(row), QUESTION_CHARACTERS, is_end=is_asked))
        filtered.add(place, self._texts(row, is_first=is_first))
        for metric, value in _numbers(row).items():
            column = found.columns.setdefault((metric, name), [])
            column += [None] * (place + 1 - len(column))
            column[place] = value

    def done(self) -> Answered:
        found = self.found
        for filtered in found.filters.values():
            filtered.close()
            filtered.numbers += [-1] * (len(found.keys) - len(filtered.numbers))
        for column in found.columns.values():
            column += [None] * (len(found.keys) - len(column))
        if self._left_out and not found.problem:
            found.problem = f"{len(self._left_out)} of its filters are left out: a page shows {MOST_FILTERS}"
        return found

    def _text(self, text: str, most: int | None = None) -> str:
        return readable(self._clean(text), most or self._most)

    def _line(self, text: str, most: int, *, is_end: bool) -> str:
        """Return the beginning, or the end, of a text on one line."""
        part = text[-4 * most :] if is_end else text[: 4 * most]
        line = " ".join(self._text(part).split())
        if len(line) <= most and len(part) == len(text):
            return line
        return f"…{line[-most:]}" if is_end else f"{line[:most]}…"

    def _texts(self, row: dict[str, Any], *, is_first: bool) -> dict[str, Any]:
        """Return what the page holds of a row: of a document's first one all, of others what another filter changes."""
        choices = answers.continuations(row)
        made: dict[str, Any] = {}
        if is_first:
            made |= {"p": self._text(answers.prompt(row)), "t": self._text(content.target(row))}
            made |= {"r": [self._text(text) for text in answers.raw_texts(row)[:MOST_ANSWERS]] if not choices else []}
            made |= {"d": self._fields(row, made["p"]), "x": self._traces(row), "q": self._marked(answers.prompt(row))}
            made |= {"k": self._strips(row)}
        made["m"] = [
            [self._text(name, FIELD_CHARACTERS), self._value(value)] for name, value in answers.metrics(row).items()
        ]
        if choices:
            made |= {"c": self._choices(row, choices), "n": answers.chosen(row), "g": answers.gold(row)}
        else:
            texts = [] if made.get("k") else answers.texts(row)
            made["f"] = [self._text(content.shortened(text)) for text in texts[:MOST_ANSWERS]]
            made |= {"more": len(texts) - MOST_ANSWERS} if len(texts) > MOST_ANSWERS else {}
        return {name: value for name, value in made.items() if value not in (None, [])}

    def _choices(self, row: dict[str, Any], choices: list[answers.Choice]) -> list[list[Any]]:
        contexts = [str(asked[0]) if len(asked) > 1 else "" for asked in answers.requests(row)]
        differ = len(set(contexts)) > 1
        found = []
        for context, choice in list(zip(contexts, choices, strict=True))[:MOST_CHOICES]:
            text = choice.text if len(choices) > 1 or context else ""  # a text that is scored whole is the prompt
            before = f"…{context[-CONTEXT_CHARACTERS:]}" if differ else ""
            number = float(f"{choice.loglikelihood:.6g}") if math.isfinite(choice.loglikelihood) else None
            found.append([self._text(before + text), number, choice.is_greedy])
        return found

    def _fields(self, row: dict[str, Any], prompt: str) -> list[list[str]]:
        """Return the fields of the document that are short and not in its prompt."""
        doc = row.get("doc")
        pairs = []
        if row.get("doc_name") is not None and str(row["doc_name"]) != str(row.get("doc_id")):
            pairs.append(["name", self._text(str(row["doc_name"]), FIELD_CHARACTERS)])
        for name, value in doc.items() if isinstance(doc, dict) else ():
            text = str(value) if isinstance(value, str | int | float) else ""
            if text and len(text) <= FIELD_CHARACTERS and self._text(text) not in prompt:
                pairs.append([self._text(str(name), FIELD_CHARACTERS), self._text(text)])
        return pairs[:MOST_FIELDS]

    def _traces(self, row: dict[str, Any]) -> list[list[list[str]]]:
        """Return what answers tell of how they came about: of each answer its parts as text, names and values."""
        traces = row.get("traces")
        parts: list[Any] = []
        for trace in traces if isinstance(traces, list) else []:
            parts += trace if isinstance(trace, list) else [trace]
        return [self._trace(part) for part in parts[:MOST_TRACES]]

    def _marked(self, prompt: str) -> list[Any]:
        """Return the tokens of a prompt, with a title; nothing where they cannot be told, or the prompt is not shown whole."""
        if not self._tokens.can_mark or not prompt or len(prompt) > self._most or self._clean(prompt) != prompt:
            return []
        strip = self._tokens.strip(prompt)
        return [[f"Prompt, {counted(len(strip), 'token')}", self._shown(strip)]] if len(strip) <= MOST_TOKENS else []

    def _strips(self, row: dict[str, Any]) -> list[Any]:
        """Return the tokens that requests asked for by id, or that an answer is, each with a title."""
        given = row.get("filtered_resps")
        found: list[Any] = []
        for asked, answer in zip(answers.requests(row), given if isinstance(given, list) else [], strict=False):
            ids = _ids(asked[1] if len(asked) > 1 else answer)
            if not ids or len(found) >= MOST_STRIPS:
                continue
            numbers = answer if len(asked) > 1 and isinstance(answer, list) and len(answer) == len(ids) else []
            said = [f"log-likelihood {printable(number)[:8]}" for number in numbers]
            title = f"Tokens {len(found) + 1}, {counted(len(ids), 'token')}"
            found.append([title, self._shown(self._tokens.named(ids[:MOST_TOKENS], said[:MOST_TOKENS]))])
        return found

    def _shown(self, strip: Strip) -> list[list[str]]:
        return [[readable(text, self._most), said] for text, said in strip]

    def _trace(self, part: Any) -> list[list[str]]:
        pairs = part.items() if isinstance(part, dict) else [("", part)]
        return [[self._text(str(name), FIELD_CHARACTERS), self._value(value)] for name, value in pairs]

    def _value(self, value: Any) -> str:
        return self._text(f"{value:g}" if isinstance(value, float) else str(value), 2_000)


def _answer(row: dict[str, Any]) -> str:
    """Return the answer in short: the likeliest choice, the text, or log-likelihoods."""
    choices, chosen, texts = answers.continuations(row), answers.chosen(row), answers.texts(row)
    if chosen is not None:
        return choices[chosen].text.strip()
    if choices:
        return ", ".join(f"{choice.loglikelihood:.2f}" for choice in choices[:4])
    return content.shortened(texts[0]) if texts else ""


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """Return the metrics that are numbers, and the log-likelihood of a text that is scored whole."""
    found = {}
    for name, value in answers.metrics(row).items():
        text = {"True": 1, "False": 0}.get(value, value) if isinstance(value, str) else value
        try:
            number = float(text)
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(number):
            found[name] = float(f"{number:.6g}")
    choices = answers.continuations(row)
    if len(choices) == 1 and math.isfinite(choices[0].loglikelihood):
        found.setdefault(LOGLIKELIHOOD, float(f"{choices[0].loglikelihood:.6g}"))
    return found


def _ids(value: Any) -> list[int]:
    """Return ids of tokens, which a sample file may hold as text; nothing where it is something else."""
    if not isinstance(value, list) or not all(str(one).isdecimal() and len(str(one)) < MOST_DIGITS for one in value):
        return []
    return [int(one) for one in value]


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_characters, parts))
