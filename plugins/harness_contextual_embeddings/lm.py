"""ContextualLM: answers ``embed`` requests with a decoder, by any of the poolings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import torch
from lm_eval.api.model import LM

from harness.methods.known_texts import text_digest
from harness.models.embedding import Asked, Vector, answered, asked, batches, counted_under
from harness.models.tokenizer_only import WithoutHead
from harness.progress import bar, say
from harness_contextual_embeddings.lessons import Reader

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from harness_contextual_embeddings.embedder import Embedder

Tensor = torch.Tensor
# Texts that are read and sorted by length at once.
PORTION = 4096


class ContextualLM(WithoutHead):
    """A decoder that makes a vector of a text.

    ``truncated`` counts, by task, the texts that were cut at their end to fit the decoder.
    """

    answers: ClassVar[frozenset[str]] = frozenset({"embed", "tokenize"})
    advice: ClassVar[str] = "; a decoder that embeds has no scores of texts, evaluate those without the plugin"
    tells_answers: ClassVar[bool] = True
    cut_side: ClassVar[str] = "at their end"

    def __init__(
        self,
        model: Embedder,
        reader: Reader,
        *,
        mode: str,
        normalise: bool = True,
        is_zeroed: bool = False,
        empty: str = "error",
        most_tokens: int = 1024,
        trained_on: frozenset[str] = frozenset(),
    ) -> None:
        """Wrap an embedder as it is.

        Args:
            model: in evaluation mode.
            reader: of its texts.
            mode: of ``pooling.pool``.
            normalise: whether vectors have length 1.
            is_zeroed: the contextual token's input row is zeros, whatever the encoder says.
            empty: ``error`` refuses a text of white space alone, ``zero`` makes zeros of it.
            most_tokens: that go through the decoder at a time.
            trained_on: digests of the texts it was trained on, so that they are known again.
        """
        LM.__init__(self)
        self.model, self.reader, self.mode, self.normalise, self.is_zeroed = model, reader, mode, normalise, is_zeroed
        self.tokenizer, self._device = reader.tokenizer, model.device
        self.empty, self.most_tokens, self.trained_on = empty, most_tokens, trained_on
        self.truncated: Counter[str] = Counter()

    @property
    def max_length(self) -> int:
        """Positions of the longest sequence, the contextual token's included."""
        return self.reader.reading.max_length

    @max_length.setter
    def max_length(self, _: Any) -> NoReturn:
        raise AttributeError("max_length follows from the reading")

    def start_counting(self) -> None:
        """Forget the truncated texts of earlier evaluations."""
        self.truncated.clear()

    def embed(self, requests: list[Instance]) -> list[Vector]:
        """Return one vector (D,), float32, for each request, in order.

        Raises:
            HarnessError: a text is empty, or has no room beside its instruction.
        """
        cut: set[Asked] = set()

        def embed(wanted: list[Asked]) -> Iterator[tuple[int, Any]]:
            self._tell_overlap(wanted)
            return self.vectors(wanted, on_cut=cut.add)

        before = self.reader.truncated_for_encoder
        found = answered(requests, embed, empty=self.empty, tell=self.tell, flag="--method_args")
        if self.reader.truncated_for_encoder > before:
            say(
                f"{self.reader.truncated_for_encoder - before} texts were longer than the encoder takes, and were cut for it"
            )
        for request in requests:
            self.truncated[counted_under(request)] += asked(request) in cut
        return found

    @torch.no_grad()
    def vectors(
        self, wanted: Sequence[Asked], *, on_cut: Callable[[Asked], object] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Yield the number and the vector of each thing to embed; those of similar length go together.

        Args:
            wanted: none of them empty.
            on_cut: is told of each that is cut to fit the decoder.
        """
        with bar(len(wanted), "Embedding", unit="text", disable=not wanted) as progress:
            for start in range(0, len(wanted), PORTION):
                portion = list(wanted[start : start + PORTION])
                sequences = self.reader.read([(one.text, one.instruction) for one in portion])
                for one, layout in zip(portion, sequences, strict=True):
                    if on_cut is not None and layout.text_tokens_dropped:
                        on_cut(one)
                for part in batches([len(layout) for layout in sequences], most_tokens=self.most_tokens):
                    made = self._made([sequences[n] for n in part], [portion[n].text for n in part]).cpu().numpy()
                    progress.update(len(part))
                    yield from ((start + number, vector) for number, vector in zip(part, made, strict=True))

    def pooled(self, sequences: Sequence[Any], texts: Sequence[str], mode: str) -> Tensor:
        """Return the vectors (B, D or 2 D) of texts and their sequences by a mode of ``pooling.pool``, not normalised."""
        way = self.reader.reading.way
        if way.has_context and self.is_zeroed:
            rows: Tensor | None = torch.zeros((len(texts), self.model.width), device=self.device)
        else:
            rows = self.reader.contextual(self.model, texts)
        return self.model.pooled(sequences, rows, mode=mode, is_bidirectional=way.is_bidirectional)

    def _made(self, sequences: Sequence[Any], texts: Sequence[str]) -> Tensor:
        found = self.pooled(sequences, texts, self.mode)
        return torch.nn.functional.normalize(found) if self.normalise else found

    def _tell_overlap(self, wanted: Sequence[Asked]) -> None:
        known = sum(text_digest(text) in self.trained_on for text in {one.text for one in wanted})
        if known:
            say(f"{known} of the {len({one.text for one in wanted})} texts to embed were trained on, word for word")
