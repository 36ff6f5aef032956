"""Planted errors: short arithmetic stories with a right solution and a wrong one whose first wrong character is known.

The error is of one of five kinds, each a fifth of the stories:

    result      a sum is written wrong
    operator    a sign is wrong, and the result fits it
    operand     a number of the question is copied wrong, and the result fits it
    carry       the running value is copied wrong, and the result fits it
    final       the last sentence names another number

After it the text goes on as if nothing had happened. Both solutions draw their sentences independently, so the place at which
they first differ is rarely the error.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError
from harness.names import printable, suggestion
from harness.seeds import stream_seed
from harness_critical_tokens.phrasings import STYLES, Style, styles_named

KINDS = ("result", "operator", "operand", "carry", "final")
SPLITS = ("train", "test")
# Of sums: operator and number.
Step = tuple[str, int]
# Where a number or a sign stands: `left`, `op`, `right` or `result` of a step, or `final`.
Place = tuple[int, str]
_SLOTS = ("left", "op", "right", "result")
_WRONG_OPERATORS = {"+": "-", "-": "+", "*": "+"}
_MOST = 999
_SLOT = re.compile(r"\{(\w+)\}")
_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
}


def write_stories(count: int, *, seed: int, styles: str = "plain", split: str = "train") -> list[dict[str, Any]]:
    """Return planted stories as rows of a pairs file.

    A story's sums, error and words depend on the seed and its number. No sums of a ``test`` story occur in a ``train`` story,
    whatever the seeds and styles.

    Args:
        count: how many, 1 or more.
        seed: of every draw.
        styles: names joined by ``+``, or ``mixed`` for all: the stories take turns, each in one style.
        split: ``train`` or ``test``.

    Returns:
        For each: ``id``, ``prompt``, ``chosen``, ``rejected``, ``answer``, ``rejected_answer``, ``kind``, ``style``, ``step``
        (of the error, from 0; the number of steps where it is in the last sentence); and by characters of ``rejected``, ends
        exclusive, ``critical_span`` with ``right_text`` and ``wrong_text`` of equal length, ``first_wrong_char``, and
        ``propagated_spans``: numbers that are wrong as a consequence only.

    Raises:
        HarnessError: ``count`` is below 1, or there is no such style or split.
    """
    if count < 1:
        raise HarnessError(f"{count} stories cannot be written; ask for 1 or more")
    if split not in SPLITS:
        raise HarnessError(f"there is no split '{printable(split)}' of stories; {suggestion(split, SPLITS)}")
    names, written = styles_named(styles), set[_Sums]()
    rows = []
    for number in range(count):
        draw = random.Random(stream_seed(seed, "story", split, number))
        kind, style = KINDS[number % len(KINDS)], names[number // len(KINDS) % len(names)]
        sums, wrong = _drawn(draw, kind, split, written)
        written.add(sums)
        row = _row(draw, STYLES[style], sums, wrong)
        rows.append({"id": f"{split}-{seed}-{style}-{number:04d}", **row, "kind": kind, "style": style})
    return rows


@dataclass(frozen=True)
class _Sums:
    start: int
    steps: tuple[Step, ...]

    def split(self) -> str:
        """Return to which split they belong: a fifth are for testing."""
        told = f"{self.start} {self.steps}"
        return "test" if hashlib.sha256(told.encode()).digest()[0] % 5 == 0 else "train"


@dataclass(frozen=True)
class _Chain:
    """A solution's numbers and signs as they are written, by place in the order of the text."""

    written: dict[Place, str]

    @property
    def answer(self) -> int:
        return int(self.written[max(self.written)])


@dataclass(frozen=True)
class _Wrong:
    place: Place
    text: str


def _drawn(draw: random.Random, kind: str, split: str, written: set[_Sums]) -> tuple[_Sums, _Wrong]:
    """Return sums that were not told yet, and an error that leaves all numbers above 0 and the answer wrong."""
    while True:
        sums = _draw_sums(draw)
        if sums in written or sums.split() != split:
            continue
        right = _chain(sums)
        wrong = _draw_error(draw, kind, sums, right)
        chain = _chain(sums, wrong)
        numbers = [int(text) for text in chain.written.values() if text not in _OPERATIONS]
        if chain.answer != right.answer and min(numbers) > 0 and max(numbers) <= 2 * _MOST:
            return sums, wrong


def _draw_sums(draw: random.Random) -> _Sums:
    value = start = draw.randint(11, 89)
    steps: list[Step] = []
    for _ in range(draw.randint(2, 5)):
        possible = ["+"] + ["-"] * (value > 12) + ["*"] * (value * 4 <= _MOST)
        operator = draw.choice(possible)
        most = min(69, value - 1) if operator == "-" else 69
        number = draw.randint(2, 4) if operator == "*" else draw.randint(11, most)
        value = _OPERATIONS[operator](value, number)
        steps.append((operator, number))
    return _Sums(start, tuple(steps))


def _chain(sums: _Sums, wrong: _Wrong | None = None) -> _Chain:
    """Return what stands in a solution; behind an error, what follows from it."""
    written: dict[Place, str] = {}
    value = sums.start

    def put(place: Place, text: str) -> str:
        written[place] = wrong.text if wrong is not None and wrong.place == place else text
        return written[place]

    for number, (operator, operand) in enumerate(sums.steps):
        left = int(put((number, "left"), str(value)))
        sign = put((number, "op"), operator)
        right = int(put((number, "right"), str(operand)))
        value = int(put((number, "result"), str(_OPERATIONS[sign](left, right))))
    put((len(sums.steps), "final"), str(value))
    return _Chain(written)


def _draw_error(draw: random.Random, kind: str, sums: _Sums, right: _Chain) -> _Wrong:
    step = draw.randrange(len(sums.steps))
    slot = {"result": "result", "operator": "op", "operand": "right", "carry": "left"}.get(kind)
    place = (len(sums.steps), "final") if slot is None else (step, slot)
    text = right.written[place]
    return _Wrong(place, _WRONG_OPERATORS[text] if slot == "op" else draw.choice(_near(text)))


def _near(text: str) -> list[str]:
    """Return numbers that are taken for another: one digit changed, two digits turned, one or ten away; of equal length."""
    number = int(text)
    found = {str(number + away) for away in (-10, -1, 1, 10)}
    found |= {text[:place] + digit + text[place + 1 :] for place in range(len(text)) for digit in "123456789"}
    found |= {text[:place] + text[place + 1] + text[place] + text[place + 2 :] for place in range(len(text) - 1)}
    return sorted(near for near in found if len(near) == len(text) and near != text and near[0] not in "-0")


def _row(draw: random.Random, style: Style, sums: _Sums, wrong: _Wrong) -> dict[str, Any]:
    words = {"name": draw.choice(style.people), "things": draw.choice(style.things)}
    right_chain, wrong_chain = _chain(sums), _chain(sums, wrong)
    prompt = _question(draw, style, sums, words)
    chosen, _ = _solution(draw, style, sums, right_chain, words, silent=None)
    silent = wrong.place[0] if wrong.place[1] == "right" else None
    rejected, spans = _solution(draw, style, sums, wrong_chain, words, silent=silent)
    start, end = spans.pop(wrong.place)
    right_text = right_chain.written[wrong.place]
    differing = next(place for place, letter in enumerate(wrong.text) if letter != right_text[place])
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "answer": right_chain.answer,
        "rejected_answer": wrong_chain.answer,
        "step": wrong.place[0],
        "critical_span": [start, end],
        "first_wrong_char": start + differing,
        "right_text": right_text,
        "wrong_text": wrong.text,
        "propagated_spans": [
            list(span)
            for place, span in spans.items()
            if wrong_chain.written[place] != right_chain.written[place]
        ],
    }  # fmt: skip


def _question(draw: random.Random, style: Style, sums: _Sums, words: dict[str, str]) -> str:
    sentences = [draw.choice(style.starts).format(number=sums.start, **words)]
    for operator, number in sums.steps:
        sentences.append(draw.choice(style.changes[operator]).format(number=number, **words))
    sentences.append(draw.choice(style.asks).format(**words))
    return f"Question: {' '.join(_as_sentence(sentence) for sentence in sentences)}\nAnswer:"


def _solution(
    draw: random.Random, style: Style, sums: _Sums, chain: _Chain, words: dict[str, str], *, silent: int | None
) -> tuple[str, dict[Place, tuple[int, int]]]:
    """Return a solution, and where its numbers and signs stand; step ``silent`` does not name its number in words."""
    sentences = [_parts(draw.choice(style.firsts), words, str(sums.start), None)]
    for step, (operator, number) in enumerate(sums.steps):
        templates: Sequence[str] = style.steps[operator]
        if step == silent:
            templates = [template for template in templates if "{number}" not in template]
        sentences.append(_parts(draw.choice(templates), words, str(number), (step, chain)))
    final = (len(sums.steps), "final")
    sentences.append(_parts(draw.choice(style.lasts), words, chain.written[final], None, place=final))
    text, spans = "", dict[Place, tuple[int, int]]()
    for sentence in sentences:
        text += " "
        begin = len(text)
        for part, place in sentence:
            if place is not None:
                spans[place] = (len(text), len(text) + len(part))
            text += part
        text = text[:begin] + _as_sentence(text[begin:])
    return text, spans


def _parts(
    template: str,
    words: dict[str, str],
    number: str,
    equation: tuple[int, _Chain] | None,
    *,
    place: Place | None = None,
) -> Iterator[tuple[str, Place | None]]:
    """Yield the parts of a sentence, each with its place where it is a number or a sign of the sums."""
    for index, part in enumerate(_SLOT.split(template)):
        if index % 2 == 0:
            yield part, None
        elif part == "number":
            yield number, place
        elif part in words:
            yield words[part], None
        elif equation is not None:
            step, chain = equation
            for between, slot in zip(("", " ", " ", " = "), _SLOTS, strict=True):
                yield between, None
                yield chain.written[step, slot], (step, slot)


def _as_sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
