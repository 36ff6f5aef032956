"""A leaderboard's folder has one page a plugin and one that leads to them: whole tables, the same bytes everywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from board_records import HOSTILE, baseline, record
from test_page import Reader

from harness.board import board, index, page, published
from harness.records import ledger
from harness.records.record import Record


def two_plugins() -> list[Record]:
    """Return a task both plugins were asked, one that each alone was asked, and one of the untouched model."""
    first, second, third = ({"name": name, "docs_digest": name} for name in ("first", "second", "third"))
    return [
        baseline(0.5, stderr=0.01), record(0.8, stderr=0.01), record(0.2, stderr=0.01, method="n", plugin={"name": "q"}),
        baseline(0.5, task=first), record(0.6, task=first),
        baseline(0.5, task=second), record(0.6, task=second, method="n", plugin={"name": "q"}, settings={"limit": None}),
        baseline(0.5, task=third),
    ]  # fmt: skip


def folder_of(records: list[Record], folder: Path) -> Path:
    ledger.append(folder / "records" / "p.jsonl", records)
    published.render(folder)
    return folder


def tasks(chapter: index.Chapter) -> list[str]:
    return [table.first.task.name for table in chapter.board.tables]


def test_each_plugin_has_the_tables_it_stands_in_with_all_their_rows() -> None:
    built = board.build(two_plugins())
    chapters = {chapter.title: chapter for chapter in index.chapters(built)}
    assert {title: sorted(tasks(chapter)) for title, chapter in chapters.items()} == {
        "p": ["first", "t"], "q": ["second", "t"], "without a plugin": ["third"],
    }  # fmt: skip
    for chapter in chapters.values():
        assert all(any(table is one for one in built.tables) for table in chapter.board.tables), "ranks are the board's"
    shared = next(table for table in chapters["q"].board.tables if table.first.task.name == "t")
    assert [row.label for row in shared.rows] == ["baseline", "p:m", "q:n"]


def test_the_untouched_model_stands_where_it_is_compared_with(tmp_path: Path) -> None:
    folder = folder_of(two_plugins(), tmp_path)
    for name in ("p", "q"):
        text = (folder / "pages" / f"{name}.html").read_text(encoding="utf-8")
        assert text.count('<tr class="baseline"') == 3, "in two tables, and in the summary"
        assert "+0.3000 ▲" in text and "-0.3000 ▼" in text, "the differences to it"


def test_the_index_leads_to_every_page_and_each_page_back(tmp_path: Path) -> None:
    folder = folder_of(two_plugins(), tmp_path)
    text = (folder / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'href="([^"]*)"', text)
    assert {folder / link.partition("#")[0] for link in links} == set((folder / "pages").iterdir())
    assert {link.partition("#")[2] for link in links} == {"", "t0", "t1"}, "each task of the summary leads to its table"
    for path in (folder / "pages").iterdir():
        home = Reader(path.read_text(encoding="utf-8")).values["href"]
        assert [(path.parent / link).resolve() for link in home if not link.startswith("#")] == [folder / "index.html"]
    assert "8 records · 4 tasks · 1 model · 2 methods" in text
    assert "5 records · 2 tasks · 1 model · 2 methods" in text


def test_what_no_table_shows_is_told_by_the_index_and_what_has_no_rank_by_its_page(tmp_path: Path) -> None:
    cut = record(0.9, method="cut", counts={"docs": 100, "requests": 100, "truncated_requests": 50})
    folder = folder_of([*two_plugins(), cut, record(0.8, stderr=0.01)], tmp_path)
    index_text, p, q = (
        (folder / name).read_text(encoding="utf-8") for name in ("index.html", "pages/p.html", "pages/q.html")
    )
    assert "1 record replaced by a later one" in index_text and "1 record replaced" not in p + q
    assert all("1 score not ranked" in text for text in (index_text, p, q)), "the table stands on both pages"


def test_a_page_that_no_record_gives_any_more_goes(tmp_path: Path) -> None:
    folder = folder_of(two_plugins(), tmp_path)
    (folder / "pages" / "gone.html").write_text(f"old. {published.NOTE}", encoding="utf-8")
    (folder / "pages" / "own.html").write_text("of somebody's own", encoding="utf-8")
    (folder / "pages" / "mine.txt").write_text("mine", encoding="utf-8")
    published.render(folder)
    assert sorted(path.name for path in (folder / "pages").glob("[!w]*")) == [
        "mine.txt",
        "own.html",
        "p.html",
        "q.html",
    ]


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\ud83d" not in name], ids=ascii)
def test_a_plugin_s_name_is_text_and_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    folder = folder_of([baseline(0.5), record(0.6, plugin={"name": name})], tmp_path)
    plain = folder_of([baseline(0.5), record(0.6, plugin={"name": "plain"})], tmp_path / "plain")
    found, expected = (Reader((one / "index.html").read_text(encoding="utf-8")) for one in (folder, plain))
    assert {**found.tags, "wbr": 0} == {**expected.tags, "wbr": 0}, "but for places to break a line"
    *_, link = found.values["href"]
    assert {one.partition("#")[0] for one in found.values["href"]} == {link}
    assert re.fullmatch(r"pages/[A-Za-z0-9._-]{1,105}\.html", link) and ".." not in link
    assert (folder / link).is_file()


def test_no_records_give_an_index_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    assert list(published.pages(tmp_path)) == ["README.md", "index.html"]
    assert "No records yet." in published.pages(tmp_path)["index.html"]


def test_the_pages_fetch_nothing_and_the_index_runs_nothing(tmp_path: Path) -> None:
    for name, text in published.pages(folder_of(two_plugins(), tmp_path)).items():
        if name.endswith(".html"):
            assert any(value.startswith("default-src 'none'; ") for value in Reader(text).values["content"])
            assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert "<script" not in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_the_same_records_give_the_same_bytes_whatever_the_clock_and_the_language(tmp_path: Path) -> None:
    folder = folder_of(two_plugins(), tmp_path)
    code = (
        "import hashlib, json, sys; from pathlib import Path; from harness.board import published;"
        "made = published.pages(Path(sys.argv[1]));"
        "print(json.dumps({n: hashlib.sha256(t.encode()).hexdigest() for n, t in made.items()}))"
    )
    seen = set()
    for environment in (
        {"LC_ALL": "C", "TZ": "UTC"},
        {"LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7"},
    ):
        command = [sys.executable, "-X", "utf8", "-c", code, str(folder)]
        run = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
        seen.add(run.stdout)
    assert len(seen) == 1


def test_one_page_of_everything_is_what_a_file_gets(tmp_path: Path) -> None:
    text = page.render(board.build(two_plugins()))
    assert "<h1><bdi>Leaderboard</bdi></h1>" in text and "All plugins" not in text
    assert text.count("<section") == 5, "the summary, and four tables"
