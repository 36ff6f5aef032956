"""Foreign text inside Markdown tables."""

from __future__ import annotations

import re

from harness.names import printable


def cell(text: object) -> str:
    """Return foreign text for Markdown: no control characters, nothing that ends a cell or becomes markup."""
    shown = printable("none" if text is None else text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # An underscore inside a word is no markup, and most names have some.
    return re.sub(r"[\\`*\[\]|#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", shown)
