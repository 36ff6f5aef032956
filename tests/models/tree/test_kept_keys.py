"""Keys that are kept for texts that go on: let go in time, bounded, and beginnings and lengths that share them."""

from __future__ import annotations

import gc
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from going_on import greedily, run, some, whole
from lm_eval_answers import build, llama, sizes

from harness.models.causal import CausalLM
from harness.models.tree import fitness, generation
from harness.models.tree.generation import FIRST_SHARED
from harness.models.tree.prompts import Prompt
from harness.models.tree.row_attention import KeptKeys

pytestmark = pytest.mark.usefixtures("quick_collection")
OnDone = Callable[[int, Prompt, list[int]], Sequence[Prompt] | None]


@pytest.fixture
def lm(tokenizer: Any) -> CausalLM:
    """A tiny Llama with large random weights."""
    return CausalLM(llama(tokenizer), tokenizer, batch_size=4)


def held() -> int:
    """Return how many sets of keys are kept anywhere."""
    gc.collect()
    return sum(type(thing) is KeptKeys and bool(thing.layers) for thing in gc.get_objects())


def in_pieces(
    starts: Sequence[list[int]], rounds: int
) -> tuple[list[Prompt], list[Prompt], dict[int, list[int]], OnDone]:
    """Return prompts whose texts go on ``rounds`` times, all prompts of that, the texts, and what is told of each end.

    All prompts are held on to, as by someone who goes on with them later.
    """
    first = [Prompt(list(start), 3, whole(3), keeps=True) for start in starts]
    everything = list(first)
    texts: dict[int, list[int]] = {}
    left: dict[int, int] = {}

    def on_done(number: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        if prompt is first[number]:  # perhaps again
            left[number] = rounds
        left[number] -= 1
        texts[number] = [*prompt.token_ids, *generated]
        if not left[number]:
            return []
        everything.append(Prompt(list(texts[number]), 3, whole(3), after=prompt, keeps=True))
        return everything[-1:]

    return first, everything, texts, on_done


class Stop(Exception):
    """Someone who is told of an answer raises this."""


@pytest.mark.parametrize("told", [1, 4, 9])
def test_no_keys_are_left_when_what_is_told_of_an_answer_raises(lm: CausalLM, told: int) -> None:
    """Demand: an exception of on_done passes through, and the prompts that are still known hold no keys."""
    generator = random.Random(told)
    first, everything, _, on_done = in_pieces([some(generator, 12) for _ in range(5)], rounds=3)
    times = itertools.count(1)

    def raising(number: int, prompt: Prompt, generated: list[int]) -> Sequence[Prompt] | None:
        if next(times) == told:
            raise Stop
        return on_done(number, prompt, generated)

    with pytest.raises(Stop):
        run(lm, first, raising)
    assert any(prompt.kept is not None for prompt in everything)
    assert held() == 0


@pytest.mark.parametrize("fails_at", [3, 5, 8])
def test_no_keys_are_left_when_memory_runs_out_and_the_retry_gives_the_same(
    lm: CausalLM, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Demand: where memory ran out, the retry begins with no keys of the attempt before it, and gives the same texts."""
    generator = random.Random(fails_at)
    starts = [some(generator, 12 + number) for number in range(6)]
    first, _, right, on_done = in_pieces(starts, rounds=3)
    run(lm, first, on_done)
    steps, at_start = itertools.count(1), []
    step, begin = generation._Generation._step, generation._Generation.__init__

    def failing(self: Any) -> None:
        if next(steps) == fails_at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(self)

    def beginning(self: Any, *arguments: Any) -> None:
        at_start.append(held())
        begin(self, *arguments)

    monkeypatch.setattr(generation._Generation, "_step", failing)
    monkeypatch.setattr(generation._Generation, "__init__", beginning)
    first, everything, texts, on_done = in_pieces(starts, rounds=3)
    run(lm, first, on_done)
    assert at_start == [0, 0]
    assert texts == right == {number: [*start, *greedily(lm, start, 9)] for number, start in enumerate(starts)}
    assert len(everything) > 3 * len(starts)  # some began again
    assert held() == 0


def test_a_text_goes_on_from_a_prompt_whose_keys_were_let_go(lm: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Demand: what goes on from a prompt of an attempt that ended early gives the tokens that it has without any keys."""
    start = some(random.Random(1), 20)
    before = Prompt(start, 3, whole(3), keeps=True)

    def raising(*_: Any) -> None:
        raise Stop

    with pytest.raises(Stop):
        run(lm, [before], raising)
    text = [*start, *greedily(lm, start, 3)]
    found: list[list[int]] = []

    def on_done(_: int, __: Prompt, generated: list[int]) -> list[Prompt]:
        found.append(generated)
        return [Prompt(text, 4, whole(4), after=before)] if len(found) == 1 else []

    run(lm, [Prompt(some(random.Random(2), 5), 2, whole(2))], on_done)
    assert found[1] == greedily(lm, text, 4)


def one_after_the_other(lm: CausalLM, prompts: Sequence[Prompt]) -> tuple[list[list[int]], list[int]]:
    """Return what each of later prompts ended with, and the tokens that were pushed for each; one is under way at a time."""
    found: list[list[int]] = []
    pushed: list[int] = []
    waiting = list(prompts)

    def on_done(_: int, __: Prompt, generated: list[int]) -> list[Prompt]:
        found.append(generated)
        pushed.append(lm.work.pushed_tokens)
        return [waiting.pop(0)] if waiting else []

    run(lm, [Prompt([5, 6, 7], 1, whole(1))], on_done)
    return found[1:], [after - before for before, after in itertools.pairwise(pushed)]


def test_a_beginning_is_let_go_when_others_need_its_place_and_computed_again(
    lm: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demand: of beginnings that come again, those used last are held, the others made anew; no token differs."""
    monkeypatch.setattr(generation, "SHARED_TOKENS", 100)  # two of them, not three
    generator = random.Random(3)
    begins = {name: some(generator, 40) for name in "abcd"}
    order = "aabacabccda"
    prompts = [Prompt([*begins[name], *some(generator, 4)], 2, whole(2), shared=40) for name in order]
    found, pushed = one_after_the_other(lm, prompts)
    assert found == [greedily(lm, prompt.token_ids, 2) for prompt in prompts]
    held_then: list[str] = []
    expected = []
    for name in order:
        expected.append(name not in held_then)
        held_then = [*(other for other in held_then if other != name), name][-2:]
    assert [tokens >= 40 for tokens in pushed] == expected
    assert expected.count(False) == 4


def test_many_different_beginnings_take_bounded_memory_and_give_plain_tokens(
    lm: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demand: each of many documents with a beginning of its own leaves nothing behind; some come back later."""
    monkeypatch.setattr(generation, "SHARED_TOKENS", 90)
    alive: list[int] = []
    step = generation._Generation._step

    def watched(self: Any) -> None:
        step(self)
        used = {row.trunk for row in self.rows}
        alive.append(
            sum(t.length for number, t in self.trunks.items() if number >= FIRST_SHARED and number not in used)
        )

    monkeypatch.setattr(generation._Generation, "_step", watched)
    generator = random.Random(4)
    begins = [some(generator, 20 + number % 5) for number in range(18)]
    rounds = [[begins[number], begins[(number * 7) % 18], begins[number]] for number in range(18)]
    wanted: dict[int, list[Prompt]] = {
        number: [Prompt([*begin, *some(generator, 3)], 3, whole(3), shared=len(begin)) for begin in chosen]
        for number, chosen in enumerate(rounds)
    }
    right = {number: [greedily(lm, p.token_ids, 3) for p in prompts] for number, prompts in wanted.items()}
    found: dict[int, list[list[int]]] = {number: [] for number in wanted}

    def on_done(number: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        if prompt.shared:
            found[number].append(generated)
        return [wanted[number].pop(0)] if wanted[number] else []

    run(lm, [Prompt(some(generator, 4), 2, whole(2)) for _ in begins], on_done)
    assert found == right
    # Rows hold theirs for as long as they need them, four at a time; those that ended are let go one step later.
    assert max(alive) <= 90 + 4 * 24


def test_a_beginning_longer_than_the_room_there_is_works(lm: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Demand: at the edge nothing breaks: no room at all, exactly enough, one too few."""
    generator = random.Random(5)
    begin, other = some(generator, 30), some(generator, 30)
    for room in (0, 1, 29, 30, 31, 60):
        monkeypatch.setattr(generation, "SHARED_TOKENS", room)
        prompts = [
            Prompt([*text, *some(generator, 3)], 2, whole(2), shared=30) for text in (begin, begin, other, begin)
        ]
        found, pushed = one_after_the_other(lm, prompts)
        assert found == [greedily(lm, prompt.token_ids, 2) for prompt in prompts]
        assert pushed[0] >= 30 and (room < 60) == (pushed[3] >= 30), room


def longrope(tokenizer: Any, limit: int) -> Any:
    """Return a tiny Phi-3 whose places change where a text is longer than ``limit``."""
    from transformers import Phi3Config, Phi3ForCausalLM

    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rope["original_max_position_embeddings"] = limit
    more = {"rope_parameters": rope, "original_max_position_embeddings": limit}
    return build(Phi3ForCausalLM, Phi3Config(**(sizes(tokenizer) | more)))


def windowed(tokenizer: Any, **more: Any) -> Any:
    """Return a tiny Mistral that looks 64 tokens back."""
    from transformers import MistralConfig, MistralForCausalLM

    return build(MistralForCausalLM, MistralConfig(**(sizes(tokenizer) | {"sliding_window": 64, "head_dim": 8} | more)))


def most_tokens(lm: CausalLM, prompts: Sequence[Prompt]) -> int | None:
    """Return how long a text may be that shares."""
    with torch.no_grad():
        return lm._sharing.most_tokens([p.token_ids for p in prompts], [len(p.token_ids) + p.limit for p in prompts])


@pytest.mark.parametrize("kind", ["longrope", "window"])
def test_how_long_a_text_may_be_that_shares_is_told_and_the_longest_one_excludes_no_prompt(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Demand: a prompt shares by its own length; what texts may grow to is another question, with an answer."""
    monkeypatch.setattr(fitness, "WINDOWED_TOKENS", 96)
    lm = CausalLM(longrope(tokenizer, 96) if kind == "longrope" else windowed(tokenizer), tokenizer)
    generator = random.Random(6)
    prompts = [Prompt(some(generator, count), 6, whole(6)) for count in (30, 90, 91, 200)]
    assert most_tokens(lm, prompts) == 96
    found: dict[int, list[int]] = {}

    def on_done(number: int, _: Prompt, generated: list[int]) -> None:
        found[number] = generated

    run(lm, prompts, on_done, longest=96)
    assert found == {number: greedily(lm, prompts[number].token_ids, 6) for number in (0, 1)}


def test_a_model_without_bounds_says_so_and_one_that_cannot_share_as_well(lm: CausalLM, tokenizer: Any) -> None:
    """Demand: None where there is no bound or nothing shares."""
    alone = CausalLM(longrope(tokenizer, 96), tokenizer, share_prefixes=False)
    for one in (lm, alone):
        assert most_tokens(one, [Prompt([5, 6], 7, whole(7))]) is None


def test_tokens_that_a_text_has_in_common_with_the_one_it_goes_on_from_are_not_counted_as_new(lm: CausalLM) -> None:
    """Demand: the tokens that answers need are counted as far as they are new, also where the last ones were replaced."""
    start = some(random.Random(7), 30)
    count = [0]

    def on_done(_: int, prompt: Prompt, generated: list[int]) -> list[Prompt]:
        count[0] += 1
        # Its last ten tokens are others, five more than there were.
        return [Prompt([*start[:20], *[9] * 15], 2, whole(2), after=prompt)] if count[0] == 1 else []

    run(lm, [Prompt([5, 6], 1, whole(1))], lambda *_: None)  # tried out
    lm.start_counting()
    run(lm, [Prompt(start, 2, whole(2), keeps=True)], on_done)
    assert lm.work.requested_tokens == lm.work.distinct_tokens == 30 + 1 + 15 + 1
