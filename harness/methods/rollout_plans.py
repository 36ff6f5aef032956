"""Where rollouts leave a text: everywhere, each used at all places that it passes, or from the end until one comes out right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from harness.methods.hidden_states import Frozen
from harness.methods.rollouts import Drawing, Rollout, Start, Trajectory
from harness.models.drawing import Words
from harness.models.guards import refuse_generation

if TYPE_CHECKING:
    from harness.models.causal import CausalLM

Tensor = torch.Tensor
# Places of a text whose logits are made at the same time.
BLOCK = 16


class Along:
    """What rollouts draw while they follow a trajectory: known from one forward pass over it, at no cost for each.

    Raises:
        HarnessError: what the output head of the model reads cannot be seen.
    """

    def __init__(self, frozen: Frozen, trajectory: Trajectory, drawing: Drawing) -> None:
        self.trajectory, self.sampler = trajectory, drawing.sampler()
        self._frozen, self._hidden = frozen, frozen.hidden(trajectory.token_ids)
        if not bool(torch.isfinite(self._hidden).all()):
            refuse_generation(None)
        self._words: dict[int, Words] = {}

    def logits(self, place: int) -> Tensor:
        """Return the logits (V,) of what follows the first ``place`` ids."""
        with torch.no_grad():
            return self._frozen.head.logits(self._hidden[place - 1 : place])[0]

    def drawn(self, place: int, stream: str) -> int:
        """Return the id that a stream of the trajectory draws after the first ``place`` ids."""
        if place not in self._words:
            self._read(place - place % BLOCK)
        token = self._words[place].drawn(self.sampler.share(self.trajectory.stream(stream), place))
        if token < 0:
            refuse_generation(None)
        return token

    def leave(self, place: int, stream: str) -> Start:
        """Return where a rollout from ``place`` leaves the trajectory, with the id that it draws there."""
        for at in range(place, len(self.trajectory.token_ids)):
            token = self.drawn(at, stream)
            if token != self.trajectory.token_ids[at]:
                return Start(at, stream, (token,))
        return Start(len(self.trajectory.token_ids), stream)

    def _read(self, first: int) -> None:
        """Find out what may be drawn at the places from ``first`` on, a block of them."""
        places = range(max(1, first), min(first + BLOCK, len(self.trajectory.token_ids)))
        with torch.no_grad():
            logits = self._frozen.head.logits(self._hidden[places[0] - 1 : places[-1]])
        words = self.sampler.words(logits, again=lambda row: self.logits(places[row]))
        self._words |= dict(zip(places, words, strict=True))


def alongs(lm: CausalLM, trajectories: Sequence[Trajectory], drawing: Drawing) -> list[Along]:
    """Return what rollouts draw along each of some trajectories.

    Raises:
        HarnessError: what the output head of the model reads cannot be seen.
    """
    frozen = Frozen(lm)
    found = [Along(frozen, trajectory, drawing) for trajectory in trajectories]
    if found:
        frozen.learn_finish(max((trajectory.token_ids for trajectory in trajectories), key=len))
    return found


class Everywhere:
    """``count`` rollouts from each of some places of a trajectory.

    With ``along`` a rollout that draws the trajectory's own next id is passed on: given that, it is a fair sample of the next
    place, too, which is topped up to ``count``. So each place's rollouts keep their law, and those of neighbours are often the
    same. Without ``along`` every place has rollouts of its own.

    Attributes:
        found: rollouts of each place, by the names of their streams.
        passed_on: how many of them are those of a place before.
    """

    def __init__(
        self, trajectory: Trajectory, places: Sequence[int], *, count: int, along: Along | None = None
    ) -> None:
        self.trajectory, self.places, self.count, self.along = trajectory, sorted(places), count, along
        self.serves: dict[Start, list[int]] = {}
        self.found: dict[int, dict[str, Rollout]] = {}
        self.passed_on = 0

    def begin(self) -> Iterable[Start]:
        """See ``Plan``."""
        self.found = {place: {} for place in self.places}
        if not self.serves:
            self.serves = dict(self._passed() if self.along is not None else self._apart())
            self.passed_on = sum(len(places) - 1 for places in self.serves.values())
        return list(self.serves)

    def take(self, start: Start, rollout: Rollout) -> Iterable[Start]:
        """See ``Plan``."""
        for place in self.serves[start]:
            self.found[place][start.stream] = rollout
        return ()

    def needs(self, start: Start) -> bool:
        """See ``Plan``."""
        return True

    def _apart(self) -> Iterator[tuple[Start, list[int]]]:
        for place in self.places:
            for number in range(self.count):
                yield Start(place, stream_of(place, number)), [place]

    def _passed(self) -> Iterator[tuple[Start, list[int]]]:
        """Yield each rollout's start, and the places that it is a rollout of."""
        assert self.along is not None
        ids = self.trajectory.token_ids
        following: dict[str, list[int]] = {}
        for place in range(self.places[0], len(ids)):
            if place in self.found:
                self._top_up(following, place)
                for places in following.values():
                    places.append(place)
            for stream in list(following):
                token = self.along.drawn(place, stream)
                if token != ids[place]:
                    yield Start(place, stream, (token,)), following.pop(stream)
        if len(ids) in self.found:  # the whole trajectory is a place, too
            self._top_up(following, len(ids))
            for places in following.values():
                places.append(len(ids))
        for stream, places in following.items():
            yield Start(len(ids), stream), places

    def _top_up(self, following: dict[str, list[int]], place: int) -> None:
        """Add rollouts of the place's own to those that came to it."""
        for number in range(self.count - len(following)):
            following[stream_of(place, number)] = []


class FromTheEnd:
    """``count`` rollouts from one place after the other, from the last one back, until ``enough`` of a place's come out right.

    Attributes:
        right: of each place from which all rollouts were made, how many came out right.
        settled: the place where the walk ended, at which ``enough`` or more did; None where it came to the first one.
        found: rollouts of the places in ``right``, and of ``beside``, by the names of their streams.
        uncounted: those that had ended at ``settled``, and at places begun ahead, when the walk ended. How many there are depends
            on what was drawn at the same time.
    """

    def __init__(
        self,
        along: Along,
        places: Sequence[int],
        *,
        count: int,
        enough: int,
        is_right: Callable[[Rollout], bool],
        ahead: int,
        beside: Sequence[int] = (),
    ) -> None:
        """Plan a walk.

        Args:
            along: of the trajectory.
            places: to walk over.
            count: rollouts from each.
            enough: right ones that end the walk, 1 to ``count``.
            is_right: judges a rollout.
            ahead: places that are begun before the one above them has ended: they fill the batch.
            beside: places whose rollouts are made whatever the walk comes to.
        """
        self.along, self.trajectory, self.count, self.enough = along, along.trajectory, count, enough
        self.places, self.beside, self.is_right, self.ahead = sorted(places), list(beside), is_right, max(1, ahead)
        self._begin()

    def _begin(self) -> None:
        self.right: dict[int, int] = {}
        self.settled: int | None = None
        self.found: dict[int, dict[str, Rollout]] = {}
        self.uncounted: list[Rollout] = []
        self._origin: dict[str, int] = {}
        self._waiting = list(self.places)

    def begin(self) -> Iterable[Start]:
        """See ``Plan``."""
        self._begin()
        starts = [start for place in self.beside for start in self._from(place)]
        return starts + [start for _ in range(self.ahead) for start in self._next()]

    def take(self, start: Start, rollout: Rollout) -> Iterable[Start]:
        """See ``Plan``."""
        place = self._origin[start.stream]
        self.found[place][start.stream] = rollout
        if place in self.beside:
            return ()
        self.right[place] += self.is_right(rollout)
        if self.right[place] >= self.enough:
            self.settled = max(place, self.settled or place)
            for below in [other for other in self.right if other <= self.settled]:
                self.uncounted += self.found.pop(below).values()
                del self.right[below]
            return ()
        return self._next() if len(self.found[place]) == self.count else ()

    def needs(self, start: Start) -> bool:
        """See ``Plan``."""
        place = self._origin[start.stream]
        return place in self.beside or self.settled is None or place > self.settled

    def _next(self) -> list[Start]:
        """Return where the next place's rollouts start; nothing once a place above it has ended the walk."""
        if not self._waiting or (self.settled is not None and self._waiting[-1] <= self.settled):
            return []
        place = self._waiting.pop()
        self.right[place] = 0
        return self._from(place)

    def _from(self, place: int) -> list[Start]:
        streams = [stream_of(place, number) for number in range(self.count)]
        self._origin |= dict.fromkeys(streams, place)
        self.found[place] = {}
        return [self.along.leave(place, stream) for stream in streams]


def stream_of(place: int, number: int) -> str:
    """Return the name of the random stream of rollout ``number`` from a place."""
    return f"{place}/{number}"
