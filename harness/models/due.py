"""Due: which of the requests that an LM is given are to be answered, in the batches that all of them would make."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass

# How much more may go through the model, all parts together, so that scores are the same to the last bit. Beyond it (long
# texts whose windows lie in many batches) each part makes batches of its own requests.
MOST_MORE = 1.25


@dataclass(frozen=True)
class Choice:
    """What of the windows of some requests is to be computed.

    Attributes:
        taken: the batches that are this part's: those whose requests are answered, and those that end none; None: batches are
            made of ``windows`` alone.
        computed: those that this takes: a request may have windows in others, too.
        windows: the numbers of the windows that are answered.
    """

    taken: frozenset[int] | None
    computed: frozenset[int]
    windows: frozenset[int]


class Due:
    """Chooses batches.

    The last bits of a score depend on what goes through a model beside it. An LM that is given all requests, and leaves out
    the batches that are not chosen, gives those of the others the same to the last bit as if nothing were left out: a run that
    goes on after a kill, or that several processes share, has the scores of one that was never disturbed.

    Args:
        wanted: the numbers of the requests that have no answer yet.
        part, parts: batches are dealt out to so many parts in turn; the first part is 1.
        first: whose turn it is first, counted from 0: many short tasks are not all the first part's.
        owned: the numbers of the requests that are this part's where batches cannot be dealt out; None: all.
    """

    def __init__(
        self, wanted: Set[int], *, part: int = 1, parts: int = 1, first: int = 0, owned: Collection[int] | None = None
    ) -> None:
        self.wanted, self.part, self.parts = wanted, part, parts
        self.owned = None if owned is None else frozenset(owned)
        self._turn = first

    def takes(self, numbers: Iterable[int]) -> bool:
        """Return whether a batch with these requests is to be computed; each batch is asked about once, in order."""
        return self._is_our_turn() and not self.wanted.isdisjoint(numbers)

    def choose(
        self,
        batches: Sequence[int],
        owners: Sequence[int],
        sizes: Sequence[int],
        *,
        more: Sequence[Collection[int]] = (),
    ) -> Choice:
        """Return which batches to compute for windows of requests; a request is that part's which has its first batch.

        Args:
            batches: the number of the batch of each window.
            owners: the number of the request of each window.
            sizes: what each batch takes, in any unit.
            more: the batches that each window needs besides its own; none where it is left out.
        """
        of_requests: dict[int, set[int]] = {}
        for number, (batch, owner) in enumerate(zip(batches, owners, strict=True)):
            needed = of_requests.setdefault(owner, set())
            needed.add(batch)
            needed.update(more[number] if more else ())
        home: dict[int, int] = {}
        for batch, owner in zip(batches, owners, strict=True):
            home[owner] = min(batch, home.get(owner, batch))
        if self.parts > 1 and self._share(home, of_requests, sizes) > MOST_MORE:
            own = self.wanted if self.owned is None else self.wanted & self.owned
            return Choice(None, frozenset(), frozenset(n for n, owner in enumerate(owners) if owner in own))
        at_home: list[list[int]] = [[] for _ in sizes]
        for owner, batch in home.items():
            at_home[batch].append(owner)
        ours = [batch for batch in range(len(at_home)) if self._is_our_turn()]
        taken = frozenset(batch for batch in ours if not self.wanted.isdisjoint(at_home[batch]))
        windows = frozenset(number for number, owner in enumerate(owners) if home[owner] in taken)
        computed = taken.union(*(of_requests[owner] for batch in taken for owner in at_home[batch]))
        return Choice(taken.union(batch for batch in ours if not at_home[batch]), computed, windows)

    def _is_our_turn(self) -> bool:
        self._turn += 1
        return (self._turn - 1) % self.parts == self.part - 1

    def _share(self, home: dict[int, int], of_requests: dict[int, set[int]], sizes: Sequence[int]) -> float:
        """Return what all parts together compute, as a multiple of what there is."""
        computed: dict[int, set[int]] = {}
        for owner, needed in of_requests.items():
            computed.setdefault(home[owner] % self.parts, set()).update(needed)
        for batch in range(len(sizes)):
            computed.setdefault(batch % self.parts, set()).add(batch)
        return sum(sizes[batch] for part in computed.values() for batch in part) / max(1, sum(sizes))
