"""Windows of ids scored by a causal model: over a tree where it may, plainly where not, and of the batches those that are due."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.models.tree.memory import PORTION, in_portions
from harness.models.tree.scoring import Scored
from harness.progress import bar, quiet

if TYPE_CHECKING:
    from harness.models.due import Due
    from harness.models.tree.pieces import Window


class ScoresWindows:
    """What scores windows for ``CausalLM``, of which this is a part."""

    due: Due | None
    sharing: Any
    tell: Any
    check_ids: Any
    max_length: Any
    batch_size_per_gpu: Any
    _budget: Any

    @property
    def _is_plain(self) -> bool:
        """Whether nothing shares."""
        raise NotImplementedError

    def _score(
        self,
        requests: Sequence[Any],
        take: Callable[[int, Any], None],
        disable_tqdm: bool,
        owners: Sequence[int] | None = None,
    ) -> None:
        """Score windows; ``take`` is given the number and the answer of each one as soon as it is there.

        Args:
            requests: ``((context, continuation) or None, context ids, continuation ids)``.
            owners: the number of the request that each belongs to; None: they are requests themselves.
        """
        owners = range(len(requests)) if owners is None else owners
        rest: list[int] = []
        for number, scored in self._shared(
            [(context, ids) for _, context, ids in requests], rest, owners, disable_tqdm
        ):
            answer = float(scored.logprobs.sum()), bool(scored.is_best.all())
            take(number, answer)
            if requests[number][0] is not None:  # of the others HFLM tells
                self.tell("loglikelihood", requests[number][0], answer)
        self._score_plainly([requests[n] for n in rest], lambda n, answer: take(rest[n], answer), disable_tqdm)

    def _shared(
        self, windows: Sequence[Window], rest: list[int], owners: Sequence[int], disable_tqdm: bool = False
    ) -> Iterator[tuple[int, Scored]]:
        """Score those windows, context and scored ids, that may share what they have in common; yield them by number.

        Args:
            rest: is given the numbers of those that are to be scored plainly: what may not share, and what is not finite. One
                broken request spoils those beside it, and alone it will be named.
            owners: the number of the request that each belongs to.
        """
        sharing = self.sharing()
        sequences = [(context + scored)[-(self.max_length + 1) :] for context, scored in windows]
        self.check_ids(sequences)
        if not sequences:
            return
        found, broken, due = set(), set[int](), self.due
        with bar(len(windows), "Scoring", unit="request", disable=disable_tqdm or self._is_plain) as progress:
            for number, scored in sharing.score(sequences, [len(scored) for _, scored in windows], due, owners):
                found.add(number)
                if scored is not None and np.isfinite(scored.logprobs).all():
                    yield number, scored
                elif scored is not None:
                    broken.add(number)
                progress.update(1)
        left = [number for number in range(len(windows)) if number not in found]
        rest += sorted(broken.union(left if due is None else self._due_plainly(left, windows, owners, due)))

    def _due_plainly(
        self, numbers: Sequence[int], windows: Sequence[Window], owners: Sequence[int], due: Due
    ) -> list[int]:
        """Return which windows are to be scored plainly: those of the portions that are due, as all of them would make them."""
        order = sorted(numbers, key=lambda number: -sum(map(len, windows[number])))
        portions = [place // PORTION for place in range(len(order))]
        sizes = [sum(len(windows[number][0]) + len(windows[number][1]) for number in order[start : start + PORTION])
                 for start in range(0, len(order), PORTION)]  # fmt: skip
        choice = due.choose(portions, [owners[number] for number in order], sizes)
        if choice.taken is None:
            return [order[place] for place in sorted(choice.windows)]
        return [number for number, portion in zip(order, portions, strict=True) if portion in choice.computed]

    def _score_plainly(self, requests: Sequence[Any], take: Callable[[int, Any], None], disable_tqdm: bool) -> None:
        """Score as ``HFLM`` does, the longest first."""
        lengths = [len(context) + len(continuation) for _, context, continuation in requests]
        of_class: Any = super()
        ordinary = of_class._loglikelihood_tokens

        def answer(part: list[int]) -> None:
            self.batch_size_per_gpu = self._budget.plain_rows(min(lengths[part[0]], self.max_length))
            with quiet("lm_eval.models.huggingface"):
                found = ordinary([requests[number] for number in part], disable_tqdm=disable_tqdm)
            for number, one in zip(part, found, strict=True):
                take(number, one)

        in_portions(sorted(range(len(requests)), key=lambda number: -lengths[number]), answer, self._budget)
