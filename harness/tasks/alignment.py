"""What was written in order, aligned with what was due in order."""

from __future__ import annotations

from collections.abc import Sequence


def pairing(due: Sequence[str], found: Sequence[str]) -> list[tuple[int, int]]:
    """Return which thing that was due each thing that was found meets, as (place in ``due``, place in ``found``), in order.

    As many pairs of the same thing as possible (the longest common subsequence), and of those alignments one with as many
    pairs at all.
    """
    # best[i][j]: (pairs of the same thing, other pairs) of due[i:] and found[j:].
    best = [[(0, 0)] * (len(found) + 1) for _ in range(len(due) + 1)]
    for i in reversed(range(len(due))):
        for j in reversed(range(len(found))):
            best[i][j] = max(_paired(best[i + 1][j + 1], due[i] == found[j]), best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(due) and j < len(found):
        if best[i][j] == _paired(best[i + 1][j + 1], due[i] == found[j]):
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _paired(pairs: tuple[int, int], is_same: bool) -> tuple[int, int]:
    return (pairs[0] + 1, pairs[1]) if is_same else (pairs[0], pairs[1] + 1)
