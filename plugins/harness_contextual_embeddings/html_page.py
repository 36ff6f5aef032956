"""What embeddings say in words as an HTML page: one file that fetches nothing, whatever the texts hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from harness import pages
from harness_contextual_embeddings.explaining import Explained, summary

MOST_CHARACTERS: Final = 1_000
STYLE: Final = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.5rem 0.75rem; border-bottom: 1px solid #8886; }
td.text { width: 45%; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; }
td.count { white-space: nowrap; font-variant-numeric: tabular-nums; }
.token { display: inline-block; margin: 0 0.25rem 0.25rem 0; padding: 0 0.35rem; border: 1px solid #8888; border-radius: 4px;
  font-family: ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.own { border: 2px solid; font-weight: bold; text-decoration: underline; }
@media (max-width: 45rem) {
  body { margin: 1rem auto; }
  thead { display: none; }
  tr { display: block; padding: 0.5rem 0; border-bottom: 1px solid #8886; }
  td, td.text { display: block; width: auto; padding: 0.15rem 0; border: 0; }
  td.count::after { content: " in the text"; }
}
"""
TEMPLATE: Final = """\
{% extends "page" %}{% block body %}
<p>{{ about }}: the tokens that the decoder's own output head reads out of each text's embedding, the likeliest first.
A <span class="token own">bold</span> one stands in the text.</p>
<p>{{ summary }}</p>
<table>
<thead><tr><th scope="col">text</th><th scope="col">tokens</th><th scope="col">in the text</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="text">{{ row.text }}</td><td>
{% for token in row.tokens %}
<span class="token{{ ' own' if token.is_own }}">{{ token.text }}</span>
{% endfor %}
</td><td class="count">{{ row.hits }} of {{ row.tokens | length }}</td></tr>
{% endfor %}
</tbody>
</table>
{% endblock %}
"""


def as_html(explained: Sequence[Explained], *, about: str) -> str:
    """Return the page: a row a text with its tokens, and how far embeddings and texts agree.

    Args:
        explained: one text at least.
        about: what embeds, in a few words.
    """
    rows = [
        {
            "text": pages.readable(one.text, MOST_CHARACTERS),
            "tokens": [
                {"text": pages.readable(word, MOST_CHARACTERS), "is_own": is_own}
                for word, is_own in zip(one.tokens, one.in_text, strict=True)
            ],
            "hits": one.hits,
        }
        for one in explained
    ]
    title = "What embeddings say in words"
    return pages.render(TEMPLATE, title=title, style=STYLE, about=about, summary=summary(explained), rows=rows)
