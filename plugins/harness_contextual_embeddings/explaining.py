"""What an embedding says in words: the tokens that the decoder's own head reads out of it, and the texts nearest to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.models.embedding import Asked, batches
from harness.names import printable
from harness_contextual_embeddings.reading import text_ids

if TYPE_CHECKING:
    from harness_contextual_embeddings.lm import ContextualLM


# Texts of a training file that a run's report tells of.
MOST_REPORTED = 64
TOKENS = 10


@dataclass(frozen=True)
class Explained:
    """One text and the tokens that its embedding brings to mind.

    Attributes:
        text: as it was given.
        tokens: the likeliest first.
        in_text: which of them stand in the text.
        matched: the distinct tokens of the text among the likeliest n, n the text's length in tokens.
        present: the text's distinct tokens.
    """

    text: str
    tokens: tuple[str, ...]
    in_text: tuple[bool, ...]
    matched: frozenset[int]
    present: frozenset[int]

    @property
    def hits(self) -> int:
        """How many of the tokens stand in the text."""
        return sum(self.in_text)

    @property
    def local(self) -> float:
        """Share of the text's distinct tokens among the likeliest n."""
        return len(self.matched) / len(self.present)


@torch.no_grad()
def explain(lm: ContextualLM, texts: Sequence[str], *, count: int = TOKENS) -> list[Explained]:
    """Return what the head reads out of the embedding of each text; of two halves, out of the one at EOS.

    Args:
        lm: of any pooling but ``encoder``.
        texts: none of them empty.
        count: tokens a text.
    """
    mode = "eos" if lm.reader.reading.way.has_context else lm.mode
    ids = text_ids(lm.tokenizer, texts)
    sequences = lm.reader.read([(text, None) for text in texts])
    found: dict[int, Explained] = {}
    for part in batches([len(layout) for layout in sequences], most_tokens=lm.most_tokens):
        vectors = lm.pooled([sequences[n] for n in part], [texts[n] for n in part], mode)
        for number, vector in zip(part, vectors, strict=True):
            order = lm.model.word_logits(vector[None])[0].argsort(descending=True, stable=True).tolist()
            present, top = frozenset(ids[number]), order[:count]
            words = tuple(lm.tokenizer.decode([token]) for token in top)
            matched = present & set(order[: len(ids[number])])
            in_text = tuple(token in present for token in top)
            found[number] = Explained(texts[number], words, in_text, matched, present)
    return [found[number] for number in range(len(texts))]


def alignment(explained: Sequence[Explained]) -> dict[str, float]:
    """Return how far embeddings and texts agree, in shares.

    ``hit_at_k``: texts of which a token is among the likeliest k; ``local``: of a text's distinct tokens, those among its
    likeliest n, n its length (mean over texts); ``global``: of the distinct tokens of all texts, those that are matched in one.
    """
    present = frozenset[int]().union(*(one.present for one in explained))
    matched = frozenset[int]().union(*(one.matched for one in explained))
    return {
        "texts": len(explained),
        "k": len(explained[0].tokens),
        "hit_at_k": sum(one.hits > 0 for one in explained) / len(explained),
        "local": sum(one.local for one in explained) / len(explained),
        "global": len(matched) / len(present),
    }


def summary(explained: Sequence[Explained]) -> str:
    """Return how far embeddings and texts agree, in words."""
    found, hit = alignment(explained), sum(one.hits > 0 for one in explained)
    return (
        f"Of {len(explained)} texts, {hit} have a token of their own among the likeliest {found['k']}. Of a text's distinct "
        f"tokens {found['local']:.0%} are among its likeliest n, n its length in tokens (mean over texts), of those of all "
        f"texts {found['global']:.0%}."
    )


def as_page(explained: Sequence[Explained]) -> str:
    """Return a Markdown page: a row a text, and how far embeddings and texts agree."""
    rows = ["| text | tokens | in the text |", "|---|---|---|"]
    for one in explained:
        words = " ".join(f"`{_cell(word)}`" for word in one.tokens)
        rows.append(f"| {_cell(one.text)} | {words} | {one.hits} of {len(one.tokens)} |")
    return "\n".join([*rows, "", summary(explained), ""])


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
