"""Guesses of what a text goes on with, from its own past: verified many at a time, they save forward passes.

Where the last few tokens of a text have occurred before, what followed then is guessed to follow again (prompt lookup
decoding). A guess is kept only where it is the likeliest token, so greedy text stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence

# Tokens that have to be the same before a guess is made: long matches first.
LENGTHS = (4, 2)
MOST, FIRST = 12, 3


class Drafts:
    """The past of one text, by its runs of tokens, and how well guesses did lately."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self.token_ids = list(token_ids)
        self.hope = FIRST
        self._follows: dict[tuple[int, ...], int] = {}
        self._indexed = 0

    def append(self, token: int) -> None:
        """Add the next token of the text."""
        self.token_ids.append(token)

    def guess(self, most: int) -> list[int]:
        """Return up to ``most`` tokens that may come next, fewer after guesses that were wrong."""
        wanted = min(most, self.hope)
        if wanted < 1:
            self.hope = min(FIRST, self.hope + 1)
            return []
        self._index()
        text = self.token_ids
        for length in LENGTHS:
            place = self._follows.get(tuple(text[-length:])) if len(text) > length else None
            if place is not None:
                # Beyond the end the guess repeats itself, as a text in a loop does.
                period = len(text) - place
                return [text[place + step % period] for step in range(wanted)]
        return []

    def judge(self, guessed: int, right: int) -> None:
        """Hope for more after right guesses, for less after wrong ones."""
        if guessed:
            self.hope = min(MOST, 2 * guessed) if right == guessed else right - (right == 0)

    def _index(self) -> None:
        """Note, for each run of tokens, what place its latest occurrence is followed at; not for the last run."""
        text = self.token_ids
        for place in range(self._indexed, len(text)):
            for length in LENGTHS:
                if place >= length:
                    self._follows[tuple(text[place - length : place])] = place
        self._indexed = len(text)
