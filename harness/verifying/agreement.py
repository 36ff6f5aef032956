"""Whether two runs over the same documents agree: document by document where samples are there, else by the score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import requests
from harness.records import answers
from harness.records.record import EnvironmentPart, Record

# One in so many: what is likelier than that is not ruled out, which makes 95 % confidence.
UNLIKELY = 20
# The share of generated texts that may differ elsewhere: one token that rounding tips over changes all that follow.
ELSEWHERE = 0.05
# Standard errors a score may be off: 99 of 100 honest ones are closer.
CLOSE = 2.576
Row = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True)
class Tolerance:
    """How far two log-likelihoods may lie apart (``absolute`` nats + ``relative`` of it), and the share of other texts."""

    absolute: float
    relative: float
    share: float

    def covers(self, then: float, now: float) -> bool:
        """Whether two numbers are one but for rounding."""
        if math.isinf(then) or math.isinf(now) or math.isnan(then) or math.isnan(now):
            return then == now
        return abs(then - now) <= self.absolute + self.relative * max(abs(then), abs(now))

    def sentence(self) -> str:
        """Return what is tolerated, in words."""
        texts = f"{self.share:.0%} of generated texts" if self.share else "no generated text"
        return (
            f"log-likelihoods may differ by {self.absolute:g} + {self.relative:.2g} of their size, {texts} may differ"
        )


@dataclass
class Agreement:
    """What came out for the documents that were asked again.

    ``other_documents`` and ``other_prompts``: asked now were other things than then. ``rounded`` are documents whose answer
    is another by rounding alone. ``differing``: those that do not agree, by number. ``largest_difference``: of two
    log-likelihoods, in nats. ``are_texts``: some answers were generated.
    """

    docs: int = 0
    same_answers: int = 0
    same_scores: int = 0
    rounded: int = 0
    other_documents: int = 0
    other_prompts: int = 0
    differing: list[str] = field(default_factory=list)
    largest_difference: float | None = None
    are_texts: bool = False


def tolerance_for(record: Record, now: EnvironmentPart) -> Tolerance:
    """Return what an honest repetition may differ by: little in 32 bits, more in fewer; texts only elsewhere."""
    is_exact = record.model.dtype in {"float32", "float64", "none"} and record.model.quantization == "none"
    is_same_place = _place(record.environment) == _place(now)
    share = 0.0 if is_same_place else ELSEWHERE
    return Tolerance(1e-3, 1e-4, share) if is_exact else Tolerance(0.1, 0.02, share)


def _place(environment: EnvironmentPart) -> tuple[str | None, ...]:
    """Return what decides how numbers are rounded."""
    return environment.torch, environment.engine, environment.device, environment.platform


def compare_rows(then: Mapping[Key, Row], now: Mapping[Key, Row], tolerance: Tolerance) -> Agreement:
    """Compare the rows of two sample files by document and filter; a document agrees when it does under every filter."""
    found = Agreement()
    for number in dict.fromkeys(number for number, _ in then):
        pairs = [(row, now.get(key)) for key, row in then.items() if key[0] == number]
        found.docs += 1
        if any(new is None or old.get("doc_hash") != new.get("doc_hash") for old, new in pairs):
            found.other_documents += 1
            found.differing.append(number)
            continue
        both = [(old, new) for old, new in pairs if new is not None]
        if any(_asked(old) != _asked(new) for old, new in both):
            found.other_prompts += 1
            found.differing.append(number)
            continue
        _compare_document(number, both, tolerance, found)
    return found


def agrees(found: Agreement, tolerance: Tolerance) -> bool:
    """Whether what came out is what an honest record lets expect."""
    allowed = int(tolerance.share * found.docs) if found.are_texts else 0
    changed = found.other_documents + found.other_prompts
    return found.docs > 0 and not changed and len(found.differing) <= allowed


def most_that_can_differ(differing: int, docs: int, of: int) -> int:
    """Return how many of all documents may differ at most, with 95 % confidence.

    Args:
        differing: how many of those asked again do.
        docs: how many were asked again, drawn at random from all.
        of: how many there are.
    """
    low, high = differing, of - docs + differing  # the most there could be among those that were not drawn
    while low < high:
        middle = (low + high + 1) // 2
        # How likely so few of them would have been drawn (hypergeometric).
        ways = sum(math.comb(middle, k) * math.comb(of - middle, docs - k) for k in range(differing + 1))
        is_likely = ways * UNLIKELY > math.comb(of, docs)
        low, high = (middle, high) if is_likely else (low, middle - 1)
    return low


def is_close(then: float, now: float, *, error: float | None, docs: int, of: int) -> bool | None:
    """Whether the score over ``docs`` of ``of`` documents is one that the whole score lets expect; None: cannot be told.

    Args:
        error: standard error of the whole score.
    """
    if docs >= of:
        return math.isclose(then, now, rel_tol=1e-6, abs_tol=1e-9)
    if not error:
        return None
    spread = error * math.sqrt(of) / math.sqrt(docs) * math.sqrt(1 - docs / of)
    return abs(then - now) <= CLOSE * spread


def is_drawn(rows: Iterable[Row]) -> bool:
    """Whether answers were drawn at random, so that two runs need not give the same."""
    for row in rows:
        for request in answers.requests(row):
            wish = request[1] if len(request) > 1 else None
            if isinstance(wish, dict) and requests.is_drawn(wish):
                return True
    return False


def _compare_document(number: str, pairs: Sequence[tuple[Row, Row]], tolerance: Tolerance, found: Agreement) -> None:
    same = [_same_answer(old, new, tolerance, found) for old, new in pairs]
    scores = all(_same_scores(old, new, tolerance) for old, new in pairs)
    tipped = any(_tipped(old, new) for old, new in pairs) and all(same)
    found.same_answers += all(same)
    found.same_scores += scores
    found.rounded += tipped
    if not all(same) or not (scores or tipped):
        found.differing.append(number)


def _same_answer(old: Row, new: Row, tolerance: Tolerance, found: Agreement) -> bool:
    then, now = answers.continuations(old), answers.continuations(new)
    if then and len(then) == len(now):
        pairs = [(a.loglikelihood, b.loglikelihood) for a, b in zip(then, now, strict=True)]
        finite = [abs(a - b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
        found.largest_difference = max([found.largest_difference or 0.0, *finite])
        return all(tolerance.covers(a, b) for a, b in pairs)
    if any(isinstance(part, dict) for request in answers.requests(old) for part in request):  # how to generate
        found.are_texts = True
        return bool(old.get("filtered_resps") == new.get("filtered_resps"))
    return _same_numbers(old.get("filtered_resps"), new.get("filtered_resps"), tolerance)


def _same_numbers(then: Any, now: Any, tolerance: Tolerance) -> bool:
    """Compare answers that are lists of numbers, which a sample file holds as text; whole numbers are token ids."""
    if isinstance(then, list) and isinstance(now, list):
        return len(then) == len(now) and all(_same_numbers(a, b, tolerance) for a, b in zip(then, now, strict=True))
    try:
        return bool(then == now) or ("." in str(then) and tolerance.covers(float(then), float(now)))
    except (TypeError, ValueError):
        return False


def _tipped(old: Row, new: Row) -> bool:
    """Whether the likeliest choice, or whether the model would write the text itself, is another."""
    greedy = [[choice.is_greedy for choice in answers.continuations(row)] for row in (old, new)]
    return answers.chosen(old) != answers.chosen(new) or greedy[0] != greedy[1]


def _same_scores(old: Row, new: Row, tolerance: Tolerance) -> bool:
    before, after = answers.metrics(old), answers.metrics(new)
    return before.keys() == after.keys() and all(_same(before[name], after[name], tolerance) for name in before)


def _same(then: Any, now: Any, tolerance: Tolerance) -> bool:
    if isinstance(then, list) and isinstance(now, list):
        return len(then) == len(now) and all(_same(a, b, tolerance) for a, b in zip(then, now, strict=True))
    if isinstance(then, int | float) and isinstance(now, int | float):
        return tolerance.covers(float(then), float(now))
    return bool(then == now)


def _asked(row: Row) -> list[list[Any]]:
    """Return what was asked; token ids are left out, as in a record's digest of prompts."""
    return [[part for part in request if not isinstance(part, list)] for request in answers.requests(row)]
