"""Scores by vLLM's prefix cache: each context once, its answers behind it, and what cannot be placed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import HarnessError
from harness.models.tree.scoring import Scored
from harness.models.vllm.asking import MOST_NAMED, Ask, Item, Reply, rows_of
from harness.models.vllm.checking import Recheck

if TYPE_CHECKING:
    from harness.models.tree.work import Work
    from harness.models.vllm.asking import Engine

Token = tuple[float, bool]
# Requests between two looks at the rest: what an interrupted run may lose.
PORTION = 1024


class Scoring:
    """Scores many requests.

    A context with several answers is asked once, for the likeliest token and for the first token of each answer. That is all of a
    one-token answer, and leaves the context's keys in the cache. Of a longer answer, the last token is asked as what comes next,
    and those between from the rows of the prompt: as the first is known, the cache may hold the whole context.

    Args:
        reads_cache: False computes every request whole.
        recheck: computes a part of all requests again, without the cache.
    """

    def __init__(self, engine: Engine, *, work: Work, recheck: Recheck, reads_cache: bool = True) -> None:
        self.engine, self.work, self.recheck, self.reads_cache = engine, work, recheck, reads_cache

    def score(self, sequences: Sequence[Sequence[int]], counts: Sequence[int]) -> Iterator[tuple[int, Scored]]:
        """Yield the number and the scores of each sequence.

        Args:
            sequences: token ids, two or more each.
            counts: how many of its last tokens are scored, fewer than it has.

        Raises:
            HarnessError: a request computed again without the cache has another score; vLLM gives no rows.
        """
        numbers: dict[Item, list[int]] = {}
        for number, (sequence, count) in enumerate(zip(sequences, counts, strict=True)):
            numbers.setdefault(Item(tuple(sequence), count), []).append(number)
        self.work.need([sequence[:-1] for sequence in sequences])
        for part in portions(sorted(numbers, key=lambda item: item.token_ids), self.engine.most_tokens):
            scores = self._scores(part)
            again = self.recheck.drawn(part) if self.reads_cache else []
            self.recheck.compare({item: scores[item] for item in again}, self._alone(again, "check_tokens"))
            for item, tokens in scores.items():
                for number in numbers[item]:
                    yield number, _scored(tokens)

    def _scores(self, items: Sequence[Item]) -> dict[Item, list[Token]]:
        """Return the scores of distinct requests: by the cache, and alone what that does not tell."""
        if not self.reads_cache:
            return self._alone(items, "plain_tokens")
        firsts = self._firsts(items)
        asks = {
            item: _ask(item, has_first=(item.context, item.scored[0]) in firsts) for item in items if item.count > 1
        }
        replies = dict(zip(asks, self._asked(list(asks.values())), strict=True))
        scores: dict[Item, list[Token]] = {}
        for item in items:
            first = firsts.get((item.context, item.scored[0]))
            found = [first] if item.count == 1 else _placed(item, asks.get(item), replies.get(item), first)
            if found is not None and None not in found:
                scores[item] = [token for token in found if token is not None]
        rest = [item for item in items if item not in scores]
        return scores | self._alone(rest, "plain_tokens")

    def _firsts(self, items: Sequence[Item]) -> dict[tuple[tuple[int, ...], int], Token]:
        """Return the score of the first token of answers, by context and token, where that is worth a request."""
        asks: list[Ask] = []
        for context, several in groupby(items, key=lambda item: item.context):
            answers = list(several)
            named = list(dict.fromkeys(item.scored[0] for item in answers))
            if len(answers) > 1 or answers[0].count == 1:
                parts = range(0, len(named), MOST_NAMED)
                asks += [Ask(context, named[start : start + MOST_NAMED]) for start in parts]
        return {
            (tuple(ask.token_ids), token): (reply.named[token], reply.best == token)
            for ask, reply in zip(asks, self._asked(asks), strict=True)
            for token in ask.named
            if token in reply.named
        }

    def _alone(self, items: Sequence[Item], counted: str) -> dict[Item, list[Token]]:
        """Return the scores of requests that take nothing from the cache; their tokens are ``counted`` in the work."""
        asks = [_ask(item, has_first=False, reads_cache=False) for item in items]
        scores: dict[Item, list[Token]] = {}
        for item, ask, reply in zip(items, asks, self._asked(asks, counted), strict=True):
            found = _placed(item, ask, reply, None)
            if found is None:
                raise HarnessError(
                    f"vLLM gave {len(reply.rows)} rows of log-probabilities for a prompt of {len(ask.token_ids)} tokens, "
                    f"{reply.cached} of them from its cache, which it was told not to read; this build of vLLM cannot be "
                    "used for scores: --model hf"
                )
            scores[item] = found
        return scores

    def _asked(self, asks: Sequence[Ask], counted: str | None = None) -> list[Reply]:
        """Return the replies; what went through the model is counted."""
        if not asks:
            return []
        with self.work.timed("check" if counted == "check_tokens" else "model"):
            replies = self.engine.ask(asks)
        pushed = sum(len(ask.token_ids) - (reply.cached or 0) for ask, reply in zip(asks, replies, strict=True))
        if counted is not None:
            setattr(self.work, counted, getattr(self.work, counted) + pushed)
        if counted != "check_tokens":
            self.work.pushed_tokens += pushed
            self.work.forwards += 1
            self.work.scored_rows += len(asks) + sum(len(ask.token_ids) - 1 for ask in asks if ask.wants_rows)
        return replies


def portions(items: Sequence[Item], most_tokens: int) -> Iterator[list[Item]]:
    """Yield sorted requests in portions whose different tokens fit the cache; those of one context stay together."""
    part: list[Item] = []
    tokens, before = 0, Item((), 1)
    for _, several in groupby(items, key=lambda item: item.context):
        group = list(several)
        size = sum(_new_tokens(one, other) for one, other in pairwise([before, *group]))
        if part and (tokens + size > most_tokens or len(part) + len(group) > PORTION):
            yield part
            part, tokens = [], 0
        part, tokens, before = part + group, tokens + size, group[-1]
    if part:
        yield part


def _new_tokens(before: Item, item: Item) -> int:
    """Return how many tokens of ``item`` stand behind what it shares with the one before it."""
    pairs = zip(before.token_ids, item.token_ids, strict=False)
    shared = next((number for number, (one, other) in enumerate(pairs) if one != other), len(before.token_ids))
    return max(0, len(item.token_ids) - shared)


def _ask(item: Item, *, has_first: bool, reads_cache: bool = True) -> Ask:
    """Return the request for all tokens of an answer but the first, where that is known."""
    wants_rows = item.count > (2 if has_first else 1)
    return Ask(item.token_ids[:-1], item.token_ids[-1:], wants_rows=wants_rows, reads_cache=reads_cache)


def _placed(item: Item, ask: Ask | None, reply: Reply | None, first: Token | None) -> list[Token] | None:
    """Return the scores of all tokens of an answer; None where they cannot be placed."""
    if ask is None or reply is None or item.token_ids[-1] not in reply.named:
        return None
    known = [] if first is None else [first]
    last = reply.named[item.token_ids[-1]], reply.best == item.token_ids[-1]
    start = len(item.token_ids) - item.count + len(known)
    between = rows_of(reply, ask.token_ids, start)
    return None if between is None else [*known, *between, last]


def _scored(tokens: Sequence[Token]) -> Scored:
    return Scored(
        np.array([logprob for logprob, _ in tokens], dtype=np.float64),
        np.array([is_best for _, is_best in tokens], dtype=np.bool_),
    )
