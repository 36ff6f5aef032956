"""The documents nearest to queries, block by block, so that no table of all scores is held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

# Documents that are compared at once.
BLOCK = 8_192


def best(queries: Any, documents: Any, names: Sequence[str], *, most: int, block: int = BLOCK) -> list[list[str]]:
    """Return the names of the documents nearest to each query, best first.

    Scores are dot products, compared in single precision; of equal ones the higher name as text comes first, as in
    ``rankings.ranked``.

    Args:
        queries: (Q, D).
        documents: (N, D).
        names: of the documents, each another.
        most: how many are returned at most.
        block: how many are compared at once; decides nothing but memory.
    """
    queries, documents = (numpy.asarray(side, dtype=numpy.float64) for side in (queries, documents))
    places = numpy.argsort(numpy.argsort(numpy.array(names, dtype=object)))
    kept_scores: Any = numpy.empty((len(queries), 0), dtype=numpy.float32)
    kept: Any = numpy.empty((len(queries), 0), dtype=numpy.int64)
    for start in range(0, len(documents), block):
        part = numpy.arange(start, min(start + block, len(documents)))
        scores = (queries @ documents[part].T).astype(numpy.float32)
        kept_scores = numpy.concatenate([kept_scores, scores], axis=1)
        kept = numpy.concatenate([kept, numpy.broadcast_to(part, scores.shape)], axis=1)
        order = numpy.lexsort((-places[kept], -kept_scores), axis=1)[:, :most]
        kept_scores, kept = (numpy.take_along_axis(table, order, axis=1) for table in (kept_scores, kept))
    return [[names[number] for number in row] for row in kept.tolist()]
