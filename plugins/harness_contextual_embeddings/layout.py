"""Where everything stands in the sequence that a decoder reads: BOS, instruction, contextual token, text, EOS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness import HarnessError

ContextPosition = Literal["text", "front"]


class NoTextError(HarnessError):
    """A text has no token, so nothing of it could be embedded."""


class NoRoomError(HarnessError):
    """What has to stand beside the text leaves no token for it."""


@dataclass(frozen=True)
class Layout:
    """One sequence.

    Attributes:
        ids: the T ids, None at the contextual token, which has no id.
        context_index: where the contextual token stands; None where there is none.
        eos_index: where EOS stands, the last place; None where there is none.
        text_start: the first place of the text.
        text_end: the place after its last.
        text_tokens_dropped: how many tokens of the text were cut off at its end.
    """

    ids: tuple[int | None, ...]
    context_index: int | None
    eos_index: int | None
    text_start: int
    text_end: int
    text_tokens_dropped: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def last_index(self) -> int:
        """The last place of the sequence, whatever stands there."""
        return len(self.ids) - 1

    def moved(self, places: int, pad_id: int = 0) -> Layout:
        """Return the layout of the sequence behind ``places`` paddings on its left."""
        return replace(
            self,
            ids=(pad_id,) * places + self.ids,
            context_index=None if self.context_index is None else self.context_index + places,
            eos_index=None if self.eos_index is None else self.eos_index + places,
            text_start=self.text_start + places,
            text_end=self.text_end + places,
        )


def build(
    bos: int | None,
    instruction_ids: Sequence[int],
    text_ids: Sequence[int],
    eos: int | None,
    *,
    max_length: int,
    context_position: ContextPosition | None,
    suffix_ids: Sequence[int] = (),
) -> Layout:
    """Lay out one sequence; the text gives way at its end where it is too long, and nothing else does.

    Args:
        bos: the id that comes first; None: none does.
        instruction_ids: before the text.
        text_ids: the text by itself; an EOS among them is text.
        eos: the id that comes last, once; None: none does.
        max_length: most positions, the contextual token's included.
        context_position: where the contextual token stands: ``text``, directly before the text; ``front``, right after BOS;
            None: there is none.
        suffix_ids: after the text and before EOS, such as the end of a prompt around it.

    Raises:
        NoTextError: the text has no token.
        NoRoomError: not one token of it fits.
    """
    if not text_ids:
        raise NoTextError("empty text: there is no token to embed")
    start = [] if bos is None else [bos]
    context: list[int | None] = [] if context_position is None else [None]
    front = context if context_position == "front" else []
    near = context if context_position == "text" else []
    before: list[int | None] = [*start, *front, *instruction_ids, *near]
    after = [*suffix_ids, *([] if eos is None else [eos])]
    room = max_length - len(before) - len(after)
    if room < 1:
        raise NoRoomError(
            f"no room for text: {len(before) + len(after)} of max_length={max_length} positions are taken by what stands around "
            "it; shorten the instruction, or give a larger max_length"
        )
    kept = list(text_ids[:room])
    ids = (*before, *kept, *after)
    return Layout(
        ids=ids,
        context_index=before.index(None) if context else None,
        eos_index=None if eos is None else len(ids) - 1,
        text_start=len(before),
        text_end=len(before) + len(kept),
        text_tokens_dropped=len(text_ids) - len(kept),
    )
