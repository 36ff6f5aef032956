"""How alike the two embeddings of each pair are: by angle, by straight distance, by distance along the axes."""

from __future__ import annotations

from typing import Any

import numpy
import numpy.typing

from harness.errors import HarnessError

Values = numpy.typing.NDArray[numpy.float64]


def similarities(first: Any, second: Any) -> dict[str, Values]:
    """Return the similarity of each pair of embeddings by three measures, in double precision.

    Args:
        first: (N, D) numbers.
        second: (N, D) numbers, row n the partner of row n.

    Returns:
        ``cosine``, and the distances ``euclidean`` and ``manhattan`` with their sign turned: (N,) each, more is more alike.

    Raises:
        HarnessError: the shapes differ, a number is not finite, or an embedding is zero: it has no direction, and what
            libraries say of it instead (0.5 against any other, 1 against another zero) would be a gift.
    """
    left, right = (numpy.atleast_2d(numpy.asarray(side, dtype=numpy.float64)) for side in (first, second))
    if left.shape != right.shape:
        raise HarnessError(f"embeddings of {left.shape} and {right.shape} are no pairs")
    apart = left / _lengths(left)[:, None] - right / _lengths(right)[:, None]
    difference = left - right
    return {
        # By how far apart the directions lie, so that it is 1 exactly where they are one: products would rank such pairs by
        # what rounding leaves of them.
        "cosine": 1 - numpy.square(apart).sum(axis=1) / 2,
        "euclidean": -numpy.linalg.norm(difference, axis=1),
        "manhattan": -numpy.abs(difference).sum(axis=1),
    }


def _lengths(embeddings: Values) -> Values:
    lengths = numpy.linalg.norm(embeddings, axis=1)
    for place in numpy.flatnonzero(~(numpy.isfinite(lengths) & (lengths > 0))):
        what = "zero, and has no direction" if lengths[place] == 0 else "not finite"
        raise HarnessError(f"embedding {place} is {what}, so no similarity is defined")
    return numpy.asarray(lengths)
