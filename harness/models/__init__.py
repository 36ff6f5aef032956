"""LMs, their models and tokenizers, and how they answer."""
