"""What scoring cost: tokens asked for, tokens needed, tokens pushed through the model, and where the seconds went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.models.tree.trie import Trie

COUNTS = (
    "requested_tokens", "distinct_tokens", "distinct_pairs", "pushed_tokens", "plain_tokens", "check_tokens",
    "scored_rows", "forwards",
)  # fmt: skip
PARTS = ("tokenizing", "model", "head", "check", "rest")


@dataclass
class Work:
    """The work of one run. All counts are of tokens that enter the model.

    ``requested_tokens``: the sum over requests; ``distinct_tokens``: every distinct prefix once, the least that any
    way of sharing needs; ``distinct_pairs``: how often one of these attends to another; ``pushed_tokens``: what really
    went through, padding included; ``scored_rows``: rows of the output head. ``plain_tokens`` is the part of
    ``pushed_tokens`` that went lm-eval's own way, for ``reason``. ``check_tokens``, counted apart, tried the model out
    (see ``fitness``).
    """

    requested_tokens: int = 0
    distinct_tokens: int = 0
    distinct_pairs: int = 0
    pushed_tokens: int = 0
    plain_tokens: int = 0
    check_tokens: int = 0
    scored_rows: int = 0
    forwards: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    reason: str | None = None

    def need(self, sequences: Sequence[Sequence[int]]) -> None:
        """Count sequences that are pushed in some other way than as a tree."""
        sequences = [sequence for sequence in sequences if sequence]
        self.requested_tokens += sum(map(len, sequences))
        if sequences:
            trie = Trie.build(sequences, [1] * len(sequences))
            self.distinct_tokens += len(trie)
            self.distinct_pairs += trie.pairs

    def went_plainly(self, tokens: int, *, forwards: int, pushed: int) -> None:
        """Count passes that went lm-eval's own way, ``pushed`` tokens with padding, and new tokens that they gave."""
        self.requested_tokens += max(0, tokens)
        self.distinct_tokens += max(0, tokens)
        self.forwards += forwards
        self.pushed_tokens += pushed
        self.plain_tokens += pushed

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time spent inside to ``part``, and take it from the part around it."""
        started, before = time.perf_counter(), sum(self.seconds.values())
        try:
            yield
        finally:
            inner = sum(self.seconds.values()) - before
            self.seconds[part] += time.perf_counter() - started - inner

    @property
    def share(self) -> float | None:
        """Distinct over pushed tokens, at most 1: the figure of merit, the same on every machine."""
        return self.distinct_tokens / self.pushed_tokens if self.pushed_tokens else None

    def clear(self) -> None:
        """Begin again at 0; ``reason`` stays."""
        fresh = Work(reason=self.reason)
        self.__dict__.update(fresh.__dict__)

    def add(self, other: Work) -> None:
        """Add what another process did; seconds are those of the slower one."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds = {part: max(self.seconds[part], other.seconds[part]) for part in PARTS}

    def plus(self, earlier: Work | None) -> Work:
        """Return this work and an earlier task's together."""
        total = Work(reason=self.reason)
        for part in (self, earlier):
            if part is not None:
                for name in COUNTS:
                    setattr(total, name, getattr(total, name) + getattr(part, name))
                total.seconds = {name: total.seconds[name] + part.seconds[name] for name in PARTS}
        return total

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Work:
        """Return the work that ``describe`` told of.

        Raises:
            KeyError, TypeError, ValueError: it did not.
        """
        counts = {name: int(described[name]) for name in COUNTS}
        seconds = {part: float(described["seconds"][part]) for part in PARTS}
        return cls(**counts, seconds=seconds, reason=described["reason"])

    def describe(self) -> dict[str, Any]:
        """Return the counts and seconds for a record, ``share`` included."""
        described = asdict(self) | {"share": None if self.share is None else round(self.share, 4)}
        described["seconds"] = {part: round(seconds, 3) for part, seconds in self.seconds.items()}
        return described

    def sentence(self) -> str:
        """Return one line for people."""
        seconds = ", ".join(f"{part} {value:.1f} s" for part, value in self.seconds.items() if value >= 0.05)
        share = f" ({self.share:.0%} of them needed)" if self.share is not None else ""
        plain = f", {self.plain_tokens:,} of them lm-eval's own way" if self.plain_tokens else ""
        return (
            f"{self.requested_tokens:,} tokens asked for, {self.pushed_tokens:,} pushed through the model{share}{plain} "
            f"in {self.forwards:,} {'pass' if self.forwards == 1 else 'passes'}; {seconds}"
        )
