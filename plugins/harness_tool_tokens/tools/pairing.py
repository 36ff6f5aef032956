"""Calls that were made, paired with those that were due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def call_counts(gold_calls: Sequence[Mapping[str, Any]], trace: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Count the calls of one answer against the gold calls, looking at which tool was called and in which order.

    The two sequences of tools are aligned so that as many calls as possible meet a gold call of the same tool (the
    longest common subsequence), and of all such alignments, so that as many of the rest as possible meet a gold call
    at all. A call that failed while running takes part: choosing it was a choice.

    Args:
        gold_calls: each with its ``tool``.
        trace: what an answer's ``trace`` holds: each with its ``tool``, and an ``error`` when the call failed.

    Returns:
        ``calls``: how many were made; ``right``: meet a gold call of their tool; ``wrong``: meet a gold call of another
        tool; ``false``: meet none; ``missed``: gold calls that meet none; ``errors``: calls that failed while running.
        ``calls == right + wrong + false`` and ``len(gold_calls) == right + wrong + missed``.
    """
    due, called = [str(call["tool"]) for call in gold_calls], [str(call["tool"]) for call in trace]
    pairs = pairing(due, called)
    right = sum(due[number] == called[place] for number, place in pairs)
    wrong = len(pairs) - right
    counts = {
        "calls": len(trace),
        "right": right,
        "wrong": wrong,
        "missed": len(gold_calls) - right - wrong,
        "false": len(trace) - right - wrong,
        "errors": sum(bool(call.get("error")) for call in trace),
    }
    return {name: float(count) for name, count in counts.items()}


def pairing(due: Sequence[str], called: Sequence[str]) -> list[tuple[int, int]]:
    """Return which due call each call meets, as (place in ``due``, place in ``called``), in order.

    As many pairs of the same tool as possible (the longest common subsequence), and of those alignments one with as many
    pairs at all.
    """
    # best[i][j]: (pairs of the same tool, other pairs) of due[i:] and called[j:].
    best = [[(0, 0)] * (len(called) + 1) for _ in range(len(due) + 1)]
    for i in reversed(range(len(due))):
        for j in reversed(range(len(called))):
            best[i][j] = max(_paired(best[i + 1][j + 1], due[i] == called[j]), best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(due) and j < len(called):
        if best[i][j] == _paired(best[i + 1][j + 1], due[i] == called[j]):
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _paired(pairs: tuple[int, int], is_same: bool) -> tuple[int, int]:
    return (pairs[0] + 1, pairs[1]) if is_same else (pairs[0], pairs[1] + 1)
