"""Training files: pairs of a query and what belongs to it as JSON lines, or lines of text; and batches of one source each."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import HarnessError
from harness.json_lines import read_json_lines, read_text
from harness.names import printable
from harness.seeds import stream_seed


@dataclass(frozen=True)
class Pair:
    """One row of a training file.

    Attributes:
        query, positive: two texts that belong together.
        negatives: texts that look as if they belonged to the query and do not.
        instruction: the task in words, before the query; None: there is none.
        source: where the row comes from; a batch has rows of one source.
    """

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    instruction: str | None = None
    source: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """All of its texts."""
        return (self.query, self.positive, *self.negatives)


@dataclass(frozen=True)
class TrainingFile:
    """A file's pairs, or its texts where it has no pairs, and the digest of its content."""

    pairs: tuple[Pair, ...]
    texts: tuple[str, ...]
    digest: str


def read_pairs(path: Path) -> TrainingFile:
    """Return the pairs of a ``.jsonl`` file, and their distinct texts in order.

    Raises:
        HarnessError: it cannot be read, or a row lacks a text; the line is named.
    """
    rows = read_json_lines(path, {"query": str, "positive": str})
    pairs = tuple(_pair(path, number, row) for number, row in enumerate(rows, start=1))
    texts = tuple(dict.fromkeys(text for pair in pairs for text in pair.texts))
    return TrainingFile(pairs, texts, _digest([repr(pair) for pair in pairs]))


def read_texts(path: Path) -> TrainingFile:
    """Return the texts of a file: its lines that are not empty, or the texts of its pairs where it is ``.jsonl``.

    Raises:
        HarnessError: it cannot be read, or holds no text.
    """
    if path.suffix == ".jsonl":
        found = read_pairs(path)
        return TrainingFile((), found.texts, found.digest)
    lines = (line.strip() for line in read_text(path).split("\n"))
    texts = tuple(dict.fromkeys(line for line in lines if line))
    if not texts:
        raise HarnessError(f"'{printable(path)}' holds no text")
    return TrainingFile((), texts, _digest(texts))


def batches(pairs: Sequence[Pair], size: int, *, seed: int) -> Iterator[list[Pair]]:
    """Yield batches of one source each without end, every epoch in another order.

    A source's rows that fill no batch are left out of an epoch; one with fewer rows than a batch is a batch by itself.

    Args:
        pairs: of all sources.
        size: rows of a batch.
        seed: of the orders.

    Raises:
        HarnessError: no source has a batch that teaches anything: a single row without negatives does not.
    """
    sources: dict[str, list[Pair]] = {}
    for pair in pairs:
        sources.setdefault(pair.source, []).append(pair)
    usable = {
        name: rows for name, rows in sources.items() if min(size, len(rows)) > 1 or any(r.negatives for r in rows)
    }
    if not usable:
        raise HarnessError(
            "a batch of one query without negatives has no loss: its positive is the only candidate; give a batch_size of 2 "
            "or more and a file with several rows of one source, or rows with negatives"
        )
    return _endless(usable, size, seed)


def _endless(sources: dict[str, list[Pair]], size: int, seed: int) -> Iterator[list[Pair]]:
    epoch = 0
    while True:
        found: list[list[Pair]] = []
        for name, rows in sources.items():
            own = min(size, len(rows))
            order = random.Random(stream_seed(seed, "pairs", name, epoch)).sample(rows, len(rows))
            found += [order[start : start + own] for start in range(0, len(order) - own + 1, own)]
        random.Random(stream_seed(seed, "batches", epoch)).shuffle(found)
        yield from (batch for batch in found if len(batch) > 1 or any(pair.negatives for pair in batch))
        epoch += 1


def _pair(path: Path, number: int, row: dict[str, Any]) -> Pair:
    negatives = row.get("negatives") or []
    if not isinstance(negatives, list) or not all(isinstance(text, str) for text in negatives):
        raise HarnessError(f"{printable(path)}: row {number}: 'negatives' is no list of texts")
    for name in ("instruction", "source"):
        if not isinstance(row.get(name), str | None):
            raise HarnessError(f"{printable(path)}: row {number}: '{name}' is no text")
    pair = Pair(row["query"], row["positive"], tuple(negatives), row.get("instruction"), row.get("source") or "")
    if not all(text.strip() for text in pair.texts):
        raise HarnessError(f"{printable(path)}: row {number} has an empty text; take the row out, or give it a text")
    return pair


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
