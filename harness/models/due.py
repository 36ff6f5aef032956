"""Due: which of the requests that an LM is given are to be answered, in the batches that all of them would make."""

from __future__ import annotations

from collections.abc import Iterable, Set


class Due:
    """Chooses batches, in the order in which an LM makes them.

    The last bits of a score depend on what goes through a model beside it. An LM that is given all requests, and leaves out
    the batches that are not chosen, gives those of the others the same to the last bit as if nothing were left out: a run that
    goes on after a kill, or that several processes share, has the scores of one that was never disturbed.

    Args:
        wanted: the numbers of the requests that have no answer yet.
        part, parts: batches are dealt out to so many parts in turn; the first part is 1.
    """

    def __init__(self, wanted: Set[int], *, part: int = 1, parts: int = 1) -> None:
        self.wanted, self.part, self.parts = wanted, part, parts
        self._turn = 0

    def takes(self, numbers: Iterable[int]) -> bool:
        """Return whether a batch with these requests is to be computed; each batch is asked about once."""
        is_ours = self._turn % self.parts == self.part - 1
        self._turn += 1
        return is_ours and any(number in self.wanted for number in numbers)
