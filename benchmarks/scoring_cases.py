"""The requests that ``scoring.py`` measures with: task shapes of lm-eval on questions it makes or reads from a file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

WORDED = (
    "The answer cannot be worked out from what is given",
    "Twice as many as there were before",
    "Nobody in the story could know how many there are",
    "A dozen and a half in all",
)
LETTERS = ("A", "B", "C", "D")
# The case that counts what trying the model out costs.
SHORT = "choices, short, tried out"
STOPS = ["\n\n", "Question:"]
NAMES = ("Ada", "Bilal", "Chloe", "Dmitri", "Esra", "Femi", "Greta", "Hiro", "Ines", "Jonas")
THINGS = ("lamps", "pears", "stamps", "marbles", "ribbons", "candles", "tickets", "shells", "bricks", "maps")
PLACES = ("in the attic", "at the market", "on the old ferry", "behind the school", "in three paper bags")

Question = tuple[str, str]
Requests = list[Instance]


def read_questions(file: Path | None, count: int = 200) -> list[Question]:
    """Return (question, worked answer) pairs: from JSON lines with these two keys, or made up here."""
    if file is not None:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [(row["question"], row["answer"]) for row in rows][:count]
    draw = random.Random(0)
    return [_make_question(draw) for _ in range(count)]


def _make_question(draw: random.Random) -> Question:
    who, other = draw.sample(NAMES, 2)
    thing, place = draw.choice(THINGS), draw.choice(PLACES)
    first, second, each = draw.randint(3, 60), draw.randint(2, 30), draw.randint(2, 9)
    text = f"{who} keeps {first} {thing} {place}. {other} brings {second} more every week for {each} weeks. "
    for _ in range(draw.randint(0, 3)):
        day, lost = draw.choice(("rainy", "quiet", "windy")), draw.randint(2, 9)
        text += f"On a {day} day {lost} of them are given to {draw.choice(NAMES)}. "
    text += f"How many {thing} does {who} have {draw.choice(('now', 'in the end', 'after that'))}?"
    total = first + second * each
    answer = f"{other} brings {second} x {each} = {second * each} {thing}.\nSo there are {total}.\n#### {total}"
    return text, answer


class Cases:
    """Every case by name; each gives its requests.

    Args:
        scale: share of the documents of each case, to try things out.
    """

    def __init__(self, questions: list[Question], *, scale: float = 1.0, limit: int = 256) -> None:
        self.questions, self.scale, self.limit = questions, scale, limit
        self.draw = random.Random(1)

    def _docs(self, count: int, after: int = 5) -> list[Question]:
        return self.questions[after : after + max(1, round(count * self.scale))]

    def shots(self, several: list[Question]) -> str:
        """Return solved examples to put before a question."""
        return "".join(f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in several)

    def choices(self, count: int, choices: Callable[[int], tuple[str, ...]], shots: Callable[[int], str]) -> Requests:
        """Return one request per document and choice."""
        requests = []
        for doc, (question, _) in enumerate(self._docs(count)):
            context = f"{shots(doc)}Question: {question}\nAnswer:"
            for number, choice in enumerate(choices(doc)):
                requests.append(_request("loglikelihood", (context, f" {choice}"), doc, number))
        return requests

    def main(self) -> dict[str, Requests]:
        """Return the cases that the README's table names."""
        fixed = self.shots(self.questions[:5])
        return {
            SHORT: self.short(),
            "choices, 0-shot, worded": self.choices(48, lambda _: WORDED, lambda _: ""),
            "choices, 5-shot, worded": self.choices(48, lambda _: WORDED, lambda _: fixed),
            "choices, 5-shot, letters": self.choices(48, lambda _: LETTERS, lambda _: fixed),
            "choices, 5-shot, shots drawn": self.choices(
                10, lambda _: WORDED, lambda _: self.shots(self.draw.sample(self.questions[100:], 5))
            ),
            "generation, 0-shot": self.generation(24, ""),
            "generation, 5-shot": self.generation(16, fixed),
            "rolling": self.rolling(),
        }

    def short(self) -> Requests:
        """Return 48 requests with contexts of about twelve tokens, so few that trying the model out shows."""
        return [
            _request("loglikelihood", (question.split(".")[0] + ".", f" {name} has them all"), doc, number)
            for doc, (question, _) in enumerate(self._docs(12))
            for number, name in enumerate(NAMES[:4])
        ]

    def generation(self, count: int, shots: str) -> Requests:
        """Return prompts to answer, with two stop strings."""
        settings = {"until": STOPS, "do_sample": False, "max_gen_toks": self.limit}
        return [
            _request("generate_until", (f"{shots}Question: {question}\nAnswer:", dict(settings)), doc, 0)
            for doc, (question, _) in enumerate(self._docs(count))
        ]

    def rolling(self) -> Requests:
        """Return documents of mixed length."""
        texts, place = [], 0
        for size in (1, 3, 12, 2, 6, 1, 20, 4, 9, 2, 1, 5):
            texts.append(self.shots(self.questions[place : place + size]))
            place += size
        return [
            _request("loglikelihood_rolling", (text,), doc, 0)
            for doc, text in enumerate(texts[: max(1, round(12 * self.scale))])
        ]

    def shapes(self) -> dict[str, Requests]:
        """Return small cases in the shapes of other tasks, where there is little or nothing to share."""
        short = [f"{question.split('.')[0]}." for question, _ in self._docs(16)]
        fixed, heads = self.shots(self.questions[:5]), NAMES[:4]
        sentence = "This sentence has nothing to do with the story before it, but it is of some length all the same."

        def pairs(several: list[tuple[str, tuple[str, ...]]]) -> Requests:
            return [
                _request("loglikelihood", (context, choice), doc, number)
                for doc, (context, choices) in enumerate(several)
                for number, choice in enumerate(choices)
            ]

        def last_word(text: str) -> tuple[str, tuple[str, ...]]:
            head, _, tail = text.rpartition(" ")
            return head, (f" {tail}",)

        def swapped(text: str) -> list[tuple[str, tuple[str, ...]]]:
            return [(text.replace("keeps", verb, 1), (" That is all.",)) for verb in ("keeps", "owns")]

        return {
            "last word (lambada)": pairs([last_word(text) for text in short]),
            "yes or no (boolq)": pairs([(f"{text}\nQuestion: is it so?\nAnswer:", (" yes", " no")) for text in short]),
            "two endings (piqa)": pairs([(text, (f" {sentence}", f" Then {sentence.lower()}")) for text in short]),
            "four endings (hellaswag)": pairs(
                [(text, tuple(f" {word} {sentence.lower()}" for word in heads)) for text in short]
            ),
            "sentence pairs (blimp)": pairs([("", (text, text.replace(" ", "  ", 1))) for text in short]),
            "two contexts (winogrande)": pairs([pair for text in short for pair in swapped(text)]),
            "one choice": pairs([(text, (f" {sentence}",)) for text in short]),
            "identical choices": pairs([(text, (" the same",) * 4) for text in short]),
            "choices that begin alike": pairs(
                [(text, (" It is", " It is so", " It is so indeed", " It is not")) for text in short]
            ),
            "ten targets (truthfulqa)": pairs(
                [(text, tuple(f" {name} has them all" for name in NAMES)) for text in short[:8]]
            ),
            "one long target": pairs([("Go on:", (f" {self.shots(self.questions[40:43])}",))]),
            "one-token contexts": pairs([("So", (f" {text}",)) for text in short]),
            "numbers": pairs([(f"{text} How many? ", tuple(map(str, range(17, 21)))) for text in short]),
            "one letter, 0-shot": pairs(
                [(f"{text}\nAnswer:", tuple(f" {letter}" for letter in LETTERS)) for text in short]
            ),
            "one letter, shots drawn": self.choices(
                4, lambda _: LETTERS, lambda _: self.shots(self.draw.sample(self.questions[100:], 5))
            ),
            "one document": pairs([(f"{fixed}Question: {short[0]}\nAnswer:", (" yes", " no"))]),
            "unicode": pairs([(f"«{text}» — so heißt es", (" ☕ ja", " 🙂 nein")) for text in short]),
            "rolling, one length": [
                _request("loglikelihood_rolling", (self.shots([question]),), doc, 0)
                for doc, question in enumerate(self._docs(12))
            ],
            "rolling, one long document": [
                _request("loglikelihood_rolling", (self.shots(self.questions[40:60]),), 0, 0)
            ],
            "generation, one token": [
                _request("generate_until", (f"{text}\nAnswer:", {"until": ["\n"], "max_gen_toks": 1}), doc, 0)
                for doc, text in enumerate(short)
            ],
            "generation, one prompt": self.generation(1, "")[:1],
        }


def _request(kind: Any, arguments: tuple[Any, ...], doc: int, number: int) -> Instance:
    return Instance(kind, {}, arguments, number, (kind, doc, 1))
