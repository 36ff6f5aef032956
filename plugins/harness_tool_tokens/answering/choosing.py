"""The choice of the next token: words of the model against the rows of tools (ToolkenGPT, section 3.1)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.models.acting import Barred
from harness_tool_tokens.answering.answer import Answer, ToolPrompt
from harness_tool_tokens.answering.tool_head import ToolHead

if TYPE_CHECKING:
    from harness.models.acting import Candidates, Place

Tensor = torch.Tensor
# What would go on with a number: a digit, or a point or comma with a digit behind it; also as a byte of its own.
CONTINUES_NUMBER = re.compile(r"\d|[.,]\d|<0x3[0-9]>")


class Chooser:
    """Chooses tokens for answers with tools.

    Args:
        head: None: no tool has a row, all is words.
        first_tool: the id of the first tool, after the last word.
        continues_number: (V,) True for words that would go on with a number.
        is_oracle: the right tool is called where any fires, or where the model would write a number after an equals sign.
        decode: ids to text.
    """

    def __init__(
        self,
        head: ToolHead | None,
        *,
        first_tool: int,
        continues_number: Tensor,
        is_oracle: bool = False,
        decode: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        self.head, self.first_tool, self.continues_number = head, first_tool, continues_number
        self.is_oracle, self.decode = is_oracle, decode

    def __call__(self, candidates: Candidates, places: Sequence[Place]) -> list[int]:
        """Return the id of the token at each place: a word's, or ``first_tool`` and more for a tool."""
        for place in places:
            if place.prompt is _answer(place).first and _answer(place).is_begun:
                _answer(place).begin()  # again
        barred = [n for n, place in enumerate(places) if self._may_not_count(place)]
        rows = torch.tensor(barred, device=candidates.hidden.device)
        words, values = candidates.best_words(Barred(rows, self.continues_number) if barred else None)
        tokens: list[int] = words.tolist()
        asked = [n for n, place in enumerate(places) if tokens[n] >= 0 and self._may_call(place)]
        if self.head is None or not asked:
            return tokens
        logits = self.head.logits(candidates.hidden[asked])
        allowed = self._allowed([places[n] for n in asked])
        if allowed is not None:
            logits = logits.masked_fill(~allowed.to(logits.device), -torch.inf)
        best, tools = logits.max(-1)
        # A word and a tool with the same logit: the word, which comes first.
        margins = (best - values[asked].float()).tolist()
        for row, (n, margin, tool) in enumerate(zip(asked, margins, tools.tolist(), strict=True)):
            may = None if allowed is None else allowed[row]
            chosen = self._chosen(places[n], tokens[n], margin, tool, may)
            if chosen is not None:
                number, shown, forced = chosen
                tokens[n] = self.first_tool + number
                _prompt(places[n]).fired[len(places[n].generated)] = (shown, forced)
        return tokens

    def _chosen(
        self, place: Place, word: int, margin: float, tool: int, allowed: Tensor | None
    ) -> tuple[int, float | None, str] | None:
        """Return the number of the tool that is called here, its margin and what forced it; None for the word."""
        prompt = _prompt(place)
        if prompt.mode == "plan":
            return tool, margin if math.isfinite(margin) else None, ""
        if not self.is_oracle:
            return (tool, margin, "") if margin > 0 else None
        answer = _answer(place)
        if len(answer.calls) >= len(answer.wanted.gold):
            return None
        number = answer.toolbox.number(str(answer.wanted.gold[len(answer.calls)]["tool"]))
        may_fire = allowed is None or bool(allowed[number])
        if may_fire and (margin > 0 or self._begins_result(place, word)):
            return number, margin if margin > 0 else None, "oracle tool"
        return None

    def _is_behind_result(self, place: Place) -> bool:
        """Whether a result has just ended: nothing came after it, or a point, which would make its number a longer one."""
        if not _prompt(place).after_result or len(place.generated) > 1:
            return False
        return not place.generated or (self.decode is not None and self.decode(place.generated) == ".")

    def _may_not_count(self, place: Place) -> bool:
        """Whether the word here may not go on with the number that a result ended with."""
        return self._is_behind_result(place) and _answer(place).text[-1:].isdigit()

    def _may_call(self, place: Place) -> bool:
        prompt = _prompt(place)
        if prompt.mode == "plan":
            return True
        return prompt.mode == "reasoning" and not self._is_behind_result(place) and _answer(place).is_open()

    def _begins_result(self, place: Place, word: int) -> bool:
        """Whether ``word`` would begin a number right after an equals sign."""
        assert self.decode is not None
        before = [*place.prompt.token_ids[-8:], *place.generated][-8:]
        text = self.decode(before)
        added = self.decode([*before, word])[len(text) :]
        return bool(re.search(r"=\s*[$€£]?\s*$", text)) and bool(re.match(r"\s*[$€£]?\d", added))

    def _allowed(self, places: Sequence[Place]) -> Tensor | None:
        """Return which tools may fire at each place (N, tools), or None where all may everywhere."""
        assert self.head is not None
        masks = [_mask(place, len(self.head.rows)) for place in places]
        if all(mask is None for mask in masks):
            return None
        everything = torch.ones(len(self.head.rows), dtype=torch.bool)
        return torch.stack([everything if mask is None else mask for mask in masks])


def number_words(tokenizer: Any, size: int) -> Tensor:
    """Return (V,), True for the tokens that would go on with a number.

    Args:
        size: how many words the model has logits for.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
    continues = [bool(CONTINUES_NUMBER.match(token or "")) for token in tokens]
    return torch.tensor(continues + [False] * (size - len(continues)))


def _prompt(place: Place) -> ToolPrompt:
    assert isinstance(place.prompt, ToolPrompt)
    return place.prompt


def _answer(place: Place) -> Answer:
    answer = _prompt(place).answer
    assert answer is not None
    return answer


def _mask(place: Place, count: int) -> Tensor | None:
    prompt, answer = _prompt(place), _answer(place)
    barred = prompt.barred_first if not place.generated else frozenset()
    if prompt.mode == "plan":
        return torch.tensor([answer.plan_allows(tool) for tool in answer.toolbox])
    if not barred and answer.wanted.allowed is None:
        return None
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(answer.wanted.allowed if answer.wanted.allowed is not None else range(count))] = True
    mask[list(barred)] = False
    return mask
