"""Distinct-2: how many of the pairs of words in all texts together are different ones (Li et al., 2016)."""

from collections.abc import Sequence
from itertools import pairwise


def distinct_2(texts: Sequence[Sequence[str]]) -> float:
    """Return different pairs of neighbouring words by all such pairs, 0 where there is none.

    Args:
        texts: the words of each text; a pair that two texts have counts once.
    """
    pairs = [pair for words in texts for pair in pairwise(words)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0
