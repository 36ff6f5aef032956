"""Contextual-token embeddings: a decoder as an embedder that sees a summary of the whole text first, and its rivals."""
