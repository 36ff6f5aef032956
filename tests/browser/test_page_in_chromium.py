"""The HTML page in a real browser: by mouse, keyboard and screen reader, on a phone and a wide screen, light and dark.

``SCREENSHOTS=FOLDER`` keeps the pictures.
"""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from board_records import HOSTILE, UNUSUAL, baseline, docs_digest, record, sampled, write
from chromium import CONTRASTS, HANDLERS, Browser, installed

from harness.board import board, page
from harness.names import printable
from harness.records import ledger

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("chromium"),
    pytest.mark.skipif(installed() is None, reason="no Chromium is installed (Debian: apt-get install chromium)"),
]
SCREENS = {"wide": (1280, 900, False), "phone": (390, 844, True)}
TAGS = """
html head meta title style body a header h1 h2 h3 h4 p noscript div label input select option output main section details
summary bdi span table caption thead tbody tr th td button figure figcaption svg desc text line path circle dialog form footer
ul li strong b wbr script dl dt dd pre
"""
CLICK_ALL = """
[...document.querySelectorAll("tbody .open")].map((open) => {
  open.click();
  const shown = document.getElementById("details-content").textContent;
  document.getElementById("details").close();
  return [open.textContent, shown];
})
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(autouse=True)
def _as_it_was(browser: Browser) -> None:
    browser.resize(1280, 900)
    browser.send("Emulation.setScriptExecutionDisabled", value=False)
    browser.messages.clear()
    browser.requests.clear()


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it: seeds, several models, samples, partial, invalid and repeated records."""
    folder = tmp_path_factory.mktemp("rich")
    records = []
    same = {"docs_digest": docs_digest(dict.fromkeys(range(100), 0.0))}
    for number, model in enumerate(("small", "large")):
        for method, gain in (("baseline", 0.0), ("split", 0.25), ("drop", -0.3), ("same", 0.01)):
            for seed in range(1 if method == "baseline" else 3):
                right = round(100 * (0.4 + 0.2 * number + gain)) + seed
                scores = {n: float((n * 37) % 100 < right) for n in range(100)}
                name = f"samples_{model}_{method}_{seed}.jsonl"
                samples = sampled(
                    folder, name, scores, prompt=f"Question for {model}?\nAnswer:", answer="yes", target="no"
                )
                records += [
                    record(
                        right / 100, method=method, seed=seed, stderr=statistics.stdev(scores.values()) / 10,
                        samples=samples if metric == "acc" else None,
                        counts={"docs": 100}, task=same,
                        options={} if method == "baseline" else {"steps": 10 * number + 5, "file": None},
                        model={"name": model, "digest": model, "parameters": 10**8, "weights_changed": 10**6 if gain else None,
                               "quantization": ("none", "nf4")[number], "bits_per_weight": (32.0, 4.5)[number]},
                        cost={"apply_seconds": 100.0 * (gain != 0), "evaluate_seconds": 20.0 * (1 + number) + seed,
                              "evaluate_peak_bytes": 10**9},
                        metric={"name": metric}, command=f"harness eval --tasks t --plugin {method} --seed {seed}",
                    )
                    for metric in ("acc", "acc_norm")[: 1 if method == "same" else 2]
                ]  # fmt: skip
    records += [
        baseline(0.7, stderr=0.1, settings={"limit": 5}, task={"docs_digest": "less"}),
        record(None, method="dead", counts={"docs": 100, "not_finite": 100}, task=same),
        record(0.99, method="cut", counts={"docs": 100, "requests": 100, "truncated_requests": 50}, task=same),
        records[-1],
    ]
    return _page(folder, records)


def _page(folder: Path, records: list[Any]) -> Path:
    reading = ledger.read(write(folder / "records.jsonl", records))
    file = folder / "index.html"
    file.write_text(page.render(board.build_reading(reading)), encoding="utf-8")
    return file


def texts(browser: Browser, selector: str) -> list[str]:
    """Return what the visible elements show."""
    script = f"[...document.querySelectorAll({json.dumps(selector)})].filter((n) => n.checkVisibility()).map((n) => n.innerText)"
    return list(browser.run(script))


def settle(browser: Browser) -> None:
    """Wait until the page has drawn what it was told: tables far down are written when they come near."""
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))")


def show(browser: Browser, file: Path, *, whole: bool = False) -> None:
    """Open a page, its tables alone or ``whole``, and wait until it is drawn: text of what is not drawn yet reads as empty."""
    browser.open(file)
    if not whole:
        browser.run("document.getElementById('summary')?.remove()")
    settle(browser)


def quiet(browser: Browser, file: Path) -> None:
    """Assert that the page asked for nothing and complained of nothing."""
    assert browser.messages == []
    assert set(browser.requests) == {file.resolve().as_uri()}


def keep(browser: Browser, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.screenshot(Path(folder) / f"{name}.png")


def test_the_script_writes_the_rows_that_the_page_came_with(browser: Browser, rich: Path) -> None:
    read = "[...document.querySelectorAll('tbody')].map((n) => n.innerHTML.replace(/>\\s+</g, '><').trim())"
    show(browser, rich)
    before = browser.run(read)
    browser.run(
        "for (const pick of document.querySelectorAll('select.metric')) for (const value of ['1', '0']) "
        "{ pick.value = value; pick.dispatchEvent(new Event('change', { bubbles: true })); }"
    )
    assert len(before) == 2 and all("<tr" in rows for rows in before)
    assert browser.run(read)[0] == before[0]
    quiet(browser, rich)


def test_without_a_script_the_tables_are_there_and_what_is_missing_is_said(browser: Browser, rich: Path) -> None:
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(rich)
    browser.send("Emulation.setScriptExecutionDisabled", value=False)
    assert "need JavaScript" in texts(browser, "noscript")[0]
    assert len(texts(browser, "tbody tr")) >= 11


def test_filtering_leaves_matching_rows_and_tells_their_number(browser: Browser, rich: Path) -> None:
    show(browser, rich)
    everything = len(texts(browser, "tbody tr"))
    browser.run("document.getElementById('query').focus()")
    browser.type("SPLIT large")
    assert [text.split("\n")[0] for text in texts(browser, "tbody th .open")] == ["p:split"]
    assert texts(browser, "#count") == ["1 row in 1 table"]
    assert "1 of 10 rows" in texts(browser, "summary")[0]
    browser.type(" nowhere")
    assert texts(browser, "#count") == ["no row matches"] and texts(browser, "section") == []
    browser.run("const q = document.getElementById('query'); q.value = ''; q.dispatchEvent(new Event('input'))")
    settle(browser)
    assert len(texts(browser, "tbody tr")) == everything
    browser.run("const m = document.getElementById('model'); m.value = 'large'; m.dispatchEvent(new Event('input'))")
    settle(browser)
    assert set(texts(browser, "td.model")) == {"large"}
    browser.run("document.getElementById('sound').click()")
    assert "–" not in texts(browser, "td.rank")
    quiet(browser, rich)


def test_sorting_by_each_column_and_what_is_not_ranked_stays_last(browser: Browser, rich: Path) -> None:
    show(browser, rich)
    head = "document.querySelectorAll('section')[0].querySelectorAll('thead button')[{}].click()"
    cells = "[...document.querySelector('section tbody').rows].map((r) => r.cells[{}])"
    read = cells + ".map((c) => c.querySelector('.main, .open, bdi').textContent)"
    assert browser.run("document.querySelector('th.score').getAttribute('aria-sort')") == "descending"
    for column in range(10):
        browser.run(head.format(column))
        first = browser.run(read.format(column))
        browser.run(head.format(column))
        second = browser.run(read.format(column))
        assert sorted(first) == sorted(second) and (first != second or len(set(first)) <= 2)
        assert browser.run("document.querySelectorAll('section')[0].querySelectorAll('[aria-sort]').length") == 1
    browser.run(head.format(4))
    for _ in range(2):
        assert browser.run(
            "[...document.querySelector('section tbody').rows].slice(-2).every((r) => r.className === 'unranked')"
        )
        browser.run(head.format(4))
    quiet(browser, rich)


def test_another_metric_changes_column_rows_and_plots(browser: Browser, rich: Path) -> None:
    show(browser, rich)
    browser.run(
        "const s = document.querySelector('select.metric'); s.value = '1'; s.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    assert browser.run("document.querySelector('th.score').innerText.trim()").startswith("acc_norm ↑")
    assert all("acc_norm" in text for text in texts(browser, "section:first-of-type figcaption"))
    same = [row for row in texts(browser, "section:first-of-type tbody tr") if "same" in row]
    assert len(same) == 2 and "0." not in same[0].replace("steps", ""), "a row without the metric shows no number"
    quiet(browser, rich)


def test_the_keyboard_reaches_sorting_and_details_and_comes_back(browser: Browser, rich: Path) -> None:
    show(browser, rich)
    active = "document.activeElement.{}"
    browser.key("Tab", 9)
    assert browser.run(active.format("className")) == "skip"
    for _ in range(60):
        browser.key("Tab", 9)
        if browser.run("document.activeElement.matches('tbody .open')"):
            break
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") != "none", "the focus is seen"
    name = browser.run(active.format("innerText"))
    browser.key("Enter", 13, text="\r")
    assert browser.run("document.getElementById('details').open")
    assert name in texts(browser, "#details-title")[0]
    browser.key("Escape", 27)
    assert not browser.run("document.getElementById('details').open")
    assert browser.run(active.format("innerText")) == name
    browser.run("document.querySelector('thead .seconds button').focus()")
    browser.key("Enter", 13, text="\r")
    assert browser.run("document.querySelector('th.seconds').getAttribute('aria-sort')") == "ascending"
    quiet(browser, rich)


def test_a_click_shows_options_command_environment_and_answers(browser: Browser, rich: Path) -> None:
    show(browser, rich)
    browser.run(
        "[...document.querySelectorAll('tbody tr')].find((r) => r.innerText.includes('split')).cells[3].click()"
    )
    [shown] = texts(browser, "#details-content")
    for said in ("steps", "harness eval --tasks t --plugin split --seed 2", "transformers", "Question for", "Sample answers",
                 "0: 0.", "1: 0.", "p\u00a0"):  # fmt: skip
        assert said in shown, said
    keep(browser, "details-wide")
    browser.run("document.querySelector('.close').click()")
    assert not browser.run("document.getElementById('details').open")
    quiet(browser, rich)


def test_a_screen_reader_is_told_tables_headers_states_and_plots(browser: Browser, rich: Path) -> None:
    show(browser, rich)
    nodes = [node for node in browser.accessibility() if not node.get("ignored")]
    named: dict[str, list[str]] = {}
    for node in nodes:
        named.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert "t: acc" in named["table"]
    assert {"Rank", "Method", "Model"} <= set(named["columnheader"])
    assert any("p:split" in name for name in named["rowheader"])
    assert named["status"] and named["search"] and named["main"]
    for role in ("button", "combobox", "searchbox", "checkbox", "image", "table", "region", "dialog", "heading"):
        assert all(name.strip() for name in named.get(role, [])), f"a {role} without a name"
    images = " ".join(named["image"])
    assert "difference to the baseline" in images and "Pareto front" in images and "by seed" in images
    sorted_ = [node for node in nodes if node["role"]["value"] == "columnheader" and "acc" in node["name"]["value"]]
    assert sorted_, "the sorted column is a column header"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_it_fits_the_screen_and_every_text_has_contrast(browser: Browser, rich: Path, screen: str, scheme: str) -> None:
    width, height, is_phone = SCREENS[screen]
    browser.resize(width, height, is_phone=is_phone, scheme=scheme)
    show(browser, rich, whole=True)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(CONTRASTS) == []
    dark = browser.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 60")
    assert dark == (scheme == "dark")
    keep(browser, f"board-{screen}-{scheme}")
    browser.run("document.querySelectorAll('tbody .open')[1].click()")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(CONTRASTS) == []
    keep(browser, f"details-{screen}-{scheme}")
    quiet(browser, rich)


def test_hostile_text_does_nothing_in_a_browser_and_reads_as_it_is(browser: Browser, tmp_path: Path) -> None:
    names = [name for name in [*HOSTILE, *UNUSUAL] if "\ud83d" not in name]
    records: list[Any] = []
    for number, name in enumerate(names):
        answers = dict.fromkeys(("prompt", "answer", "target"), name)
        samples = sampled(tmp_path, f"samples_{number}.jsonl", {0: 1.0, 1: 0.0}, **answers)
        records.append(
            record(
                0.5, method=name, options={name: name, "n": number}, plugin={"name": name}, samples=samples, command=name,
                model={"name": name}, task={"name": "t"}, stderr=0.1, environment={"platform": name},
            )
        )  # fmt: skip
        records.append(baseline(0.5, task={"name": name}, metric={"name": name}, stderr=0.1))
    file = _page(tmp_path, records)
    show(browser, file)
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    browser.run("[...document.querySelectorAll('.more')].filter((b) => !b.hidden).forEach((b) => b.click())")
    shown = browser.run(CLICK_ALL)
    for name in names:
        label = printable(name)
        [(_, content)] = [one for one in shown if one[0] == label and "Command" + label in one[1]][:1] or [(None, "")]
        assert content.count(label) >= 5, f"{label!r} does not read as it is"
    tags = set(browser.run("[...new Set([...document.querySelectorAll('*')].map((n) => n.localName))]"))
    assert tags <= set(TAGS.split())
    assert browser.run(HANDLERS) == []
    quiet(browser, file)


def test_the_policy_stops_what_would_get_in(browser: Browser, rich: Path) -> None:
    show(browser, rich)
    browser.run(
        "document.body.insertAdjacentHTML('beforeend', `<img src=https://evil.example/x onerror=\"window.bad = 1\">`);"
        "const s = document.createElement('script'); s.textContent = 'window.bad = 2'; document.body.append(s);"
        "new Promise((done) => setTimeout(done, 300))"
    )
    assert browser.run("window.bad === undefined")
    assert any("Content Security Policy" in message for message in browser.messages)


@pytest.mark.parametrize("screen", SCREENS)
def test_names_of_every_script_and_of_200_characters_stay_within_the_page(
    browser: Browser, tmp_path: Path, screen: str
) -> None:
    records = [baseline(0.5, stderr=0.1, task={"name": UNUSUAL[7]})]
    records += [
        record(
            0.5, method=name, plugin={"name": name}, options={"x": name}, stderr=0.1, model={"name": name},
            task={"name": UNUSUAL[7]}, metric={"name": UNUSUAL[7]}, command=name,
        )
        for name in UNUSUAL
    ]  # fmt: skip
    width, height, is_phone = SCREENS[screen]
    browser.resize(width, height, is_phone=is_phone)
    show(browser, _page(tmp_path, records))
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    keep(browser, f"names-{screen}")
    browser.run("document.querySelectorAll('tbody .open')[8].click()")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    keep(browser, f"names-details-{screen}")


def test_the_committed_board_shows_every_row(browser: Browser, tmp_path: Path) -> None:
    reading = ledger.read(ROOT / "leaderboards" / "records")
    built = board.build_reading(reading)
    file = tmp_path / "index.html"
    file.write_text(page.render(built), encoding="utf-8")
    show(browser, file)
    assert len(texts(browser, "section")) == len(built.tables)
    assert len(browser.run("[...document.querySelectorAll('tbody tr')].map(() => 1)")) == sum(
        len(table.rows) for table in built.tables
    )
    keep(browser, "committed-wide")
    quiet(browser, file)


def test_thousands_of_rows_come_in_portions_and_are_all_reached(browser: Browser, tmp_path: Path) -> None:
    file = _page(tmp_path, [record(n / 3000, method=f"m{n}", stderr=0.01) for n in range(3000)])
    show(browser, file)
    count: Callable[[], int] = lambda: int(browser.run("document.querySelectorAll('tbody tr').length"))  # noqa: E731
    assert count() == page.FIRST_ROWS
    browser.run("document.querySelector('.more').click()")
    assert count() == 5 * page.FIRST_ROWS
    browser.run("document.getElementById('query').focus()")
    browser.type("m2999")
    assert count() == 1 and re.match(r"1 row in 1 table", texts(browser, "#count")[0])
    quiet(browser, file)
