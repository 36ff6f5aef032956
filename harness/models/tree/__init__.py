"""Requests answered over one tree of tokens."""
