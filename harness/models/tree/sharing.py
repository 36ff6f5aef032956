"""Requests answered together: whether the model allows it, in which portions, and again in smaller ones if need be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.models.refused import Refused
from harness.models.tree.fitness import Fit, check_generation, check_long, check_parts, fit, parts_of
from harness.models.tree.generation import generate
from harness.models.tree.memory import Budget, freed_memory_kept, is_out_of_memory
from harness.models.tree.prompts import Choose, OnDone, Prompt, UnderWay, common_length, most_likely
from harness.models.tree.scoring import Scored, Scoring
from harness.models.tree.work import Work
from harness.progress import say

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.models.due import Due

Sequences = Sequence[Sequence[int]]


class Sharing:
    """The fast path of one model.

    Args:
        call: the plain forward pass, (B, T) ids to (B, T, V) logits; uncounted.
        is_declared: a method said that its own parts of the model are plain causal.
        refusal: why the fast path is off from the start, if it is.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        call: Callable[[torch.Tensor], torch.Tensor],
        *,
        work: Work,
        budget: Budget,
        autocast: Callable[[], Any],
        is_declared: bool,
        refusal: str | None,
    ) -> None:
        self.model, self.call, self.work, self.budget = model, call, work, budget
        self.autocast, self.is_declared, self.refusal = autocast, is_declared, refusal
        work.reason = refusal
        self._fit: Fit | None = None
        self._checked: set[str] = set()
        self._is_off = refusal is not None
        self._parts: tuple[object, ...] = ()

    def score(
        self,
        sequences: Sequences,
        counts: Sequence[int],
        due: Due | None = None,
        owners: Sequence[int] = (),
    ) -> Iterator[tuple[int, Scored | None]]:
        """Score the last tokens of those sequences that may share; yield each one's number and scores as they come.

        Args:
            sequences: token ids, two or more each.
            counts: how many of its last tokens are scored.
            due: which requests are to be answered, None for all; of a sequence that is left out, None is yielded.
            owners: the number of the request that each sequence belongs to.
        """
        with freed_memory_kept():
            yield from self._score(sequences, counts, due, owners)

    def _score(
        self, sequences: Sequences, counts: Sequence[int], due: Due | None, owners: Sequence[int]
    ) -> Iterator[tuple[int, Scored | None]]:
        inputs = [sequence[:-1] for sequence in sequences]
        longest = max(map(len, inputs))
        waiting = self._able(sequences, [len(ids) for ids in inputs])
        if due is None:
            self.work.need([ids for number, ids in enumerate(inputs) if number not in waiting])
        is_first = True
        while waiting:
            numbers = sorted(waiting)
            try:
                with self.work.timed("rest"):
                    scoring = Scoring(self.tree_model, [sequences[n] for n in numbers], [counts[n] for n in numbers])
                    scoring.plan(self.budget.tokens_for(longest), due, [owners[n] for n in numbers] if due else ())
                    choice, due = scoring.choice, None  # again after memory ran out, all that is left is due
                    if choice is not None:
                        for number in {*range(len(numbers))} - choice.windows:
                            waiting.discard(numbers[number])
                            yield numbers[number], None
                        if choice.taken is None:
                            continue
                    if is_first:
                        self.work.requested_tokens += sum(len(inputs[number]) for number in waiting)
                        distinct, pairs = scoring.distinct
                        self.work.distinct_tokens += distinct
                        self.work.distinct_pairs += pairs
                    is_first = False
                    for place, scored in scoring.run():
                        waiting.discard(numbers[place])
                        yield numbers[place], scored
            except Refused as refused:
                return self.refuse(str(refused))
            except Exception as error:
                self._after(error)
        return None

    def generate(
        self, prompts: Sequence[Prompt], on_done: OnDone, *, choose: Choose = most_likely, longest: int | None = None
    ) -> None:
        """Generate for those prompts that may share.

        After memory ran out, a prompt that was not finished with all that came after it begins again.

        Args:
            on_done: is told of each prompt that ended; what it returns comes next, under the same number.
            choose: chooses the tokens.
            longest: tokens of the longest text that there will be, not above ``most_tokens``; None: that of a prompt and
                what it may generate.

        Raises:
            NotANumber: the logits of a prompt, or of one beside it, are NaN or infinite.
        """
        ids = [prompt.token_ids for prompt in prompts]
        lengths = [len(prompt.token_ids) + prompt.limit for prompt in prompts]
        waiting = self._able(ids, lengths, generates=True, longest=longest)
        self.work.need([ids[number] for number in waiting])
        under_way = UnderWay(prompts)
        while waiting:
            numbers = sorted(waiting)

            def done(
                place: int, prompt: Prompt, generated: list[int], numbers: list[int] = numbers
            ) -> Sequence[Prompt]:
                more = list(on_done(numbers[place], prompt, generated) or ())
                if under_way.has_ended(numbers[place], prompt, more):
                    waiting.discard(numbers[place])
                added = len(generated) - 1 + sum(len(_new(prompt)) for prompt in more)
                self.work.requested_tokens += added
                self.work.distinct_tokens += added
                return more

            chosen = [prompts[number] for number in numbers]
            try:
                with self.work.timed("rest"):
                    budget, rows = self.budget.tokens_for(max(map(len, ids))), self.budget.rows_for()
                    generate(self.tree_model, chosen, rows=rows, budget=budget, on_done=done, choose=choose)
            except Refused as refused:
                return self.refuse(str(refused))
            except Exception as error:
                self._after(error)
        return None

    def most_tokens(self, sequences: Sequences, lengths: Sequence[int]) -> int | None:
        """Return how long a text may be that shares, None where there is no bound or nothing shares.

        Args:
            sequences: token ids of prompts, on some of which the model is tried out.
            lengths: of the texts that they will be the beginnings of.
        """
        self._able(sequences, lengths, generates=True)
        return self._fit.most_tokens if self._fit is not None and self.refusal is None else None

    @property
    def tree_model(self) -> Any:
        """The model as it is run over packs; only once it was found fit."""
        assert self._fit is not None
        return self._fit.tree_model

    def refuse(self, reason: str, *, for_good: bool = False) -> None:
        """Turn the fast path off and say so once; ``for_good`` even if the model's parts change."""
        self._is_off = self._is_off or for_good
        self.refusal = self.work.reason = reason
        say(f"scoring every request on its own, as lm-eval does, because {reason}")

    def _able(
        self, sequences: Sequences, lengths: Sequence[int], *, generates: bool = False, longest: int | None = None
    ) -> set[int]:
        """Return the numbers of the sequences that may share, after trying the model out on the first of them."""
        parts = parts_of(self.model)
        if parts != self._parts and not self._is_off:
            # A layer or the head was exchanged: what was found out holds no longer.
            self._parts, self._fit, self._checked = parts, None, set()
            self.refusal = self.work.reason = None
        while self.refusal is None:
            try:
                with self.work.timed("check"):
                    tokens = [token for sequence in sequences[:8] for token in sequence]
                    self._try(tokens, longest=max([*lengths, longest or 0]), generates=generates)
                break
            except Refused as refused:
                self.refuse(str(refused))
            except Exception as error:
                self._after(error)
        if self.refusal is not None or self._fit is None:
            return set()
        most = self._fit.most_tokens
        return {number for number, length in enumerate(lengths) if most is None or length <= most}

    def _try(self, token_ids: list[int], *, longest: int, generates: bool) -> None:
        scratch = Work()
        if not self.is_declared:
            check_parts(self.model)
        if self._fit is None:
            self._fit = fit(self.model, self.call, token_ids, work=scratch, autocast=self.autocast)
        tree_model = self._fit.tree_model
        tree_model.work = scratch
        if self._fit.window is not None and longest > self._fit.window and "window" not in self._checked:
            check_long(self._fit, self.call, token_ids)
            self._checked.add("window")
        if generates and "generation" not in self._checked:
            check_generation(self._fit, self.call, token_ids)
            self._checked.add("generation")
        self.work.check_tokens += scratch.pushed_tokens
        tree_model.work = self.work

    def _after(self, error: Exception) -> None:
        """Go on with less at a time after memory ran out; raise anything else."""
        if not is_out_of_memory(error):
            raise error
        self.budget.shrink(error)


def _new(prompt: Prompt) -> Sequence[int]:
    """Return the tokens of a prompt that came later which are new: not of the text it goes on from, nor shared."""
    kept = prompt.after.kept if prompt.after is not None else None
    return prompt.token_ids[prompt.shared if kept is None else common_length(kept.token_ids, prompt.token_ids) :]
