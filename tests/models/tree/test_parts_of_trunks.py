"""Many texts that go on from beginnings of one text: its keys are computed once, and each text is told of."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from going_on import greedily, run, some, whole
from lm_eval_answers import build, llama, sizes

from harness.models.causal import CausalLM
from harness.models.tree import generation
from harness.models.tree.prompts import Prompt

pytestmark = pytest.mark.usefixtures("quick_collection")


def windowed(tokenizer: Any) -> Any:
    """Return a tiny model whose layers see the last 8 tokens alone."""
    from transformers import MistralConfig, MistralForCausalLM

    return build(MistralForCausalLM, MistralConfig(**sizes(tokenizer), sliding_window=8))


class Branches:
    """Texts that leave ``text`` after each of ``places``, with a token of their own, all under the number 0."""

    def __init__(self, text: Sequence[int], places: Sequence[int], length: int = 4) -> None:
        self.trajectory = Prompt(text, 1, whole(1), keeps=True)
        self.starts = [[*text[:place], 9 + place % 50] for place in places]
        self.length = length
        self.found: dict[int, list[int]] = {}

    def on_done(self, number: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        if prompt is not self.trajectory:
            self.found[self.starts.index(list(prompt.token_ids))] = generated
            return []
        return [
            Prompt(start, self.length, whole(self.length), shared=len(start) - 1, after=prompt)
            for place, start in enumerate(self.starts)
            if place not in self.found
        ]


@pytest.mark.parametrize("make", [llama, windowed])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_texts_that_leave_one_text_anywhere_are_those_from_the_beginning(tokenizer: Any, make: Any, rows: int) -> None:
    lm = CausalLM(make(tokenizer), tokenizer, batch_size=rows)
    text = some(random.Random(0), 30)
    branches = Branches(text, [*range(1, 31), 30, 7])
    run(lm, [branches.trajectory], branches.on_done)
    assert branches.found == {number: greedily(lm, start, 4) for number, start in enumerate(branches.starts[:30])} | {
        k: v for k, v in branches.found.items() if k >= 30
    }


def test_the_text_that_others_leave_is_pushed_once(tokenizer: Any) -> None:
    lm = CausalLM(llama(tokenizer), tokenizer)
    text = some(random.Random(1), 60)
    run(lm, [Prompt(text, 1, whole(1))], lambda *_: None)  # tried out
    lm.start_counting()
    branches = Branches(text, range(10, 60, 5), length=2)
    run(lm, [branches.trajectory], branches.on_done)
    assert lm.work.pushed_tokens <= 60 + len(branches.starts) * (2 + 12)
    assert branches.trajectory.kept is not None and not branches.trajectory.kept.layers  # let go with the last text


@pytest.mark.parametrize("fails_at", [1, 3, 6])
def test_no_text_is_lost_when_memory_runs_out_beside_others_of_its_number(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Demand: a number is done when all that go on under it are, not with the first that says there is no more."""
    lm = CausalLM(llama(tokenizer), tokenizer, batch_size=4)
    branches = Branches(some(random.Random(2), 20), range(1, 15))
    steps, step = itertools.count(1), generation._Generation._step

    def failing(self: Any) -> None:
        if next(steps) == fails_at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(self)

    monkeypatch.setattr(generation._Generation, "_step", failing)
    run(lm, [branches.trajectory], branches.on_done)
    assert branches.found == {number: greedily(lm, start, 4) for number, start in enumerate(branches.starts)}


def test_a_kept_text_that_itself_grew_from_a_trunk_is_left_anywhere(tokenizer: Any) -> None:
    lm = CausalLM(llama(tokenizer), tokenizer, batch_size=4)
    generator = random.Random(3)
    begin, tail = some(generator, 12), some(generator, 9)
    middle = Prompt([*begin, *tail], 1, whole(1), shared=12, keeps=True)
    places = [3, 11, 12, 13, 20]
    starts = [[*(begin + tail)[:place], 77] for place in places]
    found: dict[int, list[int]] = {}

    def on_done(_: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        if prompt is first:
            return [middle]
        if prompt is middle:
            return [Prompt(start, 3, whole(3), shared=len(start) - 1, after=middle) for start in starts]
        found[len(prompt.token_ids) - 1] = generated
        return []

    first = Prompt([5, 6], 1, whole(1))
    run(lm, [first], on_done)
    assert found == {place: greedily(lm, start, 3) for place, start in zip(places, starts, strict=True)}
