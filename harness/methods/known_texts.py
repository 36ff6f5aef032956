"""Texts known again: what a method was trained on, so that a question among it is not asked."""

from __future__ import annotations

import hashlib
import re

# A shorter line may well stand in another text, too.
LEAST_CHARACTERS = 20


def text_digest(text: str) -> str:
    """Return what tells a text from others whatever its white space, short enough to keep some for each of thousands."""
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def questions_in(text: str) -> list[str]:
    """Return what a text may ask: up to each question mark, from the start, the line's, the mark's or the sentence's before it.

    Labels such as ``Q:`` are left out, and what is too short to be known again. A text without a mark asks its lines.
    """
    found: list[str] = []
    for match in re.finditer(r"\?", text):
        whole = text[: match.end()]
        found += [whole, whole.split("\n")[-1], re.split(r"\?\s|\n", whole)[-1], re.split(r"[.?!]\s|\n", whole)[-1]]
    unlabelled = (re.sub(r"^\s*(Q|Question)\s*:\s*", "", question).strip() for question in found or text.split("\n"))
    return [question for question in dict.fromkeys(unlabelled) if len(question) >= LEAST_CHARACTERS]
