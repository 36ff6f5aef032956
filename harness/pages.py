"""One HTML page that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from harness.names import printable
from harness_tool_tokens.report.calls import Report


def policy(style: str, script: str) -> str:
    """Return a policy that allows this style and this script, by digest, and nothing from anywhere."""
    allowed = {"style-src": style, "script-src": script}
    hashed = (f"{name} 'sha256-{_sha256(text)}'" for name, text in allowed.items())
    return "; ".join(["default-src 'none'", *hashed, "base-uri 'none'", "form-action 'none'"])


def json_island(content: Any) -> str:
    """Return JSON that ends no script element and no line of JavaScript, whatever text it holds."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def shares(reports: Sequence[Report], most: int) -> list[int]:
    """Return how many documents of each report are shown, ``most`` in all: as even as their numbers allow."""
    given = [0] * len(reports)
    left, open_ones = most, list(range(len(reports)))
    while left > 0 and open_ones:
        each = max(1, left // len(open_ones))
        for number in open_ones:
            more = min(each, len(reports[number].documents) - given[number], left)
            given[number] += more
            left -= more
        open_ones = [number for number in open_ones if given[number] < len(reports[number].documents)]
    return given


def readable(text: str, most: int) -> str:
    """Return ``text`` as it can be shown: the middle of a long one left out, control and direction characters visible."""
    if len(text) > most:
        half = most // 2
        text = f"{text[:half]} [...{len(text) - 2 * half:,} characters...] {text[-half:]}"
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))
