"""The task ``plain_text``: bits per byte of ordinary text, which a method was not made for: what it costs elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from harness.tasks.own_docs import Doc, OwnDocsTask
from harness.tasks.texts import TEXTS


class PlainText(OwnDocsTask):
    """Sends each text as a ``loglikelihood_rolling`` request; ``bits_per_byte`` compares whatever the tokenizer."""

    request_types = ("loglikelihood_rolling",)
    metrics: ClassVar[dict[str, bool]] = {"bits_per_byte": False}

    def make_docs(self, metadata: Mapping[str, Any]) -> list[Doc]:
        """Return one document a text, with its bytes in UTF-8."""
        return [{"text": text, "bytes": len(text.encode())} for text in TEXTS]

    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return the one request of ``doc``."""
        return [(doc["text"],)]

    def score(self, doc: Doc, answers: list[float]) -> dict[str, float]:
        """Return the negative log-likelihood of one text in bits, over its bytes."""
        return {"bits_per_byte": -answers[0] / math.log(2) / doc["bytes"]}
