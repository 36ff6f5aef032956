"""Which token of a response is critical, by how many rollouts from each of its prefixes end right.

Lin et al., 2025 (arXiv 2411.19943): the first token with no right rollout after which no prefix reaches 5 % again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import HarnessError

DROP_Z = 3.0902
"""Above this, the rate fell significantly from one prefix to the next: one-sided, 0.1 %."""
CRITERIA = ("zero_run", "drop_test")


@dataclass(frozen=True)
class Selection:
    """What the counts of one response say.

    Attributes:
        critical: index of the first token of the last run that begins with 0 right rollouts and stays under 5 % to the
            end; None where there is none.
        fallback: where ``critical`` is None, the beginning of the last such run that a later prefix broke; else None.
    """

    critical: int | None
    fallback: int | None


def critical_token(right_counts: Sequence[int | None], rollouts: int) -> Selection:
    """Return the token after which no rollout recovers (criterion ``zero_run``).

    Args:
        right_counts: for each token of the response, how many of the rollouts from the prefix that ends with it came out
            right; None where none were made.
        rollouts: how many were made from each prefix, N >= 1.

    Raises:
        HarnessError: ``rollouts`` is below 1, or a count is not from 0 to ``rollouts``.
    """
    start = fallback = None
    for token, count in _made(right_counts, rollouts):
        if count == 0 and start is None:
            start = token
        elif start is not None and not is_low(count, rollouts):
            start, fallback = None, start
    return Selection(start, None if start is not None else fallback)


def is_low(count: int, rollouts: int) -> bool:
    """Return whether ``count`` of ``rollouts`` is strictly below 5 %."""
    return 20 * count < rollouts


def drop_test(right_counts: Sequence[int | None], rollouts: int) -> int | None:
    """Return the token at which the rate of right rollouts falls most, where that is significant.

    A one-sided z-test of two proportions between neighbouring prefixes, at 0.1 %; the first of equal falls.

    Args:
        right_counts: as for ``critical_token``; prefixes without rollouts are passed over.
        rollouts: as for ``critical_token``.

    Raises:
        HarnessError: as for ``critical_token``.
    """
    made = _made(right_counts, rollouts)
    best, critical = DROP_Z, None
    for (_, before), (token, count) in itertools.pairwise(made):
        z = _drop_z(before, count, rollouts)
        if z > best:
            best, critical = z, token
    return critical


def upper_bound(rollouts: int, confidence: float = 0.95) -> float:
    """Return up to which rate of right rollouts 0 of ``rollouts`` is no surprise, ``1 - (1 - confidence)^(1/N)``.

    Raises:
        HarnessError: ``rollouts`` is below 1, or ``confidence`` is not between 0 and 1.
    """
    _check_rollouts(rollouts)
    if not 0 < confidence < 1:
        raise HarnessError(f"confidence {confidence} is not possible: give a number between 0 and 1, such as 0.95")
    return -math.expm1(math.log1p(-confidence) / rollouts)


def pass_at_k(rollouts: int, right: int, k: int) -> float:
    """Return the unbiased estimate that at least one of ``k`` rollouts is right, ``1 - C(n - c, k) / C(n, k)``.

    Raises:
        HarnessError: ``right`` is not from 0 to ``rollouts``, or ``k`` not from 1 to ``rollouts``.
    """
    _check_rollouts(rollouts)
    if not 0 <= right <= rollouts:
        raise HarnessError(f"{right} of {rollouts} rollouts cannot be right; give a count from 0 to {rollouts}")
    if not 1 <= k <= rollouts:
        raise HarnessError(f"Pass@{k} cannot be estimated from {rollouts} rollouts; give a k from 1 to {rollouts}")
    return 1 - math.comb(rollouts - right, k) / math.comb(rollouts, k)


def _made(right_counts: Sequence[int | None], rollouts: int) -> list[tuple[int, int]]:
    """Return (token, count) of the prefixes from which rollouts were made."""
    _check_rollouts(rollouts)
    made = [(token, count) for token, count in enumerate(right_counts) if count is not None]
    for token, count in made:
        if not 0 <= count <= rollouts:
            raise HarnessError(
                f"token {token} has {count} right rollouts of {rollouts}; counts of runs with different numbers of "
                "rollouts cannot stand in one table"
            )
    return made


def _drop_z(before: int, count: int, rollouts: int) -> float:
    rate = (before + count) / (2 * rollouts)
    if rate in (0, 1):
        return 0.0
    return (before - count) / rollouts / math.sqrt(2 * rate * (1 - rate) / rollouts)


def _check_rollouts(rollouts: int) -> None:
    if rollouts < 1:
        raise HarnessError(f"{rollouts} rollouts from a prefix say nothing; make at least 1")
