"""CUTE: what a model knows about the characters of its tokens."""
