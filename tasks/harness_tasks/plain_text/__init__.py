"""Fertility: how many tokens a tokenizer spends on a word."""
