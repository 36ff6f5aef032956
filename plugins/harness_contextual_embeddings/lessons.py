"""What a decoder, a projector and an encoder are trained on: steps of pairs, or of texts with target tokens, and their losses.

A step of any size goes through the model in parts (gradient caching; Gao et al., 2021): the vectors of all texts are made first,
without a graph; the loss gives each vector's gradient; then each part is run again, and its vectors are given theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from harness.methods.preferences import shuffled
from harness.methods.training import IGNORED, Batch, pad
from harness.models import embedding
from harness.models.embedding import Asked
from harness_contextual_embeddings import pairs as pair_batches
from harness_contextual_embeddings.losses import false_negatives, info_nce, token_target_kl
from harness_contextual_embeddings.pairs import Pair
from harness_contextual_embeddings.reading import Reading, layouts
from harness_contextual_embeddings.targets import Target

if TYPE_CHECKING:
    from harness.models.encoder import Encoder
    from harness_contextual_embeddings.embedder import Embedder
    from harness_contextual_embeddings.layout import Layout

Tensor = torch.Tensor
STEP = "step"


@dataclass
class Reader:
    """Texts as ids, as a trained embedder will read them.

    Attributes:
        tokenizer: the decoder's.
        reading: how sequences are laid out.
        encoder: what reads the bare text; None: there is no contextual token.
        pass_tokens: most tokens of one forward pass in training, with padding.
        keeps_vectors: the encoder is frozen, so that its vector of a text is made once.
        truncated: how many of the sequences so far were cut.
        truncated_for_encoder: how many of the texts so far were longer than the encoder takes.
        known: the frozen encoder's vectors by text.
    """

    tokenizer: Any
    reading: Reading
    encoder: Encoder | None = None
    pass_tokens: int = 2**31
    keeps_vectors: bool = True
    truncated: int = 0
    truncated_for_encoder: int = 0
    known: dict[str, Tensor] = field(default_factory=dict)

    def read(self, texts: Sequence[tuple[str, str | None]]) -> list[Layout]:
        """Return the sequences of texts with their instructions."""
        found = layouts(self.tokenizer, self.reading, texts)
        self.truncated += sum(layout.text_tokens_dropped > 0 for layout in found)
        return found

    def contextual(self, model: Embedder, texts: Sequence[str]) -> Tensor | None:
        """Return the contextual input rows (B, D) of texts; None where there are none."""
        if self.encoder is None or not self.reading.way.has_context:
            return None
        assert model.projector is not None
        if not self.keeps_vectors:
            return model.contextual(self._for_encoder(texts))
        missing = [text for text in dict.fromkeys(texts) if text not in self.known]
        if missing:
            with torch.no_grad():
                made = model.encode(self._for_encoder(missing))
            self.known.update(zip(missing, made, strict=True))
        rows: Tensor = model.projector(torch.stack([self.known[text] for text in texts]))
        return rows

    def _for_encoder(self, texts: Sequence[str]) -> list[Any]:
        assert self.encoder is not None
        rows = list(self.encoder.rows([Asked(text) for text in texts]))
        self.truncated_for_encoder += sum(row.is_cut for row in rows)
        return rows

    def parts(self, sequences: Sequence[Layout], most_tokens: int) -> list[list[int]]:
        """Return the numbers of the sequences that are held at a time, see ``parts_of``."""
        return parts_of([len(row) for row in sequences], most_tokens=most_tokens, pass_tokens=self.pass_tokens)

    def vectors(self, model: Embedder, sequences: Sequence[Layout], texts: Sequence[str], mode: str) -> Tensor:
        """Return the vectors (B, D or 2 D) of texts and their sequences, not normalised."""
        rows = self.contextual(model, texts)
        together = list(embedding.batches([len(row) for row in sequences], most_tokens=self.pass_tokens))
        found = [
            model.pooled(
                [sequences[number] for number in numbers],
                None if rows is None else rows[numbers],
                mode=mode,
                is_bidirectional=self.reading.way.is_bidirectional,
            )
            for numbers in together
        ]
        return torch.cat(found)[torch.tensor([number for numbers in together for number in numbers]).argsort()]


def parts_of(lengths: Sequence[int], *, most_tokens: int, pass_tokens: int) -> list[list[int]]:
    """Return the numbers of the sequences whose graphs are held together: passes of no more than ``most_tokens`` in all.

    Args:
        lengths: of all sequences, in tokens.
        most_tokens: of a part, with its padding; a longer sequence goes alone.
        pass_tokens: of one forward pass.
    """
    parts: list[list[int]] = []
    held = 0
    for numbers in embedding.batches(lengths, most_tokens=min(most_tokens, pass_tokens)):
        size = len(numbers) * lengths[numbers[0]]
        if not parts or held + size > most_tokens:
            parts.append([])
            held = 0
        parts[-1] += numbers
        held += size
    return parts


def in_parts(
    embed: Callable[[list[int]], Tensor], parts: Sequence[list[int]], loss_of: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the loss of the vectors of all parts, whose gradients are those of one pass, and leave all but the last part's.

    Args:
        embed: returns the vectors (n, D) of the rows with some numbers, the same each time.
        parts: the numbers of all rows, once each.
        loss_of: the loss of all vectors (N, D) in order.

    Returns:
        A scalar; its backward pass adds the gradients of the last part, those of the others are there already.
    """
    order = torch.tensor([number for part in parts for number in part]).argsort()
    if len(parts) == 1:
        return loss_of(embed(parts[0])[order])
    with torch.no_grad():
        vectors = torch.cat([embed(part) for part in parts])[order]
    vectors.requires_grad_()
    loss = loss_of(vectors)
    (gradient,) = torch.autograd.grad(loss, vectors)
    for part in parts[:-1]:
        (embed(part) * gradient[part]).sum().backward()
    last = (embed(parts[-1]) * gradient[parts[-1]]).sum()
    return loss.detach() + last - last.detach()


@dataclass
class PairLesson:
    """Contrastive training on pairs; ``batches`` and ``loss`` are what ``training.train`` takes.

    Attributes:
        reader: of texts, whose reading says what is trained.
        mode: of ``pooling.pool``.
        pairs: what is trained on.
        batch_size: pairs of a step.
        most_tokens: that go through the decoder at a time.
        temperature, symmetric, own_negatives_only: of the loss.
        instruction: before queries whose rows have none of their own.
        instructs_documents: positives and negatives have their query's instruction, too.
        seed: of the order.
    """

    reader: Reader
    mode: str
    pairs: Sequence[Pair]
    batch_size: int
    most_tokens: int
    temperature: float
    symmetric: bool = False
    own_negatives_only: bool = False
    instruction: str | None = None
    instructs_documents: bool = False
    seed: int = 0
    _steps: dict[int, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[Batch]:
        """Yield steps without end."""
        for number, pairs in enumerate(pair_batches.batches(self.pairs, self.batch_size, seed=self.seed)):
            wanted = self.wanted(pairs)
            sequences = self.reader.read(wanted)
            parts = self.reader.parts(sequences, self.most_tokens)
            self._steps = {number: (pairs, [text for text, _ in wanted], sequences, parts)}
            yield as_batch(sequences, parts, number)

    def wanted(self, pairs: Sequence[Pair]) -> list[tuple[str, str | None]]:
        """Return queries, then positives, then negatives, each with its instruction."""
        said = [pair.instruction or self.instruction for pair in pairs]
        found = [(pair.query, instruction) for pair, instruction in zip(pairs, said, strict=True)]
        for texts in ([(pair.positive,) for pair in pairs], [pair.negatives for pair in pairs]):
            for own, instruction in zip(texts, said, strict=True):
                found += [(text, instruction if self.instructs_documents else None) for text in own]
        return found

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the contrastive loss of a step."""
        pairs, texts, sequences, parts = self._steps[number_of(batch)]
        count = len(pairs)
        masked = false_negatives(
            [pair.query for pair in pairs],
            [pair.positive for pair in pairs],
            [pair.negatives for pair in pairs],
            own_negatives_only=self.own_negatives_only,
        )

        def embed(part: list[int]) -> Tensor:
            return self.reader.vectors(model, [sequences[n] for n in part], [texts[n] for n in part], self.mode)

        def loss_of(vectors: Tensor) -> Tensor:
            return info_nce(
                vectors[:count],
                vectors[count : 2 * count],
                vectors[2 * count :],
                temperature=self.temperature,
                symmetric=self.symmetric,
                masked=masked,
            )

        return in_parts(embed, parts, loss_of)


@dataclass
class TokenLesson:
    """Training on texts with target tokens (Text2Token); ``batches`` and ``loss`` are what ``training.train`` takes.

    Attributes:
        reader: of texts.
        mode: of ``pooling.pool``, a vector of the decoder's width, or two: the loss is the mean of both's.
        texts: what is trained on.
        targets: of each text.
        batch_size: texts of a step.
        most_tokens: that go through the decoder at a time.
        seed: of the order.
    """

    reader: Reader
    mode: str
    texts: Sequence[str]
    targets: Sequence[Target]
    batch_size: int
    most_tokens: int
    seed: int = 0
    _steps: dict[int, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[Batch]:
        """Yield steps without end."""
        size = min(self.batch_size, len(self.texts))
        for number, places in enumerate(shuffled(len(self.texts), size, seed=self.seed)):
            sequences = self.reader.read([(self.texts[place], None) for place in places])
            parts = self.reader.parts(sequences, self.most_tokens)
            self._steps = {number: (places, sequences, parts)}
            yield as_batch(sequences, parts, number)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the mean divergence of the head's tokens from the targets of a step, whose parts are gone through in turn."""
        places, sequences, (*parts, last) = self._steps[number_of(batch)]
        before = torch.zeros(())
        for part in parts:
            found = self._of_part(model, part, places, sequences)
            found.backward()
            before = before + found.detach().cpu()
        found = self._of_part(model, last, places, sequences)
        return found + before.to(found.device)

    def _of_part(self, model: Embedder, part: list[int], places: Sequence[int], sequences: Sequence[Layout]) -> Tensor:
        texts = [self.texts[places[number]] for number in part]
        vectors = self.reader.vectors(model, [sequences[number] for number in part], texts, self.mode)
        logits = model.word_logits(vectors.unflatten(1, (-1, model.width)))
        losses = [
            token_target_kl(row, self.targets[places[number]]) / len(rows)
            for rows, number in zip(logits, part, strict=True)
            for row in rows
        ]
        return torch.stack(losses).sum() / len(places)


def as_batch(sequences: Sequence[Layout], parts: Sequence[list[int]], number: int) -> Batch:
    """Return sequences as a batch of the training loop, which knows its step by number.

    Its labels, of which none is due, have the size of the largest part: that is what the memory has to hold.
    """
    lengths = [len(layout) for layout in sequences]
    batch = pad([([token or 0 for token in layout.ids], [IGNORED] * len(layout)) for layout in sequences])
    largest = max(parts, key=lambda part: sum(lengths[n] for n in part))
    size = (len(largest), max(lengths[n] for n in largest))
    extras = {STEP: torch.full((len(sequences), 1), number)}
    return Batch(batch.input_ids, torch.full(size, IGNORED), batch.attention_mask, extras)


def number_of(batch: Batch) -> int:
    """Return the number of the step that a batch stands for."""
    return int(batch.extras[STEP][0, 0])
