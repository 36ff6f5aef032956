"""Whether the ids that a tokenizer makes are ids that a model embeds: seen without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def gives_beyond(tokenizer: PreTrainedTokenizerBase, rows: int) -> bool:
    """Return whether texts without the names of added tokens have ids of ``rows`` or more.

    Many a tokenizer has one such id that nothing uses, an image's or one for padding; a text with its name is told of when it
    is met.
    """
    if max(tokenizer.encode("a"), default=0) >= rows:  # with what it puts around every text
        return True
    beyond = {number: token for token, number in tokenizer.get_vocab().items() if number >= rows}
    for number in sorted(set(beyond) - set(tokenizer.added_tokens_decoder)):
        text = tokenizer.convert_tokens_to_string([beyond[number]])
        if number in tokenizer.encode(text, add_special_tokens=False):
            return True
    return False
