"""What a row of a sample file says of one document, as people are told it: on the terminal and on the page."""

from __future__ import annotations

import hashlib
from typing import Any

from harness.records import answers

# Of answers and targets, far above what a model writes.
LONGEST_TEXT = 200_000
SHOWN_NUMBERS = 8


def answer_key(row: dict[str, Any]) -> str:
    """Return what counts as the answer: the likeliest choice, whether a text is the model's own, or the texts."""
    choices = answers.continuations(row)
    if answers.chosen(row) is not None:
        return f"choice {answers.chosen(row)}"
    return repr([choice.is_greedy for choice in choices]) if choices else repr(answers.texts(row))


def digest(text: str) -> bytes:
    """Return twelve bytes that stand for a text, so that those of a million documents fit."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def is_share(value: Any) -> bool:
    """Whether a metric's value of a document can be right or wrong, or a part of it: a number from 0 to 1, or a truth value."""
    return (isinstance(value, str) and value in {"True", "False"}) or (
        isinstance(value, int | float) and 0 <= value <= 1
    )


def is_right_or_wrong(value: Any) -> bool:
    """Whether a metric's value of a document is that of a right or a wrong answer, and no part of one."""
    return is_share(value) and (isinstance(value, str) or value in {0, 1})


def cut(text: str, most: int = LONGEST_TEXT) -> str:
    """Return the beginning of a text, and how much more there is where there is more."""
    more = len(text) - most
    return text if more <= 0 else f"{text[:most]} … and {more:,} more characters"


def shortened(text: str) -> str:
    """Return the answer of a request for numbers, one for each token, as its first few and how many there are."""
    if not text.startswith("["):
        return text
    try:
        numbers = [float(part.strip(" '\"")) for part in text.strip("[]").split(",")]
    except ValueError:
        return text
    first = ", ".join(f"{number:.3f}" for number in numbers[:SHOWN_NUMBERS])
    return f"{first}, ... ({len(numbers)} numbers)" if len(numbers) > SHOWN_NUMBERS else first


def target(row: dict[str, Any]) -> str:
    """Return the target; of a choice its number and the text that it stands for."""
    gold, choices = answers.gold(row), answers.continuations(row)
    text = cut(str(row.get("target")))
    return f"{text}: {choices[gold].text.strip()}" if gold is not None and len(choices) > 1 else text
