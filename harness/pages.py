"""HTML pages of one file that need nothing else and fetch nothing, whatever text they show.

A page of few lines extends the layout here; its text reaches it through Jinja2 alone, which escapes it::

    TEMPLATE = '''{% extends "page" %}{% block body %}
    {% for token in tokens %}<span class="{{ token.kind }}">{{ token.text }}</span>{% endfor %}
    {% endblock %}'''
    html = pages.render(TEMPLATE, title="Tokens", style=".new { color: green; }", tokens=tokens)

A larger one has its template, style and script as files of one name in one folder, and is made by ``render_files``.
Colours go by class: the policy of a page refuses styles in attributes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.names import printable

if TYPE_CHECKING:
    from jinja2 import Environment

# Characters of JSON that stand in a page as they are; longer ones are compressed.
SHORT_ISLAND = 20_000
LAYOUT = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<h1>{{ title }}</h1>
{% block body %}
{% endblock %}
{% if script %}
<script>{{ script }}</script>
{% endif %}
</body>
</html>
"""


def render(template: str, *, title: str, style: str = "", script: str = "", **content: Any) -> str:
    """Return the page of a template that stands in the code.

    Args:
        template: Jinja2; ``{% extends "page" %}`` gives it the layout, whose block ``body`` it fills.
        title: of the page, for people.
        style: its CSS, which the page allows; no other style is.
        script: its JavaScript; no other script is allowed.
        content: what else the template names; a name that is missing is an error.
    """
    from jinja2 import DictLoader

    made = _environment(DictLoader({"page": LAYOUT})).from_string(template)
    return made.render(**_allowed(style, script), title=title, **content)


def render_files(folder: Path, name: str, *, scripts: Sequence[str] = (), **content: Any) -> str:
    """Return the page of ``NAME.html.j2``, with ``NAME.css`` as its style and ``NAME.js`` as its script.

    Args:
        folder: where the three files lie.
        name: what they are called.
        scripts: further ones, by name without ``.js``, that stand before it as parts of one script.
        content: what the template names, beside ``policy``, ``style`` and ``script``.
    """
    from jinja2 import FileSystemLoader

    style = (folder / f"{name}.css").read_text(encoding="utf-8")
    script = "\n".join((folder / f"{one}.js").read_text(encoding="utf-8") for one in (*scripts, name))
    made = _environment(FileSystemLoader(folder)).get_template(f"{name}.html.j2")
    return made.render(**_allowed(style, script), **content)


def render_part(folder: Path, name: str, **content: Any) -> Any:
    """Return ``NAME.html.j2`` of a folder as markup for pages: a part that several have, escaped as they are."""
    from jinja2 import FileSystemLoader

    return as_markup(_environment(FileSystemLoader(folder)).get_template(f"{name}.html.j2").render(**content))


def json_island(content: Any) -> str:
    """Return JSON for a script of the page to read: it ends no script element and no line, whatever text it holds.

    In a template it stands as ``<script type="application/json" id="NAME">``, marked as safe by ``as_markup``.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def packed(content: Any) -> tuple[str, str]:
    """Return type and text of a script element that holds JSON: as it is where that is short, else as gzip in base64.

    A script reads it by ``DecompressionStream``, which needs no network. The same content gives the same text.
    """
    text = json_island(content)
    if len(text) < SHORT_ISLAND:
        return "application/json", text
    return "application/gzip", base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def unpacked(kind: str, text: str) -> Any:
    """Return the content of an island, as ``packed`` gave its type and text."""
    return json.loads(gzip.decompress(base64.b64decode(text)) if kind == "application/gzip" else text)


def as_markup(text: str) -> Any:
    """Return markup of one's own, such as a plot or a JSON island, which a template then does not escape."""
    from markupsafe import Markup

    return Markup(text)


def readable(text: str, most: int) -> str:
    """Return ``text`` as it can be shown: the middle of a long one left out, control and direction characters visible."""
    if len(text) > most:
        half = most // 2
        text = f"{text[:half]} [...{len(text) - 2 * half:,} characters...] {text[-half:]}"
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def shares(counts: Sequence[int], most: int) -> list[int]:
    """Return how many of each are shown, ``most`` in all and none beyond its count: as even as the counts allow."""
    given = [0] * len(counts)
    left, open_ones = most, list(range(len(counts)))
    while left > 0 and open_ones:
        each = max(1, left // len(open_ones))
        for number in open_ones:
            more = min(each, counts[number] - given[number], left)
            given[number] += more
            left -= more
        open_ones = [number for number in open_ones if given[number] < counts[number]]
    return given


def _environment(loader: Any) -> Environment:
    from jinja2 import Environment, StrictUndefined

    return Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip


def _allowed(style: str, script: str) -> dict[str, Any]:
    """Return a page's own style and script, and the policy that allows these two, by digest, and nothing from anywhere."""
    hashed = (f"{name} 'sha256-{_sha256(text)}'" for name, text in (("style-src", style), ("script-src", script)))
    policy = "; ".join(["default-src 'none'", *hashed, "base-uri 'none'", "form-action 'none'"])
    return {"policy": policy, "style": as_markup(style), "script": as_markup(script)}


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
