"""Whether a rollout came out right: its whole response, what it began with included, by the verifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness_critical_tokens import verify


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
    """

    def __init__(self, tokenizer: Any, gold: str, rule: str) -> None:
        self.tokenizer, self.gold, self.rule = tokenizer, gold, rule
        self._known: dict[tuple[tuple[int, ...], bool], Verdict] = {}

    def __call__(self, token_ids: Sequence[int], *, is_cut: bool) -> Verdict:
        """Return the verdict on a response's ids, of which ``is_cut`` says that they did not end."""
        key = tuple(token_ids), is_cut
        if key not in self._known:
            text = self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
            answer = verify.extract(text, self.rule)
            right = answer is not None and verify.is_right(text, self.gold, self.rule)
            self._known[key] = Verdict(text, answer, right, is_cut and answer is None)
        return self._known[key]


def gold_of(answer: object, solution: str, rule: str) -> str | None:
    """Return the right answer of a row: the one that is given, else the one that its right solution gives; None: neither."""
    text = solution if answer is None else str(answer)
    if rule == "latex" and answer is not None:
        return text.strip() or None
    return verify.extract(text, rule)
