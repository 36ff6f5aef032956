"""Where a model's thinking ends and its answer begins: at the last ``think_end_token`` of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.models.chat import ChatTemplate
from harness.names import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lm_eval.models.huggingface import HFLM


class Thinking:
    """What ends a model's thinking.

    Stop strings are for the answer: they sleep until the mark has come, and white space behind the mark is no part of the
    answer. A text that ends before the mark is an empty answer where the limit of length ended it, or where its thinking
    shows to have begun; one that the model ended itself without a word of thinking is the answer.

    Args:
        mark: the text that ends thinking, as it stands in prompts.
        ids: the mark as ids, where decoding would leave a part of it out; None: it is looked for in the text.
    """

    def __init__(self, lm: HFLM, mark: str, ids: Sequence[int] | None) -> None:
        self.lm, self.mark, self.ids = lm, mark, list(ids) if ids else None
        self.start = mark.replace("/", "", 1) if "/" in mark else None
        self._turn: str | None = None
        options = getattr(lm, "chat_template_args", None) or {}
        self.is_off = lm.enable_thinking is False or options.get("enable_thinking") is False

    @classmethod
    def of(cls, lm: HFLM) -> Thinking | None:
        """Return what ends the thinking of ``lm``; None where ``think_end_token`` was not given.

        Raises:
            HarnessError: the mark is empty, or an id that no text can have.
        """
        end, tokenizer = lm.think_end_token, lm.tokenizer
        if end is None:
            return None
        if isinstance(end, int):
            if not 0 <= end < len(tokenizer):
                raise HarnessError(
                    f"--model_args think_end_token is {end}, but the tokenizer has {len(tokenizer)} tokens"
                )
            return cls(lm, str(lm.tok_decode([end], skip_special_tokens=False)), [end])
        if not end.strip():
            raise HarnessError("--model_args think_end_token is empty; give the text or the id that ends thinking")
        ids = tokenizer.encode(end, add_special_tokens=False)
        return cls(lm, end, ids if set(ids) & set(tokenizer.all_special_ids) else None)

    def answer(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str | None:
        """Return the text behind the last mark without white space before it; None where there is no mark."""
        if self.ids is None:
            text: str = self.lm.tok_decode(token_ids, skip_special_tokens=skip_special_tokens)
            return text.rpartition(self.mark)[2].lstrip() if self.mark in text else None
        width = len(self.ids)
        for end in range(len(token_ids), width - 1, -1):
            if list(token_ids[end - width : end]) == self.ids:
                return str(self.lm.tok_decode(token_ids[end:], skip_special_tokens=skip_special_tokens)).lstrip()
        return None

    def may_begin(self, context: str) -> bool:
        """Return whether a text after this prompt may begin with thinking: not where the prompt has ended it already."""
        if self.is_off:
            return False
        if self.mark not in context:
            return True
        behind = context.rpartition(self.mark)[2]
        turn = self._users_turn if behind.strip() and self._users_turn in context else ""
        return bool(behind.strip()) and (not turn or turn in behind)

    def has_begun(self, context: str, token_ids: Sequence[int]) -> bool:
        """Return whether thinking shows: the prompt, or the text after it, has what begins it."""
        if self.start is None:
            return False
        behind = context.rpartition(self.mark)[2][-200:]
        return behind.rstrip().endswith(self.start) or self.start in self.lm.tok_decode(
            token_ids, skip_special_tokens=False
        )

    @property
    def _users_turn(self) -> str:
        """What begins a turn of the user; empty where no chat template says."""
        if self._turn is None:
            template = ChatTemplate(self.lm.apply_chat_template)
            self._turn = template.turn if template.tail else ""
        return self._turn


def shown(thinking: Thinking | None) -> dict[str, Any]:
    """Return what a record says of thinking."""
    return {} if thinking is None else {"think_end_token": printable(thinking.mark)}
