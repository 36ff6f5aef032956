"""What an embedding says in words: the tokens that the decoder's own head reads out of it, and the texts nearest to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.models.embedding import Asked
from harness.names import printable
from harness_contextual_embeddings.reading import text_ids

if TYPE_CHECKING:
    from harness_contextual_embeddings.lm import ContextualLM


@dataclass(frozen=True)
class Explained:
    """One text and the tokens that its embedding brings to mind.

    Attributes:
        text: as it was given.
        tokens: the likeliest first.
        hits: how many of them stand in the text.
        matched: the distinct tokens of the text among the likeliest n, n the text's length in tokens.
        present: the text's distinct tokens.
    """

    text: str
    tokens: tuple[str, ...]
    hits: int
    matched: frozenset[int]
    present: frozenset[int]

    @property
    def local(self) -> float:
        """Share of the text's distinct tokens among the likeliest n."""
        return len(self.matched) / len(self.present)


@torch.no_grad()
def explain(lm: ContextualLM, texts: Sequence[str], *, count: int = 10) -> list[Explained]:
    """Return what the head reads out of the embedding of each text; of two halves, out of the one at EOS.

    Args:
        lm: of any pooling but ``encoder``.
        texts: none of them empty.
        count: tokens a text.
    """
    reading, found = lm.reader.reading, []
    mode = "eos" if reading.way.has_context else lm.mode
    for text, ids in zip(texts, text_ids(lm.tokenizer, texts), strict=True):
        vectors = lm.reader.vectors(lm.model, lm.reader.read([(text, None)]), [text], mode)
        order = lm.model.word_logits(vectors)[0].argsort(descending=True, stable=True).tolist()
        present, top = frozenset(ids), order[:count]
        words = tuple(lm.tokenizer.decode([token]) for token in top)
        found.append(
            Explained(text, words, sum(token in present for token in top), present & set(order[: len(ids)]), present)
        )
    return found


def as_page(explained: Sequence[Explained]) -> str:
    """Return a Markdown page: a row a text, and how far embeddings and texts agree."""
    rows = ["| text | tokens | in the text |", "|---|---|---|"]
    for one in explained:
        words = " ".join(f"`{_cell(word)}`" for word in one.tokens)
        rows.append(f"| {_cell(one.text)} | {words} | {one.hits} of {len(one.tokens)} |")
    present = frozenset[int]().union(*(one.present for one in explained))
    matched = frozenset[int]().union(*(one.matched for one in explained))
    count, hit = len(explained[0].tokens), sum(one.hits > 0 for one in explained)
    local = sum(one.local for one in explained) / len(explained)
    said = (
        f"Of {len(explained)} texts, {hit} have a token of their own among the likeliest {count}. Of a text's distinct tokens "
        f"{local:.0%} are among its likeliest n, n its length in tokens (mean over texts), of those of all texts "
        f"{len(matched) / len(present):.0%}."
    )
    return "\n".join([*rows, "", said, ""])


def nearest(lm: ContextualLM, text: str, lines: Sequence[str], *, count: int = 10) -> list[tuple[float, str]]:
    """Return the lines nearest to a text with their cosines, the nearest first; equal ones in their order.

    Args:
        lm: of any pooling.
        text: not empty.
        lines: none of them empty.
        count: how many are returned at most.
    """
    wanted = [Asked(one) for one in (text, *lines)]
    made = dict(lm.vectors(wanted))
    rows = torch.nn.functional.normalize(torch.stack([torch.as_tensor(made[n]) for n in range(len(wanted))]), dim=-1)
    cosines = (rows[1:] @ rows[0]).tolist()
    order = sorted(range(len(lines)), key=lambda number: (-cosines[number], number))[:count]
    return [(cosines[number], lines[number]) for number in order]


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|").replace("`", "'")
