"""A board to one page a plugin, and the page that leads to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness import pages
from harness.board import page
from harness.board.board import part
from harness.board.omissions import contradiction_sentences, omission_sentences
from harness.board.settings import Settings
from harness.board.tables import Board, Table
from harness.names import printable, safe_name

WITHOUT_PLUGIN = "without a plugin"
STYLE = "body { max-width: 1180px; margin: auto; padding: 20px 16px; }\n"
TEMPLATE = """\
{% extends "page" %}
{% block body %}
{% if about %}<p><bdi>{{ about }}</bdi></p>
{% endif %}
{% if own_links %}<p>
{% for name, address in own_links.items() %}
<a href="{{ address }}" rel="noreferrer"><bdi>{{ name }}</bdi></a>{% if not loop.last %} · {% endif %}
{% endfor %}
</p>
{% endif %}
<p class="muted">{{ summary }}</p>
{% if note %}
<p class="muted">{{ note }}</p>
{% endif %}
{% for sentence in warnings %}
<p class="warning"><bdi>{{ sentence }}</bdi></p>
{% endfor %}
<main>
{% if overview %}
<section id="summary">
{{ overview }}
</section>
{% endif %}
{% if links %}
<h2>By plugin</h2>
<ul>
{% for address, name, holds in links %}
<li><a class="open" href="{{ address }}"><bdi>{{ name }}</bdi></a> <span class="muted">{{ holds }}</span></li>
{% endfor %}
</ul>
{% else %}
<p>No records yet.</p>
{% endif %}
</main>
<footer>
<h2>Left out</h2>
{% if left_out %}
<ul>
{% for sentence in left_out %}
<li><bdi>{{ sentence }}</bdi></li>
{% endfor %}
</ul>
{% else %}
<p>Nothing: {{ summary }}.</p>
{% endif %}
</footer>
{% endblock %}
"""


@dataclass(frozen=True)
class Chapter:
    """One page: the tables in which a plugin has a row, whole, so that ranks and differences are those of the board."""

    file: str
    title: str
    board: Board


def chapters(board: Board) -> list[Chapter]:
    """Return a page for each plugin, by name.

    A table with rows of two plugins stands on the pages of both; those of runs without a plugin alone have a page, too.
    """
    tables: dict[str, list[Table]] = {}
    for table in board.tables:
        for plugin in _plugins(table):
            tables.setdefault(plugin, []).append(table)
    return [
        Chapter(f"{safe_name(plugin)}.html", printable(plugin), part(board, tables[plugin]))
        for plugin in sorted(tables)
    ]


def render(
    board: Board, chapters: Sequence[Chapter], *, folder: str, note: str = "", settings: Settings | None = None
) -> str:
    """Return the page that holds the summary and links to those in ``folder``; the same records give the same bytes."""
    settings = settings or Settings()
    places = {
        id(table): f"{folder}/{one.file}#t{number}" for one in chapters for number, table in enumerate(one.board.tables)
    }
    return pages.render(
        TEMPLATE,
        title=printable(settings.title),
        about=settings.about,
        own_links=settings.links,
        overview=page.overview(board, settings, [places[id(table)] for table in board.tables]),
        style=(page.TEMPLATES / "page.css").read_text(encoding="utf-8") + STYLE,
        summary=page.summary(board),
        links=[(f"{folder}/{one.file}", one.title, page.summary(one.board)) for one in chapters],
        warnings=contradiction_sentences(board.omissions),
        left_out=omission_sentences(board.omissions),
        note=note,
    )


def _plugins(table: Table) -> set[str]:
    """Return the plugins that have a row in a table."""
    return {row.first.plugin.name for row in table.rows if row.first.plugin.name is not None} or {WITHOUT_PLUGIN}
