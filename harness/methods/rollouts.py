"""Rollouts: texts that leave a given one somewhere and are drawn from there on, from ids, each from a random stream of its own.

The given text's keys are computed once, and every rollout sees as much of them as it begins with. What is drawn depends on
neither what is drawn beside it nor in which order. ``harness.methods.rollout_plans`` says where to leave a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from harness.errors import HarnessError
from harness.models import acting
from harness.models.greedy import Stopper, Wish, own_settings
from harness.progress import bar

if TYPE_CHECKING:
    from harness.models.causal import CausalLM


@dataclass(frozen=True)
class Drawing:
    """How rollouts are drawn.

    Attributes:
        seed: of all random streams.
        temperature: divides the logits; 0 takes the likeliest token always.
        top_k: draw from so many of the likeliest tokens; 0: from all.
        top_p: draw from the fewest tokens that have so much of the probability together.
        most_tokens: that a rollout may have beyond the end of the text it leaves, wherever it leaves it: so it can count as a
            rollout from any place that it passes.
        until: texts that end one, as end-of-text does.
    """

    seed: int
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.95
    most_tokens: int = 256
    until: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers. Raises ``ValueError``."""
        if self.most_tokens < 1:
            raise ValueError(f"most_tokens is {self.most_tokens}; it has to be 1 or more")
        self.sampler()

    def sampler(self) -> acting.Sampled:
        """Return what draws a token."""
        if self.temperature == 0:
            return acting.sampled(self.seed, top_k=1)
        return acting.sampled(self.seed, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


@dataclass(frozen=True)
class Trajectory:
    """A text to leave: its ids, of which the first ``start`` are the prompt, and a name for its random streams.

    Two trajectories of one ``roll_out`` have different names, unless their rollouts are to draw the same.
    """

    token_ids: tuple[int, ...]
    start: int
    name: str

    def stream(self, of: str) -> str:
        """Return the name of a random stream of this text's own."""
        return f"{self.name}/{of}"


@dataclass(frozen=True)
class Start:
    """Where a rollout leaves its trajectory: after the first ``place`` ids, with the ids ``first``, drawn or given already."""

    place: int
    stream: str
    first: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rollout:
    """The first ``place`` ids of a trajectory, then ``token_ids``; ``is_cut``: it did not end before it was too long."""

    place: int
    token_ids: tuple[int, ...]
    is_cut: bool

    def whole(self, trajectory: Trajectory) -> tuple[int, ...]:
        """Return all ids of the response."""
        return (*trajectory.token_ids[trajectory.start : self.place], *self.token_ids)


class Plan(Protocol):
    """Which rollouts of a trajectory are made, and what becomes of them."""

    @property
    def trajectory(self) -> Trajectory:
        """The text to leave."""
        ...

    def begin(self) -> Iterable[Start]:
        """Return where to start first. Asked again after memory ran out; rollouts that are known are told of again."""
        ...

    def take(self, start: Start, rollout: Rollout) -> Iterable[Start]:
        """Take a rollout, and return where to start next."""
        ...

    def needs(self, start: Start) -> bool:
        """Return whether a rollout under way is still wanted; what is not is ended, and not told of."""
        ...


def roll_out(lm: CausalLM, plans: Sequence[Plan], drawing: Drawing) -> None:
    """Make the rollouts that plans ask for, side by side.

    Args:
        lm: its model and its forward pass are used.
        plans: one for each trajectory.
        drawing: how to draw.

    Raises:
        HarnessError: a trajectory has no room in the model's context, an id without an embedding, or logits that are no
            numbers.
    """
    if not plans:
        return
    ends = _Ends(lm, drawing)
    first = [
        acting.Prompt(plan.trajectory.token_ids, 1, _at_once, keeps=True, stream=plan.trajectory.stream("its keys"))
        for plan in plans
    ]
    room = _room_of_all(lm, first)
    works = [_Work(plan, prompt, drawing, ends, room) for plan, prompt in zip(plans, first, strict=True)]
    longest = min(room, max(len(prompt.token_ids) for prompt in first) + drawing.most_tokens)
    with bar(None, "Drawing", unit="rollout") as progress:

        def told(number: int, prompt: acting.Prompt, generated: Sequence[int]) -> list[acting.Prompt]:
            progress.update(prompt is not first[number])
            return works[number].told(prompt, generated)

        acting.generate(lm, first, on_done=told, choose=drawing.sampler(), longest=longest)


def samples(
    lm: CausalLM, prompts: Sequence[Sequence[int]], *, names: Sequence[str], count: int, drawing: Drawing
) -> list[list[Rollout]]:
    """Return ``count`` texts that go on from each of some prompts.

    Args:
        lm: as for ``roll_out``.
        prompts: ids, one or more each.
        names: of the prompts' random streams.
        count: texts for each prompt.
        drawing: how to draw.

    Raises:
        HarnessError: as ``roll_out``.
    """
    plans = [_Samples(Trajectory(tuple(ids), len(ids), name), count) for ids, name in zip(prompts, names, strict=True)]
    roll_out(lm, plans, drawing)
    return [[plan.found[number] for number in range(count)] for plan in plans]


class _Samples:
    def __init__(self, trajectory: Trajectory, count: int) -> None:
        self.trajectory = trajectory
        self.starts = [Start(trajectory.start, str(number)) for number in range(count)]
        self.found: dict[int, Rollout] = {}

    def begin(self) -> Iterable[Start]:
        return self.starts

    def take(self, start: Start, rollout: Rollout) -> Iterable[Start]:
        self.found[int(start.stream)] = rollout
        return ()

    def needs(self, start: Start) -> bool:
        return True


class _Ends:
    """What ends a rollout: an end token, or a text."""

    def __init__(self, lm: CausalLM, drawing: Drawing) -> None:
        own = own_settings(lm.model).get("eos_token_id") or []
        eot = [] if lm.eot_token_id is None else [lm.eot_token_id]
        ends = frozenset([*(own if isinstance(own, list) else [own]), *eot])
        self._stopper = Stopper(lm, Wish(drawing.most_tokens, drawing.until, ends, False, False, "", {}), None)
        self.back = self._stopper.back

    def __call__(self, token_ids: Sequence[int]) -> bool:
        """Return whether ids end with an end token, or have a text that ends them among their last ones."""
        return bool(token_ids) and self._stopper(token_ids)


class _Work:
    """The rollouts of one trajectory: their prompts, and what is known of them."""

    def __init__(self, plan: Plan, first: acting.Prompt, drawing: Drawing, ends: _Ends, room: int) -> None:
        self.plan, self.first, self.ends = plan, first, ends
        self.trajectory = plan.trajectory
        self.most = min(len(self.trajectory.token_ids) + drawing.most_tokens, room)
        self.known: dict[Start, Rollout] = {}
        self.under_way: dict[acting.Prompt, Start] = {}

    def told(self, prompt: acting.Prompt, generated: Sequence[int]) -> list[acting.Prompt]:
        """Return the prompts that come next, after one ended with ids."""
        if prompt is self.first:
            self.under_way.clear()
            return self._prompts(self.plan.begin())
        start = self.under_way.pop(prompt)
        if not self.plan.needs(start):
            return []
        rollout = self.known[start] = self._rollout(start, generated)
        return self._prompts(self.plan.take(start, rollout))

    def _prompts(self, starts: Iterable[Start]) -> list[acting.Prompt]:
        """Return prompts of those rollouts that are not known, or whole, already."""
        waiting, found = list(starts), []
        while waiting:
            start = waiting.pop(0)
            if not self.plan.needs(start):
                continue
            if start not in self.known and self._is_whole(start):
                self.known[start] = self._rollout(start, ())
            if start in self.known:
                waiting += self.plan.take(start, self.known[start])
            else:
                found.append(self._prompt(start))
        return found

    def _prompt(self, start: Start) -> acting.Prompt:
        ids = [*self.trajectory.token_ids[: start.place], *start.first]
        prompt = acting.Prompt(
            ids,
            self.most - len(ids),
            partial(self._has_ended, start, self._tail(start)),
            shared=start.place,
            after=self.first,
            stream=self.trajectory.stream(start.stream),
        )
        self.under_way[prompt] = start
        return prompt

    def _has_ended(self, start: Start, tail: Sequence[int], generated: Sequence[int]) -> bool:
        return not self.plan.needs(start) or self.ends([*tail, *generated])

    def _rollout(self, start: Start, generated: Sequence[int]) -> Rollout:
        return Rollout(start.place, (*start.first, *generated), is_cut=not self.ends([*self._tail(start), *generated]))

    def _is_whole(self, start: Start) -> bool:
        """Return whether there is nothing to draw: its own first ids, or the whole trajectory, end it or fill the room."""
        if start.place + len(start.first) >= self.most:
            return True
        is_new = bool(start.first) or start.place == len(self.trajectory.token_ids) > self.trajectory.start
        return is_new and self.ends(self._tail(start))

    def _tail(self, start: Start) -> list[int]:
        """Return the last ids of the response before what is drawn: a text that ends it may begin in them."""
        begin = max(self.trajectory.start, start.place - self.ends.back)
        return [*self.trajectory.token_ids[begin : start.place], *start.first]


def room_for(lm: CausalLM, texts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens a text may have with its rollouts: one that has as many itself has no room for any.

    Args:
        lm: as for ``roll_out``.
        texts: ids of texts to leave; the model is tried out on the first of them.

    Raises:
        HarnessError: an id without an embedding.
    """
    return _room(lm, [acting.Prompt(tuple(ids), 1, _at_once) for ids in texts])


def _room(lm: CausalLM, prompts: Sequence[acting.Prompt]) -> int:
    most = acting.most_tokens(lm, prompts) if prompts else None
    return lm.max_length if most is None else min(lm.max_length, most)


def _room_of_all(lm: CausalLM, prompts: Sequence[acting.Prompt]) -> int:
    """Return how many tokens a text may have; all of ``prompts`` have to have less."""
    room = _room(lm, prompts)
    for number, prompt in enumerate(prompts, start=1):
        if len(prompt.token_ids) >= room:
            raise HarnessError(
                f"text {number} has {len(prompt.token_ids)} tokens, and the model's context of {room} has no room for a "
                "rollout of it; leave it out"
            )
    return room


def _at_once(_: Sequence[int]) -> bool:
    return True
