"""Encoder: answers ``embed`` requests with any model that makes a vector of a text (``--model encoder``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from lm_eval.api.model import LM

from harness.errors import HarnessError
from harness.models.embedding import Asked, Vector, answered, asked, batches, counted_under
from harness.models.guards import check_ids
from harness.models.laid_out import Row, rows_of
from harness.models.lm import ENCODER, is_as
from harness.models.pooled import dense_layer, pool
from harness.models.prefixes import LEAST_ROWS, LEAST_TOKENS, Prefix, Prefixed, shared_beginning
from harness.models.sentence_files import Way
from harness.models.tokenizer_only import WithoutHead
from harness.models.tree.memory import PORTION, Budget, in_portions, is_out_of_memory
from harness.models.tree.states import TreeStates
from harness.models.tree.work import Work
from harness.progress import bar, process_count

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Tensor = torch.Tensor
# How far a vector of length 1 may lie from the one whose beginning is not shared: sums are made in another order. In half
# precision, each of them is rounded.
TOLERANCE, LOW_PRECISION_TOLERANCE = 1e-5, 1e-2
# Poolings that take the state of one token, the last one that is pooled.
ONE_STATE = frozenset({"last", "eos"})


class Encoder(WithoutHead):
    """A model without a head that makes one vector of a text: an encoder, or a decoder with one of the poolings.

    Vectors are float32, whatever the model computes in, and the same whichever texts are embedded beside them: masks come
    from lengths, places are given explicitly. ``truncated`` counts, by task, the texts that were cut at their end.
    """

    answers: ClassVar[frozenset[str]] = ENCODER.answers
    advice: ClassVar[str] = ENCODER.advice
    tells_answers: ClassVar[bool] = True
    cut_side: ClassVar[str] = "at their end"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        way: Way,
        batch_size: int | str = "auto",
        empty: str = "error",
        add_bos_token: bool | None = None,
        share_prefixes: bool = True,
    ) -> None:
        """Wrap ``model`` and ``tokenizer`` as they are.

        Args:
            model: without a head, on its device already.
            way: how a text becomes a vector.
            batch_size: ``auto``: as many tokens at a time as are fast and fit. N: no more than N texts.
            empty: ``error`` refuses a text of white space alone, ``zero`` makes zeros of it.
            add_bos_token: whether the token that begins texts stands before what is laid out; None: if there is one.
            share_prefixes: False runs every text of a decoder on its own.

        Raises:
            HarnessError: there are several processes, or the tokenizer has no end-of-text token and ``eos`` is pooled.
        """
        LM.__init__(self)
        if process_count() > 1:
            raise HarnessError("--model encoder runs in one process: start it without a launcher")
        self.settings: dict[str, Any] = {
            "way": way, "batch_size": batch_size, "empty": empty, "add_bos_token": add_bos_token,
            "share_prefixes": share_prefixes,
        }  # fmt: skip
        self.model, self.tokenizer, self.way = model.eval(), tokenizer, way
        self._device, self.max_length = model.device, way.max_length
        self.truncated: Counter[str] = Counter()
        self.work: Work = Work()
        self._budget = Budget(model, rows=batch_size if isinstance(batch_size, int) else None)
        self._dense = [dense_layer(folder, device=self.device) for folder in way.dense]
        self._prefixed = Prefixed(model) if way.is_causal and share_prefixes else None
        self._tree: TreeStates | None = None
        # Over a tree, places are counted from where the pooling begins.
        is_counted = "weighted_mean" in way.pooling and not way.is_laid_out
        self._has_tried_tree = not (way.is_causal and share_prefixes) or is_counted
        if "eos" in way.pooling and way.is_laid_out and tokenizer.eos_token_id is None:
            raise HarnessError(
                "pooling=eos needs a token that ends texts, and the tokenizer has none; take pooling=last"
            )

    def replace(
        self,
        *,
        model: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        way: Way | None = None,
    ) -> Self:
        """Return this LM with another model, tokenizer or way to a vector."""
        settings = {**self.settings, "way": way or self.way}
        return type(self)(model or self.model, tokenizer or self.tokenizer, **settings)

    def start_counting(self) -> None:
        """Forget the work and the truncated texts of earlier evaluations."""
        self.truncated.clear()
        self.work.clear()

    def leaves_out(self, kind: str) -> bool:
        """Return whether these are vectors, made in portions of which some may be left out, as this class makes them."""
        return kind == "embed" and is_as(self, Encoder, "embed", "vectors", "_portion")

    def count_truncated(self, kind: str, requests: list[Instance]) -> None:
        """Count texts in ``truncated`` that are answered from what an interrupted run left."""
        if kind == "embed":
            wanted = list(dict.fromkeys(map(asked, requests)))
            self._count(requests, dict(zip(wanted, self.rows(wanted), strict=True)))

    def embed(self, requests: list[Instance]) -> list[Vector]:
        """Return one vector (D,), float32, for each request, in order.

        Args:
            requests: ``arguments`` is ``(text, {"instruction": str or None, "role": "query", "document" or None})``.

        Raises:
            HarnessError: a text is empty, an instruction leaves it no room, or its vector is no direction; it is named.
        """

        def embed(wanted: list[Asked]) -> Iterator[tuple[int, Any]]:
            with self.work.timed("tokenizing"):
                rows = self.rows(wanted)
            self._count(requests, dict(zip(wanted, rows, strict=True)))
            if due is None:
                self.work.need([row.ids for row in rows])
                return self.vectors(rows)
            takes = due.takes
            return self.vectors(rows, lambda numbers: takes(place for n in numbers for place in places[wanted[n]]))

        due, places = self.due, dict[Asked, list[int]]()
        for place, request in enumerate(requests):
            places.setdefault(asked(request), []).append(place)
        return answered(requests, embed, empty=self.settings["empty"], tell=self.tell, is_part=due is not None)

    def rows(self, wanted: Sequence[Asked]) -> list[Row]:
        """Return the ids of what is to be embedded.

        Raises:
            HarnessError: an instruction leaves a text no room, or an id is none of the model's.
        """
        add_bos = self.settings["add_bos_token"]
        begins = self.tokenizer.bos_token_id if add_bos is not False else None
        found = rows_of(self.tokenizer, self.way, wanted, begins=begins)
        check_ids([row.ids for row in found], rows=len(self.model.get_input_embeddings().weight))
        return found

    def vectors(
        self, rows: Sequence[Row], is_due: Callable[[list[int]], bool] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Yield the number and the vector (D,) of each row, the longest first; rows that begin alike begin once.

        Args:
            is_due: whether the rows of these numbers are wanted, which are embedded together; None: all are.
        """
        alike: dict[str, list[int]] = {}
        for number in sorted(range(len(rows)), key=lambda number: -len(rows[number].ids)):
            alike.setdefault(rows[number].before, []).append(number)
        tree = self._fit_tree(rows)
        with bar(len(rows), "Embedding", unit="text", disable=not rows) as progress:
            for numbers in alike.values():
                prefix = self._prefix([rows[number] for number in numbers]) if tree is None else None
                for start in range(0, len(numbers), PORTION):
                    portion = numbers[start : start + PORTION]
                    progress.update(len(portion))
                    if is_due is not None:
                        if not is_due(portion):
                            continue
                        self.work.need([rows[number].ids for number in portion])
                    found = self._portion(rows, portion, tree or prefix)
                    yield from ((number, vector.numpy()) for number, vector in found.items())

    def _portion(
        self, rows: Sequence[Row], numbers: Sequence[int], shared: TreeStates | Prefix | None
    ) -> dict[int, Any]:
        """Return the vectors of rows by number, over a tree of their tokens or in batches, as much at a time as fits."""
        found: dict[int, Any] = {}

        def answer(part: list[int]) -> None:
            if isinstance(shared, TreeStates):
                found.update(zip(part, self._pooled_as_tree([rows[number] for number in part], shared), strict=True))
                return
            lengths = [len(rows[number].ids) for number in part]
            for places in batches(lengths, most_tokens=self._budget.tokens_for(lengths[0])):
                batch = [part[place] for place in places]
                found.update(zip(batch, self._pooled([rows[number] for number in batch], shared), strict=True))

        in_portions(numbers, answer, self._budget)
        return found

    def _prefix(self, rows: Sequence[Row]) -> Prefix | None:
        """Return what was computed of the ids that all rows begin with, None where nothing is gained or may be shared."""
        if self._prefixed is None or len(rows) < LEAST_ROWS:
            return None
        ids = shared_beginning([row.ids for row in rows], most=min(len(row.ids) for row in rows) - 1)
        prefix = self._prefixed.prefix(ids) if len(ids) >= LEAST_TOKENS else None
        if prefix is None:
            return None
        self.work.forwards += 1
        self.work.pushed_tokens += len(ids)
        longest = [max(rows, key=lambda row: len(row.ids))]
        alone, shared = (torch.nn.functional.normalize(self._pooled(longest, one)) for one in (None, prefix))
        return prefix if float((alone - shared).norm()) <= self._tolerance else None

    def _fit_tree(self, rows: Sequence[Row]) -> TreeStates | None:
        """Return what runs rows over a tree of tokens, None where the model is not fit; tried out on the first ones."""
        if self._has_tried_tree or len(rows) < LEAST_ROWS:
            most = None if self._tree is None else self._tree.most_tokens
            return self._tree if most is None or all(len(row.ids) <= most for row in rows) else None
        self._has_tried_tree = True
        some = sorted(rows, key=lambda row: len(row.ids))[:: max(1, len(rows) // LEAST_ROWS)]
        try:
            tree = TreeStates(self.model, work=self.work)
            together = self._pooled_as_tree(some, tree)
        except Exception as error:  # whatever an architecture does not accept: then it is run as it is
            if is_out_of_memory(error):
                raise
            return None
        apart = (
            torch.nn.functional.normalize(together) - torch.nn.functional.normalize(self._pooled(some, None))
        ).norm(dim=1)
        self._tree = tree if float(apart.max()) <= self._tolerance else None
        return self._fit_tree(rows)

    @torch.no_grad()
    def _pooled_as_tree(self, rows: Sequence[Row], tree: TreeStates) -> Any:
        """Return the vectors (B, D), float32 on the CPU, of rows that share what they begin with."""
        counts = [len(row.ids) - (row.end - 1 if ONE_STATE & set(self.way.pooling) else row.first) for row in rows]
        budget = self._budget.tokens_for(max(len(row.ids) for row in rows))
        pooled: list[Any] = [None] * len(rows)
        for number, states in tree.states([row.ids for row in rows], counts, budget=budget):
            skipped = len(rows[number].ids) - counts[number]
            first, end = max(0, rows[number].first - skipped), rows[number].end - skipped
            pooled[number] = pool(states[None], [first], [end], self.way.pooling)[0]
        return self._finished(torch.stack(pooled))

    @property
    def _tolerance(self) -> float:
        return TOLERANCE if self.model.dtype == torch.float32 else LOW_PRECISION_TOLERANCE

    def _finished(self, pooled: Tensor) -> Any:
        for layer in self._dense:
            pooled = layer(pooled)
        whole = torch.nn.functional.normalize(pooled) if self.way.normalise else pooled
        return whole[:, : self.way.width].float().cpu()

    @torch.no_grad()
    def _pooled(self, rows: Sequence[Row], prefix: Prefix | None) -> Any:
        """Return the vectors (B, D), float32 on the CPU, of one batch."""
        before = 0 if prefix is None else len(prefix.ids)
        width = max(len(row.ids) for row in rows) - before
        filling = self.tokenizer.pad_token_id or 0
        ids = torch.full((len(rows), width), min(filling, len(self.model.get_input_embeddings().weight) - 1))
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for number, row in enumerate(rows):
            length = len(row.ids) - before
            ids[number, :length], mask[number, :length] = torch.tensor(row.ids[before:]), 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        with self.work.timed("model"):
            states = self._states(ids, mask, prefix)
        self.work.forwards += 1
        self.work.pushed_tokens += ids.numel()
        pooled = pool(
            states, [row.first for row in rows], [row.end for row in rows], self.way.pooling,
            counts_from_start=not self.way.is_laid_out,
        )  # fmt: skip
        return self._finished(pooled)

    def _states(self, ids: Tensor, mask: Tensor, prefix: Prefix | None) -> Tensor:
        """Return the states (B, T, D) of rows of ids, padded on the right, with those of the prefix before them."""
        if prefix is not None and self._prefixed is not None:
            return self._prefixed.states(prefix, ids, mask)
        more: dict[str, Any] = {}
        if self.way.is_causal:
            more = {"position_ids": torch.arange(ids.shape[1], device=ids.device).expand_as(ids), "use_cache": False}
        states: Tensor = self.model(input_ids=ids, attention_mask=mask, **more).last_hidden_state
        return states

    def _count(self, requests: Sequence[Instance], rows: Mapping[Asked, Row]) -> None:
        for request in requests:
            row = rows.get(asked(request))
            self.truncated[counted_under(request)] += row is not None and row.is_cut
