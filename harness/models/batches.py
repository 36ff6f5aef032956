"""Texts that are more than greedy search, or of models that cannot share: in batches, as transformers generates them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import StoppingCriteria

from harness.models import greedy
from harness.models.tree.memory import in_portions
from harness.progress import quiet

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from harness.models.greedy import Wish

# These look at all tokens before the next one, padding too: prompts of one batch have one length.
LOOK_BACK = ("encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size")


class RowsEnd(StoppingCriteria):
    """Ends each row of a batch for itself.

    Args:
        start: how many ids of a row are not generated.
    """

    def __init__(self, stopper: greedy.Stopper, start: int) -> None:
        self.stopper, self.start = stopper, start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        """Return which rows (B,) have ended."""
        tails = input_ids[:, max(self.start, input_ids.shape[1] - self.stopper.back) :].tolist()
        decoded = self.stopper.lm.tokenizer.batch_decode(tails)
        ended = [
            self._has_ended(number, tail, text, input_ids)
            for number, (tail, text) in enumerate(zip(tails, decoded, strict=True))
        ]
        return torch.tensor(ended, device=input_ids.device)

    def _has_ended(self, number: int, tail: list[int], text: str, input_ids: torch.Tensor) -> bool:
        if tail[-1] in self.stopper.wish.ends:
            return True
        if not any(end in text for end in self.stopper.wish.until):
            return False
        return self.stopper.thinking is None or self.stopper.is_awake(input_ids[number, self.start :].tolist())


def write(
    lm: Any,
    requests: Sequence[Instance],
    numbers: Sequence[int],
    wishes: Sequence[Wish],
    ids: Mapping[str, list[int]],
    take: Callable[[int, list[int]], None],
) -> None:
    """Generate the texts of requests ``numbers``; ``take`` is given the number and the ids of each one.

    Args:
        lm: a ``CausalLM``, whose ``_model_generate`` makes them.
        wishes: of all requests.
        ids: of each request's text.
    """
    tokens = [ids[request.args[0]] for request in requests]
    kinds = list(dict.fromkeys(wishes[number] for number in numbers))
    place = {wish: number for number, wish in enumerate(kinds)}
    # The longest first, so that what does not fit is known at once.
    order = sorted(numbers, key=lambda number: (place[wishes[number]], -len(tokens[number])))

    def answer(part: list[int]) -> None:
        for rows in _batches(lm, part, wishes, tokens):
            wish = wishes[rows[0]]
            room = lm.max_length - wish.limit if lm.backend == "causal" else lm.max_length
            found = _generated(lm, wish, [tokens[number][-room:] for number in rows], [requests[n] for n in rows])
            for number, generated in zip(rows, found, strict=True):
                take(number, generated)

    with quiet("transformers.generation.utils"):
        in_portions(order, answer, lm._budget)


def _batches(
    lm: Any, part: Sequence[int], wishes: Sequence[Wish], tokens: Sequence[Sequence[int]]
) -> Iterator[list[int]]:
    """Yield the numbers of requests that go through the model together: of one kind, as many as fit."""
    rows: list[int] = []
    for number in part:
        wish = wishes[number]
        most = lm._budget.plain_rows(min(len(tokens[rows[0]]) + wish.limit, lm.max_length)) if rows else 1
        is_like = rows and wish == wishes[rows[0]]
        if is_like and any(name in wish.settings for name in LOOK_BACK):
            is_like = len(tokens[number]) == len(tokens[rows[0]])
        if rows and (not is_like or len(rows) >= most):
            yield rows
            rows = []
        rows.append(number)
    if rows:
        yield rows


def _generated(lm: Any, wish: Wish, prompts: Sequence[Sequence[int]], requests: Sequence[Instance]) -> list[list[int]]:
    """Return what each prompt of a batch goes on with, without padding."""
    pad = int(lm.tokenizer.pad_token_id)
    width = max(map(len, prompts))
    context = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], dtype=torch.long)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], dtype=torch.long)
    lm.writing = (wish, list(requests))
    out = lm._model_generate(
        context.to(lm.device),
        max_length=width + wish.limit,
        stop=list(wish.until),
        attention_mask=mask.to(lm.device),
        **wish.settings,
    )
    start = width if lm.backend == "causal" else 1
    return [_without_padding(row[start:], pad) for row in out.tolist()]


def _without_padding(row: list[int], pad: int) -> list[int]:
    """Return a row without what fills it up at its end."""
    end = len(row)
    while end and row[end - 1] == pad:
        end -= 1
    return row[:end]
