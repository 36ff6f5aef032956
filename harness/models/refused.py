"""Refused: why requests cannot be answered together."""

from __future__ import annotations


class Refused(Exception):
    """The model does something the fast path does not know; the message says what."""
