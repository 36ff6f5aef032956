"""Rollouts from beginnings of a text, by a model whose probabilities are known: their law, their ids, what they cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lm_eval_answers import llama
from scripted_lm import scripted_lm

from harness import HarnessError
from harness.methods import rollout_plans
from harness.methods.rollout_plans import Everywhere, FromTheEnd, alongs
from harness.methods.rollouts import Drawing, Rollout, Trajectory, roll_out, samples
from harness.models import acting
from harness.models.causal import CausalLM
from harness.models.tree import generation

END, RIGHT, WRONG = 0, 300, 301
PROMPT = (10, 11)
DRAWING = Drawing(seed=0, temperature=1.0, top_p=1.0, most_tokens=8)


def scripted(
    tokenizer: Any, follow: Sequence[float], right: Sequence[float], *, after: int = END, **settings: Any
) -> tuple[CausalLM, Trajectory, list[float]]:
    """Return a model, a wrong text of tokens 20, 21, ... and the share of right rollouts from each place, the prompt's first.

    After token t of the text (0: the prompt) comes the next one with probability ``follow[t]``, one that makes it right with
    ``right[t]``, else one that makes it wrong; ``after`` each of the last two it ends, or goes on without end.
    """
    text = [20 + number for number in range(len(follow) - 1)]
    script: dict[int, dict[int, float]] = {RIGHT: {after: 1.0}, WRONG: {after: 1.0}}
    for last, following, goes_on, is_right in zip([PROMPT[-1], *text], [*text, END], follow, right, strict=True):
        shares = {following: goes_on, RIGHT: is_right, WRONG: 1 - goes_on - is_right}
        script[last] = {token: share for token, share in shares.items() if share > 1e-9}
    rates = [0.0]
    for goes_on, is_right in zip(reversed(follow), reversed(right), strict=True):
        rates.append(is_right + goes_on * rates[-1])
    trajectory = Trajectory((*PROMPT, *text, END), len(PROMPT), "wrong text")
    return scripted_lm(tokenizer, script, **settings), trajectory, rates[:0:-1]


def is_right(rollout: Rollout) -> bool:
    return RIGHT in rollout.token_ids


def everywhere(
    lm: CausalLM, trajectory: Trajectory, count: int, drawing: Drawing = DRAWING, *, reuse: bool, places: Any = None
) -> Everywhere:
    """Return the rollouts from all places before the last token, the prompt's end among them."""
    [along] = alongs(lm, [trajectory], drawing) if reuse else [None]
    places = range(trajectory.start, len(trajectory.token_ids)) if places is None else places
    plan = Everywhere(trajectory, places, count=count, along=along)
    roll_out(lm, [plan], drawing)
    return plan


def counts(plan: Everywhere) -> list[int]:
    return [sum(map(is_right, plan.found[place].values())) for place in plan.places]


def interval(count: int, rate: float, confidence: float = 0.9999) -> tuple[int, int]:
    """Return the numbers between which so much of a binomial distribution lies."""
    mass = [math.comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(count + 1)]
    sums = list(itertools.accumulate(mass))
    tail = (1 - confidence) / 2
    low = next(k for k, total in enumerate(sums) if total > tail)
    high = next(k for k, total in enumerate(sums) if total >= 1 - tail - 1e-12)
    return low, high


@pytest.mark.parametrize("reuse", [True, False])
def test_counts_follow_the_known_rates(tokenizer: Any, reuse: bool) -> None:
    """Property 20: in the 0.9999 interval of Binomial(N, rate) for each prefix, with and without reuse."""
    follow, right = [0.8, 0.5, 0.9, 0.1, 0.7], [0.1, 0.3, 0.05, 0.6, 0.0]
    lm, trajectory, rates = scripted(tokenizer, follow, right, batch_size=200)
    count = 80
    found = counts(everywhere(lm, trajectory, count, reuse=reuse))
    assert len(found) == len(rates) == 5
    for right_ones, rate in zip(found, rates, strict=True):
        low, high = interval(count, rate)
        assert low <= right_ones <= high, (found, rates)
    assert found[-1] == 0


@pytest.mark.parametrize("reuse", [True, False])
def test_a_model_that_leaves_no_choice_gives_none_or_all(tokenizer: Any, reuse: bool) -> None:
    """Property 20: a deterministic LM gives exactly 0 or N."""
    lm, trajectory, rates = scripted(tokenizer, [1, 1, 0, 1, 0], [0, 0, 1, 0, 0])
    plan = everywhere(lm, trajectory, 7, reuse=reuse)
    assert counts(plan) == [7 * int(rate) for rate in rates] == [7, 7, 7, 0, 0]
    assert all(len(plan.found[place]) == 7 for place in plan.places)


def test_passing_rollouts_on_costs_a_fraction(tokenizer: Any) -> None:
    """Property 25: no more calls than without reuse, and under a third of the new tokens at 0.9 and 20 tokens."""
    lm, trajectory, _ = scripted(tokenizer, [0.9] * 20, [0.05] * 20, after=WRONG)
    drawing = Drawing(seed=0, temperature=1.0, top_p=1.0, most_tokens=1)  # so all end at one place
    tokens, calls = {}, {}
    for reuse in (True, False):
        before = lm.work.forwards
        plan = everywhere(lm, trajectory, 16, drawing, reuse=reuse, places=range(3, 22))
        calls[reuse] = lm.work.forwards - before
        distinct = {name: rollout for found in plan.found.values() for name, rollout in found.items()}
        tokens[reuse] = sum(len(rollout.token_ids) for rollout in distinct.values())
        assert all(len(found) == 16 for found in plan.found.values())
    assert calls[True] <= calls[False]
    assert tokens[True] < tokens[False] / 3


WORDS = "The café has 1234 clocks, naïve ones. 日本  "


def drawn_alone(lm: CausalLM, trajectory: Trajectory, place: int, stream: str, drawing: Drawing) -> list[int]:
    """Return what a stream draws after ``place`` ids, by a prompt of these ids alone."""
    ids = list(trajectory.token_ids[:place])
    limit = len(trajectory.token_ids) + drawing.most_tokens - place
    prompt = acting.Prompt(ids, limit, lambda new: new[-1] == END, stream=trajectory.stream(stream))
    found: list[int] = []
    acting.generate(lm, [prompt], on_done=lambda _, __, new: found.extend(new), choose=drawing.sampler())
    return found


@pytest.mark.parametrize("share_prefixes", [True, False])
def test_every_rollout_goes_on_from_the_ids_of_its_place(tokenizer: Any, share_prefixes: bool) -> None:
    """Property 23: inside a number, a word or a character of several bytes, and behind blanks, from ids and never from text."""
    lm = CausalLM(llama(tokenizer).double(), tokenizer, share_prefixes=share_prefixes)
    ids = tokenizer.encode(WORDS, add_special_tokens=False)
    trajectory = Trajectory(tuple(ids), 2, "words")
    drawing = Drawing(seed=1, temperature=0.9, top_p=0.9, most_tokens=3)
    plan = everywhere(
        lm, trajectory, 2, drawing, reuse=False, places=range(2, len(ids) + 1, 5 if share_prefixes else 15)
    )
    for place, found in plan.found.items():
        for stream, rollout in found.items():
            assert rollout.whole(trajectory)[: place - 2] == tuple(ids[2:place])
            if share_prefixes:
                assert list(rollout.token_ids) == drawn_alone(lm, trajectory, place, stream, drawing)
    followed = everywhere(lm, trajectory, 2, drawing, reuse=True, places=[2])
    assert {name: r.whole(trajectory) for name, r in followed.found[2].items()} == {
        name: r.whole(trajectory) for name, r in plan.found[2].items()
    }


def texts(plans: Sequence[Everywhere]) -> list[dict[int, dict[str, tuple[int, ...]]]]:
    return [
        {
            place: {name: r.whole(plan.trajectory) for name, r in sorted(found.items())}
            for place, found in plan.found.items()
        }
        for plan in plans
    ]


def test_rollouts_depend_on_nothing_but_their_own_stream(tokenizer: Any) -> None:
    """Property 24: the same whatever the batch size, the order of prefixes and what is beside; another seed, other texts."""
    model = llama(tokenizer).double()
    trajectories = [
        Trajectory(tuple(range(40, 52)), 3, "a"),
        Trajectory(tuple(range(40, 46)), 3, "b"),
    ]

    def made(size: int | str, seed: int, order: int) -> list[dict[int, dict[str, tuple[int, ...]]]]:
        lm = CausalLM(model, tokenizer, batch_size=size)
        drawing = Drawing(seed=seed, temperature=1.0, most_tokens=4)
        plans = [
            Everywhere(t, list(range(3, len(t.token_ids)))[::order], count=3, along=along)
            for t, along in zip(trajectories, alongs(lm, trajectories, drawing), strict=True)
        ]
        roll_out(lm, plans[::order], drawing)
        return texts(plans)

    first = made("auto", 5, 1)
    assert first == made(1, 5, -1) == made(3, 5, 1)
    assert first != made("auto", 6, 1)
    a, b = (set(found[3].values()) for found in first)
    assert a != b  # two texts that begin alike draw from streams of their own


def walk(lm: CausalLM, trajectory: Trajectory, count: int, enough: int, *, ahead: int = 2, **more: Any) -> FromTheEnd:
    [along] = alongs(lm, [trajectory], DRAWING)
    places = range(trajectory.start + 1, len(trajectory.token_ids))
    plan = FromTheEnd(along, places, count=count, enough=enough, is_right=is_right, ahead=ahead, **more)
    roll_out(lm, [plan], DRAWING)
    return plan


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_a_walk_from_the_end_stops_where_a_text_can_still_come_out_right(tokenizer: Any, ahead: int) -> None:
    """Property 21: as the full table on a deterministic fake; places below are not walked to."""
    lm, trajectory, _ = scripted(tokenizer, [1, 1, 1, 0, 1, 1, 0], [0, 0, 0, 1, 0, 0, 0])
    plan = walk(lm, trajectory, 4, 1, ahead=ahead, beside=[2])
    assert plan.right == {6: 0, 7: 0, 8: 0} and plan.settled == 5
    assert [is_right(rollout) for rollout in plan.found[2].values()] == [True] * 4


def test_what_a_walk_counts_depends_on_neither_the_batch_nor_what_is_begun_ahead(tokenizer: Any) -> None:
    """Property 24, of the walk: counts above the place that ended it are of all rollouts."""
    found = []
    for size, ahead in (("auto", 1), (1, 3), (3, 2), (32, 20)):
        lm, trajectory, _ = scripted(tokenizer, [0.9] * 12, [0.09, 0.09, 0.05, 0.02, *[0.01] * 7, 0], batch_size=size)
        plan = walk(lm, trajectory, 12, 2, ahead=ahead)
        found.append((plan.settled, plan.right))
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0][0] is not None and found[0][1]


def test_a_walk_over_a_text_that_is_never_right_comes_to_its_beginning(tokenizer: Any) -> None:
    lm, trajectory, _ = scripted(tokenizer, [0.5] * 4, [0] * 4)
    plan = walk(lm, trajectory, 3, 1)
    assert plan.settled is None and plan.right == {3: 0, 4: 0, 5: 0}


def test_end_of_text_and_stop_strings_end_a_rollout_and_the_limit_cuts_it(tokenizer: Any) -> None:
    stop = tokenizer.encode(" clocks", add_special_tokens=False)
    assert len(stop) > 1
    loop = {10: {11: 1.0}, 11: {10: 1.0}, **{a: {b: 1.0} for a, b in itertools.pairwise(stop)}, stop[-1]: {10: 1.0}}
    lm = scripted_lm(tokenizer, loop)
    drawing = Drawing(seed=0, temperature=0, most_tokens=6, until=(" clocks",))
    [[endless], [ended], [stopped]] = samples(lm, [[10], [200], [12, stop[0]]], names="abc", count=1, drawing=drawing)
    assert endless.token_ids == (11, 10) * 3 and endless.is_cut
    assert ended.token_ids == (END,) and not ended.is_cut
    assert (
        stopped.token_ids[: len(stop) - 1] == tuple(stop[1:]) and len(stopped.token_ids) == 6
    )  # the prompt's is no answer
    trajectory = Trajectory((12, *stop), 1, "d")
    plan = everywhere(lm, trajectory, 1, drawing, reuse=False, places=[2])
    [rollout] = plan.found[2].values()
    assert rollout.token_ids == tuple(stop[1:]) and not rollout.is_cut  # it begins in the text that was left


def test_a_temperature_of_nothing_takes_the_likeliest(tokenizer: Any) -> None:
    lm, trajectory, _ = scripted(tokenizer, [0.4, 0.1, 0.5], [0.3, 0.6, 0.2])
    plan = everywhere(lm, trajectory, 1, Drawing(seed=9, temperature=0, most_tokens=4), reuse=True)
    assert [rollout.whole(trajectory) for found in plan.found.values() for rollout in found.values()] == [
        (20, RIGHT, END), (20, RIGHT, END), (20, 21, END),
    ]  # fmt: skip


def test_rollouts_come_back_whole_after_memory_ran_out(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, trajectory, _ = scripted(tokenizer, [0.7] * 6, [0.2] * 6, batch_size=4)
    right = texts([everywhere(lm, trajectory, 5, reuse=True)])
    steps, step = itertools.count(1), generation._Generation._step

    def failing(self: Any) -> None:
        if next(steps) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(self)

    monkeypatch.setattr(generation._Generation, "_step", failing)
    assert texts([everywhere(lm, trajectory, 5, reuse=True)]) == right


def test_a_text_that_fills_the_context_is_refused_by_its_number(tokenizer: Any) -> None:
    lm, trajectory, _ = scripted(tokenizer, [0.5] * 4, [0.1] * 4, max_length=5)
    with pytest.raises(HarnessError, match="text 1 has 6 tokens, and the model's context of 5 has no room"):
        everywhere(lm, trajectory, 1, reuse=False)


def test_logits_that_are_no_numbers_end_it_in_a_sentence(tokenizer: Any) -> None:
    lm, trajectory, _ = scripted(tokenizer, [0.5] * 4, [0.1] * 4)
    with torch.no_grad():
        lm.model.model.embed_tokens.weight[21] = math.nan
    with pytest.raises(HarnessError, match="NaN"):
        everywhere(lm, trajectory, 2, reuse=True)


@pytest.mark.parametrize("settings", [{"temperature": -1.0}, {"top_p": 0.0}, {"most_tokens": 0}])
def test_numbers_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="has to be"):
        Drawing(seed=0, **settings)


def test_no_text_is_nothing_to_do(tokenizer: Any) -> None:
    lm, _, _ = scripted(tokenizer, [0.5], [0.1])
    roll_out(lm, [], DRAWING)
    assert samples(lm, [], names=[], count=3, drawing=DRAWING) == [] and lm.work.forwards == 0
    assert rollout_plans.alongs(lm, [], DRAWING) == []
