"""Pages of one file: foreign text stays text, only the page's own style and script are allowed, long texts are cut."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from harness import pages

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "<!--",
    "]]>",
    "&lt;b&gt;",
)
TOKENS = """\
{% extends "page" %}
{% block body %}
<p>{% for token in tokens %}<span class="{{ token.kind }}">{{ token.text }}</span>{% endfor %}</p>
{% endblock %}
"""


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_a_page_of_tokens_takes_a_template_and_a_style() -> None:
    tokens = [{"kind": "new", "text": "straw"}, {"kind": "old", "text": "berry"}]
    style = ".new { color: green; }"
    page = pages.render(TOKENS, title="Tokens", style=style, tokens=tokens)
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")
    assert "<title>Tokens</title>" in page and "<h1>Tokens</h1>" in page
    assert '<p><span class="new">straw</span><span class="old">berry</span></p>' in page
    assert f"<style>{style}</style>" in page
    assert "<script" not in page


@pytest.mark.parametrize("text", HOSTILE)
def test_text_adds_no_element_and_no_attribute(text: str) -> None:
    plain = pages.render(TOKENS, title="x", tokens=[{"kind": "x", "text": "x"}])
    page = pages.render(TOKENS, title=text, tokens=[{"kind": text, "text": text}])
    for found in ("<", ">", '"', "'"):
        assert page.count(found) == plain.count(found)


def test_the_policy_allows_this_style_and_this_script_and_nothing_else() -> None:
    style, script = "p > b { color: red; }", "document.title = 'a < b' && 'c';"
    page = pages.render('{% extends "page" %}', title="x", style=style, script=script)
    assert f"<style>{style}</style>" in page and f"<script>{script}</script>" in page
    [policy] = re.findall('http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    allowed = f"style-src 'sha256-{digest(style)}'; script-src 'sha256-{digest(script)}'"
    assert policy.replace("&#39;", "'") == f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def test_a_name_that_the_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="tokens"):
        pages.render(TOKENS, title="x")


def test_files_of_one_name_make_a_page(tmp_path: Path) -> None:
    (tmp_path / "runs.html.j2").write_text(
        '<meta content="{{ policy }}"><style>{{ style }}</style><p>{{ said }}</p>{{ drawn }}<script>{{ script }}</script>'
    )
    (tmp_path / "runs.css").write_text("p { color: red; }")
    (tmp_path / "runs.js").write_text("let a = 1 < 2;")
    page = pages.render_files(tmp_path, "runs", said="<b>", drawn=pages.as_markup("<svg></svg>"))
    assert "<p>&lt;b&gt;</p><svg></svg><script>let a = 1 < 2;</script>" in page
    assert digest("let a = 1 < 2;") in page and digest("p { color: red; }") in page


def test_an_island_refuses_what_is_no_json_in_a_browser() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        pages.json_island([float("nan")])


def test_long_text_loses_its_middle_and_hidden_characters_are_seen() -> None:
    assert pages.readable("abc", 3) == "abc"
    assert pages.readable("a" * 5_000 + "b" * 5_000, 4) == "aa [...9,996 characters...] bb"
    assert pages.readable("one\n\ttwo\x1b\u202e", 100) == "one\n\ttwo␛" + pages.readable("\u202e", 9)
    assert "\u202e" not in pages.readable("\u202e", 9)


def test_shares_use_up_what_is_allowed_and_no_more() -> None:
    draw = random.Random(1)
    for _ in range(200):
        sizes = [draw.randint(0, 30) for _ in range(draw.randint(0, 6))]
        most = draw.randint(0, 80)
        given = pages.shares(sizes, most)
        assert sum(given) == min(most, sum(sizes))
        assert all(0 <= part <= size for part, size in zip(given, sizes, strict=True))
