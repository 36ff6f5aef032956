"""Contextual-token embeddings: a decoder as an embedder that sees a summary of the whole text first, and its rivals."""

from __future__ import annotations

from harness import Method, hookimpl


@hookimpl
def harness_methods() -> list[type[Method]]:
    """Offer the one method, whose option ``pooling`` chooses among Causal2Vec and its rivals."""
    from harness_contextual_embeddings.method import ContextualEmbeddings

    return [ContextualEmbeddings]
