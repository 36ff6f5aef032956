"""What generation is asked for, and what it tells of: prompts, places where a token is chosen, texts that end and go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from harness.models.head import Barred

if TYPE_CHECKING:
    from harness.models.tree.row_attention import KeptKeys

Tensor = torch.Tensor


@dataclass(eq=False)
class Prompt:
    """A text to go on from.

    Args:
        token_ids: at least one.
        limit: the most tokens to generate, at least one.
        is_finished: is given the generated ids after each token, and says whether they end here.
        shared: so many of its first tokens begin other prompts, too; their keys are kept for these. It counts in
            prompts that come later; the first ones share whatever they have in common.
        after: the prompt whose text this one goes on from, or a beginning of it. Its keys are copied; with ``shared``, which
            says that other prompts go on from it, too, they are seen by all of these.
        keeps: whether its keys are kept for a prompt that goes on from it.
        stream: names the random stream that its tokens are drawn from, where they are drawn.
    """

    token_ids: Sequence[int]
    limit: int
    is_finished: Callable[[list[int]], bool]
    shared: int = 0
    after: Prompt | None = None
    keeps: bool = False
    stream: int | str | None = None
    kept: KeptKeys | None = field(default=None, init=False)


@dataclass(frozen=True)
class Place:
    """Where a token is to be chosen: after a prompt and what has been generated, ``generated``."""

    prompt: Prompt
    generated: Sequence[int]


class Candidates:
    """What there is to choose from at some places: ``hidden`` (N, width), and the words."""

    def __init__(
        self,
        hidden: Tensor,
        best: Callable[[Barred | None], tuple[Tensor, Tensor]],
        logits: Callable[[], Tensor],
    ) -> None:
        self.hidden, self._best, self._logits = hidden, best, logits

    def logits(self) -> Tensor:
        """Return the logits of all words (N, V), float32 or wider, as the model has them; the caller's own."""
        return self._logits()

    def best_words(self, barred: Barred | None = None) -> tuple[Tensor, Tensor]:
        """Return the likeliest token of each place (N,), -1 where the logits are no numbers, and its logit (N,)."""
        return self._best(barred)


# Chooses a token for each place. One that is no word of the model has to end the text.
Choose = Callable[[Candidates, Sequence[Place]], list[int]]
# Is told the number of a prompt, the prompt (itself or one that came later), and the ids it ended with; returns prompts to
# go on with, under the same number.
OnDone = Callable[[int, Prompt, list[int]], Sequence[Prompt] | None]


def most_likely(candidates: Candidates, places: Sequence[Place]) -> list[int]:
    """Choose the likeliest word everywhere."""
    tokens: list[int] = candidates.best_words()[0].tolist()
    return tokens


class UnderWay:
    """How many prompts of each number there are to come, of those that begin with ``prompts``."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.first, self.count = prompts, [1] * len(prompts)

    def has_ended(self, number: int, prompt: Prompt, more: Sequence[Prompt]) -> bool:
        """Return whether a number has no prompts left when one ended and ``more`` go on from it."""
        if prompt is self.first[number]:  # perhaps again
            self.count[number] = 1
        self.count[number] += len(more) - 1
        return not self.count[number]


class NotANumber(Exception):
    """The logits of a prompt are not numbers; ``number`` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(f"the logits of prompt {number} are not numbers")
        self.number = number


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many ids two sequences begin with in common."""
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
