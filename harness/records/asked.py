"""What was asked of a task, as digests that say whether two runs were asked the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Questions:
    """Digests over the documents and over the prompts of a task, and how many documents and requests there are."""

    docs_digest: str
    prompts_digest: str
    docs: int
    requests: int


class Joined:
    """The short digest of several texts in their order, made as they come."""

    def __init__(self) -> None:
        """Begin without a text."""
        self._digest, self._is_first = hashlib.sha256(), True

    def add(self, text: str) -> None:
        """Take the next text."""
        self._digest.update(text.encode() if self._is_first else b"\n" + text.encode())
        self._is_first = False

    def short(self) -> str:
        """Return the digest of the texts so far."""
        return self._digest.hexdigest()[:16]


class Prompts:
    """The short digest of what was asked of documents in their order, made as they come.

    Attributes:
        requests: how many there were.
    """

    def __init__(self) -> None:
        """Begin without a document."""
        self.requests = 0
        self._digest = hashlib.sha256()

    def add(self, requests: Sequence[Sequence[Any]]) -> None:
        """Take the requests of the next document, each as its arguments."""
        self.requests += len(requests)
        for request in requests:
            # Token ids are left out: a method may bring another tokenizer, and be asked the same.
            texts = [part for part in request if not isinstance(part, list | tuple)]
            self._digest.update(json.dumps(texts, sort_keys=True, default=str).encode() + b"\n")
        self._digest.update(b"\n")

    def short(self) -> str:
        """Return the digest of the documents so far."""
        return self._digest.hexdigest()[:16]


def of_documents(documents: Iterable[tuple[str, Sequence[Sequence[Any]]]], *, repeats: int = 1) -> Questions:
    """Return what was asked of documents in their order.

    Args:
        documents: the digest of each, and its requests, each as its arguments.
        repeats: how many times each request was made.
    """
    hashes, prompts = [], Prompts()
    for doc_hash, requests in documents:
        hashes.append(doc_hash)
        prompts.add(requests)
    docs_digest = joined_digest([joined_digest(hashes)])
    return Questions(docs_digest, prompts.short(), len(hashes), prompts.requests * repeats)


def of_samples(samples: Sequence[dict[str, Any]]) -> Questions:
    """Return what was asked, from lm-eval's samples of one task in the order of its documents."""
    rows = of_first_filter(samples)
    asked = of_documents((str(row["doc_hash"]), row["arguments"]) for row in rows)
    return replace(asked, requests=sum(times_asked(row["resps"], len(row["arguments"])) for row in rows))


def times_asked(given: Any, requests: int) -> int:
    """Return how many answers a row holds: a request that is repeated was asked as often as it has answers.

    Args:
        given: ``resps`` of the row: the answers to each request.
        requests: how many there are.
    """
    if not isinstance(given, list) or len(given) != requests:
        return requests
    return sum(max(1, len(answers)) if isinstance(answers, list) else 1 for answers in given)


def of_first_filter(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each document, of the first of a task's filters."""
    return [row for row in samples if row["filter"] == samples[0]["filter"]]


def joined_digest(parts: Iterable[str]) -> str:
    """Return one short digest of several, in their order."""
    joined = Joined()
    for part in parts:
        joined.add(part)
    return joined.short()
