"""Texts that stop, go on and begin anew while others are under way: the same tokens as from the beginning, fewer pushed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from going_on import greedily, run, some, whole
from lm_eval_answers import llama

from harness.models.causal import CausalLM
from harness.models.head import Barred
from harness.models.plain_generation import generate_plainly
from harness.models.refused import Refused
from harness.models.tree.prompts import Candidates, Place, Prompt, most_likely


@pytest.fixture
def lm(tokenizer: Any) -> CausalLM:
    """A tiny Llama with large random weights."""
    return CausalLM(llama(tokenizer), tokenizer, batch_size=8)


@pytest.mark.parametrize("inserted", [0, 1, 40])
def test_texts_that_go_on_in_pieces_are_those_from_the_beginning(lm: CausalLM, inserted: int) -> None:
    """Demand: a text stopped every third token, with tokens put in, goes on as if it had been a prompt from the start."""
    generator = random.Random(inserted)
    stem = some(generator, 30)
    starts = [[*stem, *some(generator, 2 + number)] for number in range(5)]
    extra = [some(generator, inserted) for _ in starts]
    texts = [list(start) for start in starts]
    pieces = [0] * len(starts)

    def on_done(number: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        assert list(prompt.token_ids) == texts[number]
        assert generated == greedily(lm, texts[number], len(generated))
        pieces[number] += 1
        texts[number] += generated + (extra[number] if pieces[number] == 2 else [])
        return [Prompt(list(texts[number]), 3, whole(3), after=prompt, keeps=True)] if pieces[number] < 4 else []

    run(lm, [Prompt(start, 3, whole(3), keeps=True) for start in starts], on_done)
    assert pieces == [4] * len(starts)


def test_a_text_that_goes_on_pushes_its_new_tokens_alone(lm: CausalLM) -> None:
    """Demand: keys are kept: going on costs what was added, not what was there."""
    generator = random.Random(1)
    start = some(generator, 60)
    run(lm, [Prompt(start, 2, whole(2))], lambda *_: None)  # tried out
    lm.start_counting()
    seen: list[int] = []

    def on_done(_: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        seen.append(lm.work.pushed_tokens)
        text = [*prompt.token_ids, *generated, 7, 8]
        return [Prompt(text, 2, whole(2), after=prompt, keeps=True)] if len(seen) < 5 else []

    run(lm, [Prompt(start, 2, whole(2), keeps=True)], on_done)
    grown = [after - before for before, after in itertools.pairwise(seen)]
    assert max(grown) <= 4 + 12  # the ones put in, the generated ones, and guesses that were wrong
    assert seen[0] >= 60


def test_keys_are_used_only_as_far_as_the_tokens_are_the_same(lm: CausalLM) -> None:
    """Demand: what a tokenizer made of the text in other tokens is pushed again."""
    generator = random.Random(2)
    start = some(generator, 40)
    changed = [*start[:20], 9, 9, *start[22:]]
    found: list[list[int]] = []

    def on_done(_: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        found.append(generated)
        return [Prompt(changed, 4, whole(4), after=prompt)] if len(found) == 1 else []

    run(lm, [Prompt(start, 4, whole(4), keeps=True)], on_done)
    assert found == [greedily(lm, start, 4), greedily(lm, changed, 4)]


def test_beginnings_that_come_again_are_pushed_once(lm: CausalLM) -> None:
    """Demand: later prompts with a shared beginning give the plain tokens, and the beginning goes through once."""
    generator = random.Random(3)
    shared = some(generator, 80)
    endings = [some(generator, 5) for _ in range(6)]
    starts = [some(generator, 6) for _ in endings]
    run(lm, [Prompt(start, 2, whole(2)) for start in starts], lambda *_: None)  # tried out
    lm.start_counting()
    found: dict[int, list[int]] = {}

    def on_done(number: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        if prompt.shared:
            found[number] = generated
            return []
        return [Prompt([*shared, *endings[number]], 3, whole(3), shared=len(shared))]

    run(lm, [Prompt(start, 2, whole(2)) for start in starts], on_done)
    assert found == {n: greedily(lm, [*shared, *ending], 3) for n, ending in enumerate(endings)}
    assert lm.work.pushed_tokens < 80 + 6 * (6 + 5 + 2 + 3 + 12)


def test_a_prompt_that_is_all_shared_beginning_still_has_a_token_to_push(lm: CausalLM) -> None:
    """Demand: at the very edge nothing breaks."""
    shared = some(random.Random(4), 12)
    found: list[list[int]] = []

    def on_done(_: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        found.append(generated)
        return [Prompt(shared, 3, whole(3), shared=len(shared))] if len(found) < 3 else []

    run(lm, [Prompt([5, 6], 1, whole(1))], on_done)
    assert found[1:] == [greedily(lm, shared, 3)] * 2


def ending_at_places(candidates: Candidates, places: Sequence[Place]) -> list[int]:
    """Choose the likeliest word, and 10,000 as the third token of every text."""
    return [
        10_000 if len(place.generated) == 2 else token
        for place, token in zip(places, most_likely(candidates, places), strict=True)
    ]


@pytest.mark.parametrize("is_plain", [False, True])
def test_a_choice_that_is_no_word_ends_the_text(lm: CausalLM, is_plain: bool) -> None:
    """Demand: the chooser sees every place with what was generated before it, guesses included."""
    generator = random.Random(5)
    start = some(generator, 5) * 4  # so that guesses are made
    found: list[list[int]] = []

    def is_finished(generated: list[int]) -> bool:
        return generated[-1] >= 10_000

    def on_done(_: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        found.append(generated)
        return [Prompt([*prompt.token_ids, *generated[:2]], 9, is_finished, after=prompt)] if len(found) < 2 else []

    prompts = [Prompt(start, 9, is_finished, keeps=True)]
    if is_plain:
        with torch.no_grad():
            generate_plainly(lm.model, lm._model_call, prompts, on_done=on_done, choose=ending_at_places)
    else:
        run(lm, prompts, on_done, choose=ending_at_places)
    words = greedily(lm, start, 4)
    assert found == [[*words[:2], 10_000], [*words[2:], 10_000]]


def test_barred_tokens_are_never_chosen_and_leave_the_others_alone(lm: CausalLM) -> None:
    """Demand: the best of what is left, in the barred rows only."""
    head = lm.model.get_output_embeddings()
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    run(lm, [Prompt([5, 6], 1, whole(1))], lambda *_: None)
    own = lm._sharing.tree_model.head
    logits = head(hidden)
    best = logits.argmax(-1)
    barred = torch.zeros(logits.shape[-1], dtype=torch.bool)
    barred[best] = True
    tokens, values = own.best(hidden, Barred(torch.tensor([1]), barred))
    left = logits.masked_fill(barred, -torch.inf)
    assert tokens.tolist() == [int(best[0]), int(left[1].argmax()), int(best[2])]
    assert torch.allclose(values[1], left[1].max())


def test_many_texts_with_calls_of_different_lengths_do_not_disturb_each_other(lm: CausalLM) -> None:
    """Demand: forty texts, each with side prompts and pieces of its own, all as plain search has them."""
    generator = random.Random(6)
    stem, side = some(generator, 25), some(generator, 45)
    starts = [[*stem, *some(generator, generator.randrange(1, 20))] for _ in range(40)]
    plans = [[generator.randrange(1, 6) for _ in range(generator.randrange(1, 6))] for _ in starts]
    texts, rounds = [list(start) for start in starts], [0] * len(starts)
    parked: dict[int, Prompt] = {}

    def on_done(number: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        assert generated == greedily(lm, prompt.token_ids, len(generated))
        if prompt.shared:  # a side prompt ended: its first token is the result
            texts[number].append(generated[0])
            count = plans[number][rounds[number]]
            return [Prompt(list(texts[number]), count, whole(count), after=parked.pop(number), keeps=True)]
        texts[number] += generated
        rounds[number] += 1
        if rounds[number] == len(plans[number]):
            return []
        parked[number] = prompt
        return [Prompt([*side, *texts[number][-3:]], 2, whole(2), shared=len(side))]

    prompts = [Prompt(start, plan[0], whole(plan[0]), keeps=True) for start, plan in zip(starts, plans, strict=True)]
    run(lm, prompts, on_done)
    assert rounds == [len(plan) for plan in plans]


def test_a_model_whose_head_cannot_be_seen_is_refused_in_words(lm: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Demand: the plain way says what it misses."""
    monkeypatch.setattr(type(lm.model), "get_output_embeddings", lambda self: None)
    with pytest.raises(Refused, match="no output head"):
        generate_plainly(
            lm.model, lm._model_call, [Prompt([5], 1, whole(1))], on_done=lambda *_: None, choose=most_likely
        )
