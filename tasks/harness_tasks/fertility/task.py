"""The task ``fertility``: how many tokens a tokenizer spends on a word, how many bytes it puts in a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.errors import HarnessError
from harness.tasks.own_docs import Doc, OwnDocsTask
from harness.tasks.texts import TEXTS


class Fertility(OwnDocsTask):
    """Sends each text as a ``tokenize`` request and scores the number of token ids that come back; needs no weights."""

    request_types = ("tokenize",)
    metrics: ClassVar[dict[str, bool]] = {"fertility": False, "bytes_per_token": True}

    def make_docs(self, metadata: Mapping[str, Any]) -> list[Doc]:
        """Return one document a text, with the number of its words (what white space separates) and bytes (UTF-8)."""
        return [{"text": text, "words": len(text.split()), "bytes": len(text.encode())} for text in TEXTS]

    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return the one request of ``doc``."""
        return [(doc["text"],)]

    def score(self, doc: Doc, answers: list[list[int]]) -> dict[str, float]:
        """Return ``fertility`` (tokens per word) and ``bytes_per_token`` of one text.

        Raises:
            HarnessError: the text has no token.
        """
        tokens = len(answers[0])
        if tokens == 0:
            raise HarnessError(
                f"the tokenizer gives no token for the text {doc['text'][:30]!r}..., so it has no fertility; "
                "check the tokenizer"
            )
        return {"fertility": tokens / doc["words"], "bytes_per_token": doc["bytes"] / tokens}
