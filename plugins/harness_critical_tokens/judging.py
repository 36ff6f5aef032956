"""Whether a rollout came out right: its whole response, what it began with included, by the verifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from harness_critical_tokens import latex, verify


@dataclass(frozen=True)
class Verdict:
    """What a response came to: its ``text``, the ``answer`` it gives (None: none), and whether that is right.

    ``is_unfinished``: it was cut before it ended, or gave an answer.
    """

    text: str
    answer: str | None
    is_right: bool
    is_unfinished: bool


class Judge:
    """Judges responses by the verifier; the same response is judged once.

    Args:
        tokenizer: decodes them.
        gold: the right answer.
        rule: of the verifier.
        before: ids of what the responses follow, so that a blank that a tokenizer drops from the beginning of a text stays.
    """

    def __init__(self, tokenizer: Any, gold: str, rule: str, *, before: Sequence[int] = ()) -> None:
        self.tokenizer, self.gold, self.rule, self.before = tokenizer, gold, rule, list(before)
        self._head = self._decoded(self.before)
        self._known: dict[tuple[tuple[int, ...], bool], Verdict] = {}

    def __call__(self, token_ids: Sequence[int], *, is_cut: bool) -> Verdict:
        """Return the verdict on a response's ids, of which ``is_cut`` says that they did not end."""
        key = tuple(token_ids), is_cut
        if key not in self._known:
            text = self._text(token_ids)
            answer = verify.extract(text, self.rule)
            right = answer is not None and verify.is_right(text, self.gold, self.rule)
            self._known[key] = Verdict(text, answer, right, is_cut and answer is None)
        return self._known[key]

    def _text(self, token_ids: Sequence[int]) -> str:
        """Return what a response adds to the text before it."""
        whole = self._decoded([*self.before, *token_ids])
        return whole[len(self._head) :] if whole.startswith(self._head) else self._decoded(token_ids)

    def _decoded(self, token_ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def gold_of(answer: object, solution: str, rule: str) -> str | None:
    """Return the right answer of a row: the one that is given, else the one that its right solution gives; None: neither."""
    text = solution if answer is None else _written(answer)
    if rule == "latex" and answer is not None:
        # A box that is not closed holds no answer, and what stands there would be no sample's.
        is_whole = "\\boxed" not in text or bool((latex.last_box(text) or "").strip())
        return text.strip() or None if is_whole else None
    return verify.extract(text, rule)


def _written(answer: object) -> str:
    """Return an answer as people write it: of ``1e-05`` the verifier would read the 5."""
    is_number = isinstance(answer, float) and math.isfinite(answer)
    return f"{Decimal(repr(answer)):f}" if is_number else str(answer)
