"""Per-token log-probabilities of texts, as a method asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lm_eval.api.instance import Instance

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.models.causal import CausalLM


def token_loglikelihoods(lm: CausalLM, texts: Sequence[str | Sequence[int]]) -> list[list[float]]:
    """Return the log-probability of each token of each text after those before it, the first after end-of-text.

    The LM answers as it answers tasks: texts that begin alike share their beginning where the model may, long ones are
    scored in disjoint windows, and a subclass with steps of its own is asked through them.

    Args:
        lm: the model.
        texts: text, encoded without special tokens, or ids; the order does not matter to a score.

    Returns:
        For each text as many numbers as it has tokens, in nats, from float32 log-probabilities.

    Raises:
        HarnessError: a text has no tokens, or a score is not finite; the text is named by its number.
    """
    ids = [
        lm.tokenizer.encode(text, add_special_tokens=False) if isinstance(text, str) else list(text) for text in texts
    ]
    for number, row in enumerate(ids, start=1):
        if not row:
            raise HarnessError(f"text {number} has no tokens; leave it out")
    requests = [
        Instance(
            request_type="token_loglikelihoods",
            doc={},
            arguments=(text if isinstance(text, str) else lm.tokenizer.decode(row), row),
            idx=0,
            metadata=("texts of a method", number, 1),
        )
        for number, (text, row) in enumerate(zip(texts, ids, strict=True), start=1)
    ]
    return lm.token_loglikelihoods(requests)
