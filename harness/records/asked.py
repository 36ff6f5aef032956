"""What was asked of a task, as digests that say whether two runs were asked the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Questions:
    """Digests over the documents and over the prompts of a task, and how many documents and requests there are."""

    docs_digest: str
    prompts_digest: str
    docs: int
    requests: int


def of_samples(samples: Sequence[dict[str, Any]]) -> Questions:
    """Return what was asked, from lm-eval's samples of one task in the order of its documents."""
    rows = of_first_filter(samples)
    return _questions((str(row["doc_hash"]), row["arguments"]) for row in rows)


def of_first_filter(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each document, of the first of a task's filters."""
    return [row for row in samples if row["filter"] == samples[0]["filter"]]


def joined_digest(parts: Iterable[str]) -> str:
    """Return one short digest of several, in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _questions(asked: Iterable[tuple[str, Sequence[Any]]]) -> Questions:
    hashes, digest, requests = [], hashlib.sha256(), 0
    for doc_hash, arguments in asked:
        hashes.append(doc_hash)
        requests += len(arguments)
        for request in arguments:
            # Token ids are left out: a method may bring another tokenizer, and be asked the same.
            texts = [part for part in request if not isinstance(part, list | tuple)]
            digest.update(json.dumps(texts, sort_keys=True, default=str).encode() + b"\n")
        digest.update(b"\n")
    docs_digest = joined_digest([joined_digest(hashes)])
    return Questions(docs_digest, digest.hexdigest()[:16], len(hashes), requests)
