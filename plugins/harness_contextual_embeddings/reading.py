"""How a text becomes a sequence for the decoder: what stands around it in each pooling, and its ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from harness import HarnessError
from harness.names import suggestion
from harness.progress import quiet
from harness_contextual_embeddings.layout import ContextPosition, Layout, build

Bos = Literal["auto", "always", "never"]
TEMPLATE: Final = "Instruct: {task}\nQuery: "
PROMPT_EOL: Final = ('This sentence : "', '" means in one word:"')
ECHO: Final = ("Rewrite the sentence: ", ", rewritten sentence: ")
ECHO_WITH_TASK: Final = ("Instruct:{task},\nQuery:", "\nQuery again:")


@dataclass(frozen=True)
class Pooling:
    """One way from a text to a vector.

    Attributes:
        mode: what ``pooling.pool`` makes of the states.
        has_context: there is a contextual token.
        has_eos: EOS stands at the end.
        is_bidirectional: every token sees all others.
    """

    mode: str
    has_context: bool = False
    has_eos: bool = False
    is_bidirectional: bool = False


POOLINGS: Final = {
    "context_eos": Pooling("context_eos", has_context=True, has_eos=True),
    "context": Pooling("context", has_context=True, has_eos=True),
    "eos_after_context": Pooling("eos", has_context=True, has_eos=True),
    "sum": Pooling("sum", has_context=True, has_eos=True),
    "eos": Pooling("eos", has_eos=True),
    "last": Pooling("last"),
    "mean": Pooling("mean"),
    "weighted_mean": Pooling("weighted_mean"),
    "prompteol": Pooling("last"),
    "echo": Pooling("mean"),
    "bidirectional": Pooling("mean", is_bidirectional=True),
    "encoder": Pooling("mean"),
}


@dataclass(frozen=True)
class Reading:
    """What decides the sequence of a text.

    Attributes:
        pooling: of ``POOLINGS``, but ``encoder``, which reads no sequence.
        context_position: where the contextual token stands.
        bos: the id that begins sequences; None: none does.
        eos: the id that ends them; None: the tokenizer has none.
        max_length: most positions.
        template: what stands before a text with an instruction, which takes the place of ``{task}``; empty: none is read.
        examples: worked examples, which stand before the instruction.
    """

    pooling: str
    context_position: ContextPosition
    bos: int | None
    eos: int | None
    max_length: int
    template: str = TEMPLATE
    examples: tuple[str, ...] = ()

    @property
    def way(self) -> Pooling:
        """The pooling's parts."""
        return POOLINGS[self.pooling]

    def around(self, instruction: str | None) -> tuple[str, str, bool]:
        """Return what stands before and after a text, and whether the text comes again after that."""
        if self.pooling == "prompteol":
            return (*PROMPT_EOL, False)
        if self.pooling == "echo":
            before, between = ECHO_WITH_TASK if instruction and self.template else ECHO
            return before.replace("{task}", instruction or ""), between, True
        shown = "".join(f"{example}\n\n" for example in self.examples)
        return shown + (self.template.replace("{task}", instruction) if instruction else ""), "", False


def reading_for(
    tokenizer: Any,
    *,
    pooling: str,
    context_position: ContextPosition,
    bos: Bos,
    max_length: int,
    template: str,
    examples: Sequence[str] = (),
) -> Reading:
    """Return how a decoder's tokenizer has texts read.

    Args:
        tokenizer: the decoder's.
        bos: ``always``: where the tokenizer has such a token; ``auto``: where it puts it before texts itself.

    Raises:
        HarnessError: there is no such pooling, or EOS is pooled and the tokenizer has none.
    """
    if pooling not in POOLINGS:
        raise HarnessError(f"no pooling '{pooling}'; {suggestion(pooling, POOLINGS)}")
    if POOLINGS[pooling].has_eos and tokenizer.eos_token_id is None:
        raise HarnessError(
            f"pooling={pooling} needs a token that ends texts, and the tokenizer has none; take pooling=last"
        )
    first = tokenizer.bos_token_id if bos == "always" or (bos == "auto" and _puts_bos(tokenizer)) else None
    return Reading(pooling, context_position, first, tokenizer.eos_token_id, max_length, template, tuple(examples))


def text_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text by itself; what is spelled like a special token stays text."""
    if not texts:
        return []
    with quiet("transformers.tokenization_utils_base"):  # of texts longer than the model, which are cut here
        found = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, split_special_tokens=True)
    return [list(ids) for ids in found["input_ids"]]


def layouts(tokenizer: Any, reading: Reading, wanted: Sequence[tuple[str, str | None]]) -> list[Layout]:
    """Return the sequence of each text with its instruction.

    Args:
        tokenizer: the decoder's.
        reading: how.
        wanted: pairs of text and instruction, None where it has none.

    Raises:
        HarnessError: a text has no token, or no room; it is shown.
    """
    around = [reading.around(instruction) for _, instruction in wanted]
    parts = list(dict.fromkeys(part for before, after, _ in around for part in (before, after)))
    ids = dict(zip(parts, text_ids(tokenizer, parts), strict=True))
    texts = text_ids(tokenizer, [text for text, _ in wanted])
    return [
        _laid_out(reading, ids[before], text, ids[after], is_twice=is_twice)
        for text, (before, after, is_twice) in zip(texts, around, strict=True)
    ]


def _laid_out(reading: Reading, before: list[int], text: list[int], after: list[int], *, is_twice: bool) -> Layout:
    way = reading.way
    eos = reading.eos if way.has_eos else None
    position = reading.context_position if way.has_context else None
    settings: dict[str, Any] = {"max_length": reading.max_length, "context_position": position}
    if not is_twice:
        return build(reading.bos, before, text, eos, suffix_ids=after, **settings)
    fixed = len(before) + len(after) + (reading.bos is not None)
    kept = text[: max(1, (reading.max_length - fixed) // 2)]
    found = build(reading.bos, [*before, *kept, *after], kept, eos, **settings)
    return replace(found, text_tokens_dropped=found.text_tokens_dropped + len(text) - len(kept))


def _puts_bos(tokenizer: Any) -> bool:
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id
