"""The tokens of a page: of prompts, by the tokenizer that the run used, and of ids that a sample file holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from harness.records.record import Record

MOST_TOKENS = 4_000
TEXT_ALONE = "Without its tokens, which sample files do not hold; --tokens marks them."
TAKEN_OUT = "Without its tokens: it is very long, or a secret was taken out of it."

# Of each token its text, as it is shown, and what is said of it.
Strip = list[list[str]]


class Tokens:
    """Marks tokens in text, and gives ids their text; without a tokenizer ids stand for themselves."""

    def __init__(self, tokenizer: Any = None) -> None:
        """Take a tokenizer of transformers, which has to know where its tokens stand in a text, or None."""
        self._tokenizer = tokenizer
        self.can_mark = tokenizer is not None

    def strip(self, text: str) -> Strip:
        """Return the tokens of a text in order, with their ids; their texts together are the text."""
        made = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        found: Strip = []
        place, waiting = 0, list[str]()
        for token, (_, end) in zip(made["input_ids"], made["offset_mapping"], strict=True):
            waiting.append(str(token))
            if end > place:  # several tokens of one character stand together
                found.append([text[place:end], f"id {' + '.join(waiting)}"])
                place, waiting = end, []
        if place < len(text):
            found.append([text[place:], f"id {' + '.join(waiting)}" if waiting else "no token"])
        return found

    def named(self, ids: Sequence[int], said: Sequence[str] = ()) -> Strip:
        """Return tokens given by their ids, each with what is said of it beside."""
        known = 0 if self._tokenizer is None else len(self._tokenizer)
        texts = [self._tokenizer.decode([one]) if one < known else str(one) for one in ids]
        more = [f", {one}" for one in said] or [""] * len(ids)
        return [[text, f"id {one}{what}"] for text, one, what in zip(texts, ids, more, strict=True)]


def of_run(record: Record, given: str | None) -> Tokens:
    """Return the tokens by the tokenizer that a record was made with.

    Args:
        record: of the run.
        given: the folder or name of a model on the Hub; None for the one that the record's command names.

    Raises:
        HarnessError: it cannot be loaded, is another than the record's, or cannot say where its tokens stand.
    """
    from harness.models.finding import load_tokenizer
    from harness.models.identity import tokenizer_digest
    from harness.verifying import claims

    named = given or claims.pairs(claims.flags(record.command).get("model_args", "")).get("pretrained")
    try:
        tokenizer = load_tokenizer(named)
    except HarnessError as error:
        raise HarnessError(f"no tokenizer to mark tokens with: {error}; name its model with --tokens MODEL") from error
    here = tokenizer_digest(tokenizer)
    if here != record.tokenizer.digest:
        raise HarnessError(
            f"the tokenizer of '{printable(named or 'the default model')}' is not the one that the run used: its digest is "
            f"{here[:12]}, the record says {printable(record.tokenizer.digest)[:12]}; name the right model with --tokens MODEL"
        )
    if not tokenizer.is_fast:
        raise HarnessError("this tokenizer does not say where its tokens stand in a text; leave --tokens out")
    return Tokens(tokenizer)
