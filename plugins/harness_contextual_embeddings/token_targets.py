"""The Text2Token targets of a training file: by the corpus, by the model as it was before training, or both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness import HarnessError
from harness.models.embedding import batches
from harness.progress import say
from harness_contextual_embeddings.embedder import Embedder
from harness_contextual_embeddings.reading import TEMPLATE, layouts, reading_for, text_ids
from harness_contextual_embeddings.targets import Target, TermFrequency, data_targets, mixed, strongest, usable_ids

Tensor = torch.Tensor
# Rows of logits that are held at once.
ROWS = 64


@dataclass(frozen=True)
class TargetSettings:
    """How targets are made; see the options of the method and ``targets``."""

    top_k: int
    max_df: float
    tf: TermFrequency
    beyond_text: bool
    prior: bool
    mix: float
    stop_words: frozenset[str]


@dataclass(frozen=True)
class Targeted:
    """The texts that have a target, their targets, and how many texts have none."""

    texts: list[str]
    targets: list[Target]
    skipped: int

    @classmethod
    def of(cls, texts: Sequence[str], targets: Sequence[Target | None]) -> Targeted:
        """Leave out the texts without a target.

        Raises:
            HarnessError: none has one.
        """
        kept = [(text, target) for text, target in zip(texts, targets, strict=True) if target is not None]
        if not kept:
            raise HarnessError(
                f"none of the {len(texts)} texts has a target token: all of theirs are special, stop words, without a letter, "
                "or in too many texts; raise max_df, or give other texts"
            )
        return cls([text for text, _ in kept], [target for _, target in kept], len(texts) - len(kept))


def make_targets(
    kind: str, embedder: Embedder, tokenizer: Any, texts: Sequence[str], settings: TargetSettings
) -> Targeted:
    """Return the targets of texts.

    Args:
        kind: ``data``, ``model`` or ``mixed``.
        embedder: untrained; its decoder answers the model's side.
        tokenizer: the decoder's.
        texts: of the training file.
        settings: how.

    Raises:
        HarnessError: no text has a target.
    """
    vocabulary, special = vocabulary_of(tokenizer, len(embedder.rows.weight))
    ids = text_ids(tokenizer, texts)
    of_data: list[Target | None] = [None] * len(texts)
    if kind != "model":
        of_data = data_targets(
            ids,
            vocabulary=vocabulary,
            special_ids=special,
            stop_words=settings.stop_words,
            top_k=settings.top_k,
            max_df=settings.max_df,
            tf=settings.tf,
        )
    if kind == "data":
        return Targeted.of(texts, of_data)
    usable = usable_ids(vocabulary, special, settings.stop_words)
    of_model = _model_targets(embedder, tokenizer, texts, ids, usable, settings)
    if kind == "model":
        return Targeted.of(texts, of_model)
    return Targeted.of(texts, [mixed(*both, settings.mix) for both in zip(of_data, of_model, strict=True)])


def vocabulary_of(tokenizer: Any, size: int) -> tuple[list[str], frozenset[int]]:
    """Return the text of each id below ``size``, and which are special or added; ids without a token have no text."""
    known = min(size, len(tokenizer))
    texts = tokenizer.batch_decode([[number] for number in range(known)], clean_up_tokenization_spaces=False)
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    return [*texts, *[""] * (size - known)], frozenset(special)


@torch.no_grad()
def _model_targets(
    embedder: Embedder,
    tokenizer: Any,
    texts: Sequence[str],
    ids: Sequence[Sequence[int]],
    usable: frozenset[int],
    settings: TargetSettings,
) -> list[Target | None]:
    """Return what the model itself says each text means in one word."""
    say(f"asking the model what each of {len(texts)} texts means in one word")
    longest = getattr(embedder.config.get_text_config(), "max_position_embeddings", None) or 512
    reading = reading_for(
        tokenizer,
        pooling="prompteol",
        context_position="text",
        bos="always",
        max_length=min(512, longest),
        template=TEMPLATE,
    )
    sequences = layouts(tokenizer, reading, [(text, None) for text in texts])
    states: list[Tensor] = [torch.empty(0)] * len(texts)
    for part in batches([len(layout) for layout in sequences], most_tokens=1024):
        made = embedder.pooled([sequences[number] for number in part], mode="last")
        for number, state in zip(part, made, strict=True):
            states[number] = state
    mean = None
    if settings.prior:
        total = sum(logits.double().sum(0) for logits in _logits(embedder, states))
        mean = (total / len(states)).cpu().numpy()
    rows = (row for logits in _logits(embedder, states) for row in logits.cpu().numpy())
    return [
        strongest(
            row, mean, usable - set(text) if settings.beyond_text else usable, top_k=settings.top_k, temperature=1.0
        )
        for row, text in zip(rows, ids, strict=True)
    ]


def _logits(embedder: Embedder, states: Sequence[Tensor]) -> Iterator[Any]:
    for start in range(0, len(states), ROWS):
        yield embedder.word_logits(torch.stack(list(states[start : start + ROWS])))
