"""The task ``letter_count``: how often a letter occurs in a word; for a tool of one's own, without any data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.tasks.numbers import read_number

if TYPE_CHECKING:
    from datasets import Dataset

WORDS = (
    "strawberry", "banana", "mississippi", "committee", "bookkeeper", "parallel", "tomorrow", "assess", "pepper", "umbrella",
    "harbour", "lighthouse", "engineer", "balloon", "coffee", "giraffe", "hippopotamus", "kangaroo", "lemonade", "necessary",
    "occurrence", "pineapple", "questionnaire", "raccoon", "sleeplessness", "terrarium", "unusual", "volleyball", "whirlwind",
    "xylophone", "yellowish", "zucchini", "accordion", "barrel", "cinnamon", "dilemma", "embarrass", "fluorescent", "grammar",
    "hammock",
)  # fmt: skip


def make(**_: Any) -> dict[str, Dataset]:
    """Return three questions about each word as split ``test``: its most frequent letter, its last, and one it lacks."""
    from datasets import Dataset

    rows = [_row(word, letter) for word in WORDS for letter in _letters(word)]
    return {"test": Dataset.from_list(rows)}


def score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Return ``exact_match``: whether the last number of the answer is the count, ``0.0`` as well as ``0``."""
    number = read_number(results[0])
    return {"exact_match": float(number is not None and float(number) == float(doc["answer"]))}


def _letters(word: str) -> list[str]:
    most = max(sorted(set(word)), key=word.count)
    lacking = next(letter for letter in "etaoinshrdlu" if letter not in word)
    return list(dict.fromkeys([most, word[-1], lacking]))


def _row(word: str, letter: str) -> dict[str, str]:
    question = f"How many times does the letter {letter} occur in {word}?"
    return {"question": question, "prompt": f"Q: {question}\nA:", "answer": str(word.count(letter))}
