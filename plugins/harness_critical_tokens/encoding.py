"""Prompt and response to token ids: the one way in which every stage reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lm_eval.models.utils import has_bos_prefix

from harness import HarnessError
from harness.models.spans import first_token
from harness.names import printable
from harness_critical_tokens.spelled import Offsets, Spans, encode_beside, special_tokens, words_in

if TYPE_CHECKING:
    from harness.models.causal import CausalLM

IGNORED = -100


@dataclass(frozen=True)
class Encoded:
    """A prompt and its response as one row of ids.

    ``response_start`` is the number of the response's first token. ``offsets`` has the characters (start, end) of the response's
    text that each of its tokens stands for, end-of-text (len, len). A token that begins in the prompt and ends in the response
    ``straddles`` their border and counts as the response's.
    """

    token_ids: list[int]
    response_start: int
    offsets: list[tuple[int, int]]
    straddles: bool

    @property
    def prompt_ids(self) -> list[int]:
        """The ids before the response."""
        return self.token_ids[: self.response_start]

    @property
    def response_ids(self) -> list[int]:
        """The T ids of the response."""
        return self.token_ids[self.response_start :]

    @property
    def labels(self) -> list[int]:
        """The ids of the response, -100 before it."""
        return [IGNORED] * self.response_start + self.response_ids


def encode(lm: CausalLM, prompt: str, response: str, *, is_chat: bool = False, ends: bool = True) -> Encoded:
    """Return prompt and response, encoded as one text, with the border found by characters.

    Special tokens are added as lm-eval adds them to a text, and what a tokenizer puts behind a text is left out. Blanks at the
    end of the prompt belong to the response, as in lm-eval. Text that spells a special token is encoded as text, in a chat
    template, too, but for a beginning-of-text token at the very start.

    Args:
        lm: has the tokenizer.
        prompt: with at least one character that is no blank.
        response: what follows it, its leading blank included.
        is_chat: put the prompt into the tokenizer's chat template as the user's words, the assistant's turn opened.
        ends: put end-of-text behind it.

    Raises:
        HarnessError: the prompt is empty; the tokenizer has no chat template, does not tell the characters of a token, or cannot
            keep a special token that the text spells as text.
    """
    if not prompt.strip():
        raise HarnessError("a prompt is empty; a response is scored after some text")
    before, words = _chat_prompt(lm.tokenizer, prompt) if is_chat else (prompt.rstrip(), [])
    text = before + (response if is_chat else prompt[len(before) :] + response)
    border = len(before)
    token_ids, offsets = _encode_whole(lm, text, [*words, (border, len(text))] if is_chat else [(0, len(text))])
    start = first_token(offsets, border)
    # Characters are counted in the response as it was given, so a blank that moved there lies before its first one.
    moved = len(text) - len(response)
    found = [(max(0, first - moved), max(0, last - moved)) for first, last in offsets[start:]]
    end = lm.tokenizer.eos_token_id
    if ends and end is not None:
        token_ids, found = [*token_ids, int(end)], [*found, (len(response), len(response))]
    straddles = start < len(offsets) and offsets[start][0] < border
    return Encoded(token_ids, start, found, straddles)


def _encode_whole(lm: CausalLM, text: str, users: Spans) -> tuple[list[int], Offsets]:
    """Return ids and characters of a text; ``users`` are the parts of it in which no special token is meant."""
    tokenizer: Any = lm.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise HarnessError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for; use a model with a fast tokenizer"
        )
    usual = {} if lm.add_bos_token is None else {"add_special_tokens": lm.add_bos_token}
    beginning = tokenizer.decode(lm.prefix_token_id)
    if has_bos_prefix(text, beginning):
        usual["add_special_tokens"] = False
        users = [(max(start, len(beginning)), end) for start, end in users]  # its name is to be that token
    if users[0][0] == 0:
        return _encoded(tokenizer, text, split_special_tokens=True, **usual)
    return encode_beside(tokenizer, text, users, partial(_encoded, tokenizer, split_special_tokens=False, **usual))


def _encoded(tokenizer: Any, text: str, **settings: Any) -> tuple[list[int], Offsets]:
    """Return ids and characters of a text, without what the tokenizer puts behind it."""
    found = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False, **settings)
    ids, offsets, is_special = found["input_ids"], found["offset_mapping"], found["special_tokens_mask"]
    length = len(ids)
    while length and is_special[length - 1] and tuple(offsets[length - 1]) == (0, 0):
        length -= 1
    return list(ids[:length]), [(int(first), int(last)) for first, last in offsets[:length]]


def _chat_prompt(tokenizer: Any, prompt: str) -> tuple[str, Spans]:
    """Return the prompt in the chat template, and where its words stand, which matters where they spell a special token."""

    def render(messages: list[dict[str, str]]) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    try:
        text = render([{"role": "user", "content": prompt}])
    except Exception as error:  # a template is a program of its own
        raise HarnessError(
            f"the tokenizer's chat template cannot be used: {printable(error)}; leave chat out for a model without one"
        ) from error
    specials = special_tokens(tokenizer)
    is_spelled = specials is not None and specials.search(prompt) is not None
    return text, [words_in(text, prompt, render)] if is_spelled else []
