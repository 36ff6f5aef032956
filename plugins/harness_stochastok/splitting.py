"""StochasTok's idea as pure functions: replace random tokens by two tokens that spell the same bytes.

Sims et al., 2025 (arXiv 2506.01687). ``token_bytes`` reads a tokenizer's vocabulary, ``build_split_table`` finds the
valid splits of every token, ``expand`` applies random ones.
"""

from __future__ import annotations

import hashlib
import math
import operator
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Protocol, SupportsIndex, TypeVar, overload

from harness.errors import HarnessError

SplitTable = dict[int, list[tuple[int, int]]]
"""Token id to its valid (left id, right id) pairs, shortest left part first; ids without a valid split are absent."""


class TokenArray(Protocol):
    """What a NumPy array and a Torch tensor of token ids have in common."""

    @property
    def ndim(self) -> int: ...

    def tolist(self) -> Any: ...


TokenArrayT = TypeVar("TokenArrayT", bound=TokenArray)


def build_split_table(token_bytes: Mapping[int, bytes]) -> SplitTable:
    """Return every valid split of every token into two tokens that spell its bytes.

    Any pair counts, not only the pair that the tokenizer merged. Where two ids share a spelling, both are split but
    only the lower one serves as a half.

    Args:
        token_bytes: the bytes of each ordinary token, by token id.
    """
    id_of = {token_bytes[token]: token for token in sorted(token_bytes, reverse=True)}
    find = id_of.get
    table: SplitTable = {}
    for token in sorted(token_bytes):
        spelling = token_bytes[token]
        splits = [
            (left, right)
            for cut in range(1, len(spelling))
            if (left := find(spelling[:cut])) is not None and (right := find(spelling[cut:])) is not None
        ]
        if splits:
            table[token] = splits
    return table


def table_digest(split_table: SplitTable) -> str:
    """Return the SHA-256 of the lines ``TOKEN LEFT RIGHT``, tokens ascending and splits in the order of the table."""
    lines = (f"{token} {left} {right}\n" for token in sorted(split_table) for left, right in split_table[token])
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def count_attempts(tokens: int, proportion: float) -> int:
    """Return how many splits ``expand`` attempts on ``tokens`` tokens: the whole part of ``tokens * proportion``.

    Raises:
        HarnessError: ``proportion`` is negative, infinite or not a number.
    """
    if not 0 <= proportion < math.inf:
        raise HarnessError(
            f"proportion {proportion} is not possible: it counts split attempts per token; "
            "give a finite number of at least 0"
        )
    return math.floor(min(tokens * proportion, sys.maxsize))


@overload
def expand(
    token_ids: TokenArrayT,
    split_table: SplitTable,
    *,
    proportion: float,
    seed: SupportsIndex,
    max_splits: int | None = None,
) -> TokenArrayT: ...
@overload
def expand(
    token_ids: Iterable[SupportsIndex],
    split_table: SplitTable,
    *,
    proportion: float,
    seed: SupportsIndex,
    max_splits: int | None = None,
) -> list[int]: ...
def expand(
    token_ids: Iterable[SupportsIndex] | TokenArray,
    split_table: SplitTable,
    *,
    proportion: float,
    seed: SupportsIndex,
    max_splits: int | None = None,
) -> list[int] | TokenArray:
    """Replace randomly drawn tokens by two tokens that spell the same, ``count_attempts`` times.

    Every attempt draws a position of the list as it is by then, so pieces can be split again and weigh as much as whole
    tokens. A position whose token has a split gets one of its splits, each equally likely; else the attempt is lost.
    So the result is longer by exactly the number of successes.

    Takes linear time, leaves ``token_ids`` and the global random generators alone, and stops early once nothing is left
    to split. Ids that are not in the table pass through.

    Args:
        token_ids: T ids; a list or any iterable of integers, or an array or tensor of one dimension.
        split_table: from ``build_split_table``.
        proportion: split attempts per token, >= 0 (the paper's p).
        seed: of a generator of this call's own; equal seeds and ids give equal results.
        max_splits: stop after this many successes; ``None`` for no limit.

    Returns:
        The expanded ids: an array or tensor of the kind and dtype given, else a list of integers.

    Raises:
        HarnessError: ``proportion`` or ``max_splits`` is not possible, or the ids have more than one dimension.
    """
    if max_splits is not None and max_splits < 0:
        raise HarnessError(f"max_splits {max_splits} is not possible: give 0 or more, or None for no limit")
    pieces = _as_list(token_ids)
    attempts = count_attempts(len(pieces), proportion)
    splits_left = sys.maxsize if max_splits is None else max_splits
    return _in_kind_of(token_ids, _attempt_in_rounds(pieces, split_table, attempts, splits_left, seed))


def _attempt_in_rounds(
    pieces: list[int], split_table: SplitTable, attempts: int, splits_left: int, seed: SupportsIndex
) -> list[int]:
    """Return ``pieces`` after ``attempts`` draws or ``splits_left`` successes, or when nothing is left to split."""
    # As text, because random.Random takes the absolute value of an integer: -1 would repeat the draws of 1.
    uniform = random.Random(str(operator.index(seed))).random
    while attempts and splits_left and not split_table.keys().isdisjoint(pieces):
        batch = min(attempts, len(pieces))
        expanded_ids = _attempt_splits(pieces, split_table, batch, splits_left, uniform)
        attempts -= batch
        splits_left -= len(expanded_ids) - len(pieces)
        pieces = expanded_ids
    return pieces


_BUCKET_LENGTH = 1024
"""Tokens in one bucket: inserting into a list this short costs less than any bookkeeping that avoids it."""


def _attempt_splits(
    pieces: list[int], split_table: SplitTable, attempts: int, max_splits: int, uniform: Callable[[], float]
) -> list[int]:
    """Return ``pieces`` after ``attempts`` draws of a position, or after ``max_splits`` successes.

    The list is cut into buckets, so that inserting takes the same time in a list of any length. The buckets are the
    rows of a rectangle that is as wide as the longest of them. A uniform cell of it that holds a piece is a uniform
    piece; a cell that holds none is drawn again.
    """
    width = math.ceil(len(pieces) / math.ceil(len(pieces) / _BUCKET_LENGTH))
    buckets = [pieces[start : start + width] for start in range(0, len(pieces), width)]
    cells = width * len(buckets)
    find_splits = split_table.get
    while attempts and max_splits:
        cell = int(uniform() * cells)
        bucket = buckets[cell // width]
        place = cell % width
        if place >= len(bucket):
            continue
        attempts -= 1
        if splits := find_splits(bucket[place]):
            bucket[place], right = splits[int(uniform() * len(splits))]
            bucket.insert(place + 1, right)
            max_splits -= 1
            if len(bucket) > width:
                width = len(bucket)
                cells = width * len(buckets)
    return list(chain.from_iterable(buckets))


def _as_list(token_ids: Iterable[SupportsIndex] | TokenArray) -> list[int]:
    """Return a new list of Python integers, so that ids equal by value find the same table row."""
    dimensions = getattr(token_ids, "ndim", 1)
    if dimensions != 1:
        raise HarnessError(f"token ids of {dimensions} dimensions cannot be split: pass one sequence at a time")
    values = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
    return list(map(operator.index, values))


def _in_kind_of(token_ids: Iterable[SupportsIndex] | TokenArray, expanded_ids: list[int]) -> list[int] | TokenArray:
    """Return ``expanded_ids`` as an array or tensor where ``token_ids`` is one."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")  # an array's library is already imported
    if numpy is not None and isinstance(token_ids, numpy.ndarray):
        return numpy.array(expanded_ids, dtype=token_ids.dtype)
    if torch is not None and isinstance(token_ids, torch.Tensor):
        return token_ids.new_tensor(expanded_ids)
    return expanded_ids
