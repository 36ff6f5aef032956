"""Calls that were made, counted against those that were due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.tasks.alignment import pairing


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
