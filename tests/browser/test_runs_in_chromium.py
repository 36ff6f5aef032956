"""Pages of runs in a real browser: keys, filters, links, what differs marked, on a phone and a wide screen, light and dark.

``SCREENSHOTS=FOLDER`` keeps the pictures.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import CONTRASTS, HANDLERS, Browser, installed
from compared_runs import write_run
from generated_runs import answer, write_generated

from harness.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("chromium"),
    pytest.mark.skipif(installed() is None, reason="no Chromium is installed (Debian: apt-get install chromium)"),
]
HOSTILE = "</script><img src=x onerror=alert(1)> \u202e\u05e9\u05dc\u05d5\u05dd"
# Document 1 was lost, 3 was won; of 4 the answer alone changed; 0 and 2 are the same on both sides.
FIRST = [
    answer("it is 42", none="42"), answer("so 42", none="42"), answer("it is 7", none="7"),
    answer("the sum is 6 then", none="6"),
    answer("about 8", none="8"), answer(HOSTILE, none="9"),
]  # fmt: skip
SECOND = [
    answer("it is 42", none="42"), answer("so 41", none="41"), answer("it is 7", none="7"),
    answer("the sum is 42 then", none="42"),
    answer("nearly 9", none="9"), answer(HOSTILE, none="9"),
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(autouse=True)
def _as_it_was(browser: Browser) -> None:
    browser.resize(1300, 900)
    browser.messages.clear()
    browser.requests.clear()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two runs on a task that generates and one of choices."""
    folder = tmp_path_factory.mktemp("pair")
    write_generated(folder / "r", "baseline", FIRST)
    write_generated(folder / "r", "m", SECOND)
    write_run(folder / "r", {"t ask%": {"acc": [1.0, 0.0, 0.0], "acc_norm": [1.0, 1.0, 0.0]}})
    write_run(folder / "r", {"t ask%": {"acc": [0.0, 0.0, 0.0], "acc_norm": [1.0, 0.0, 0.0]}}, method="m")
    assert main(["compare", "m@baseline", "--records", str(folder / "r"), "--html", str(folder / "page.html")]) == 0
    return folder / "page.html"


def show(browser: Browser, file: Path, fragment: str = "") -> None:
    """Open a page anew and wait until a document is shown."""
    browser.open(Path("/dev/null"))
    browser.requests.clear()
    browser.messages.clear()
    browser.open(file, fragment)
    wait(browser, "document.documentElement.dataset.read")


def wait(browser: Browser, script: str) -> Any:
    """Return what a script gives as soon as it gives something."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := browser.run(f"(() => {{ try {{ return {script}; }} catch {{ return null; }} }})()"):
            return found
        time.sleep(0.02)
    raise TimeoutError(script)


def press(browser: Browser, *keys: str) -> str:
    """Press keys as on a keyboard, and return which document is shown then."""
    for key in keys:
        before = browser.run("document.documentElement.dataset.shown")
        browser.key(key, ord(key[0].upper()) if len(key) == 1 else {"Escape": 27, "ArrowDown": 40, "Enter": 13}[key],
                    shift=key.isupper() and len(key) == 1, text=key if len(key) == 1 else "")  # fmt: skip
        deadline = time.monotonic() + 0.5  # a key may show nothing new
        while time.monotonic() < deadline and browser.run("document.documentElement.dataset.shown") == before:
            time.sleep(0.02)
    return str(browser.run("document.documentElement.dataset.shown"))


def listed(browser: Browser) -> list[str]:
    """Return the numbers of the documents in the list, in its order."""
    return list(browser.run("[...document.querySelectorAll('#tall .row .id')].map((one) => one.textContent)"))


def choose(browser: Browser, name: str, value: str) -> None:
    browser.run(
        f"(() => {{ const one = document.getElementById({json.dumps(name)}); one.value = {json.dumps(value)};"
        "one.dispatchEvent(new Event(one.type === 'search' ? 'input' : 'change', { bubbles: true })); })()"
    )


def keep(browser: Browser, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.screenshot(Path(folder) / f"{name}.png")


def test_flips_come_first_and_the_page_asks_for_nothing(browser: Browser, pair: Path) -> None:
    """What was lost, what was won, other answers, the rest; one file was read, and nothing was complained of."""
    show(browser, pair)
    assert listed(browser) == ["1", "3", "4", "0", "2", "5"]
    marks = browser.run("[...document.querySelectorAll('#tall .mark')].map((one) => one.textContent)")
    assert marks == ["✓→✗ ▼", "✗→✓ ▲", "✗→✗ ≠", "✓→✓", "✗→✗", "✗→✗"]
    assert browser.run("document.documentElement.dataset.shown") == "#sums/1"
    assert browser.messages == [] and set(browser.requests) == {pair.resolve().as_uri()}
    keep(browser, "pair")


def test_keys_walk_through_the_documents(browser: Browser, pair: Path) -> None:
    """j and k, f and F for flips, w for wrong ones, c for other answers, t for the next task, / and ? and Escape."""
    show(browser, pair)
    assert press(browser, "j") == "#sums/3" and press(browser, "j", "ArrowDown") == "#sums/0"
    assert press(browser, "k") == "#sums/4" and press(browser, "F") == "#sums/3" and press(browser, "F") == "#sums/1"
    assert press(browser, "f") == "#sums/3" and press(browser, "f") == "#sums/3"
    assert browser.run("document.getElementById('count').textContent") == "no further flip"
    assert press(browser, "c") == "#sums/4" and press(browser, "w") == "#sums/2"
    press(browser, "/")
    assert browser.run("document.activeElement.id") == "query"
    browser.type("jjj")
    assert browser.run("document.getElementById('query').value") == "jjj"
    press(browser, "Escape")
    choose(browser, "query", "")
    press(browser, "?")
    assert browser.run("document.getElementById('keys').open")
    press(browser, "Escape")
    wait(browser, "!document.getElementById('keys').open")
    assert press(browser, "t") == "#t%20ask%25/0"


def test_search_and_filters_narrow_the_list(browser: Browser, pair: Path) -> None:
    """Words are found in raw answers, too, in any order; #4 is document 4; the filters say how many there are."""
    show(browser, pair)
    choose(browser, "query", "then SUM")
    assert listed(browser) == ["3"]
    choose(browser, "query", "question 2?")
    assert listed(browser) == ["2"]
    choose(browser, "query", "#4")
    assert listed(browser) == ["4"]
    choose(browser, "query", "no such words")
    assert listed(browser) == [] and "No document fits." in browser.run("document.getElementById('tall').textContent")
    choose(browser, "query", "")
    options = browser.run("[...document.getElementById('show').options].map((one) => one.textContent)")
    assert options[:6] == [
        "all (6)",
        "flips (2)",
        "right → wrong (1)",
        "wrong → right (1)",
        "answer changed (3)",
        "score better (1)",
    ]
    for name, expected in (
        ("flips", "1 3"),
        ("changed", "1 3 4"),
        ("wrong", "1 4 2 5"),
        ("right", "3 0"),
        ("lost", "1"),
    ):
        choose(browser, "show", name)
        assert " ".join(listed(browser)) == expected, name
    assert browser.run("document.getElementById('count').textContent") == "1 of 6 documents"


def test_a_link_opens_its_document(browser: Browser, pair: Path) -> None:
    """The address names task and document, of a task with odd signs in its name, too; walking on changes it."""
    show(browser, pair, "#t%20ask%25/2")
    assert browser.run("document.documentElement.dataset.shown") == "#t%20ask%25/2"
    assert "Question t ask% 2?" in browser.run("document.getElementById('document').textContent")
    browser.run("location.hash = '#sums/4'")
    wait(browser, "document.documentElement.dataset.shown === '#sums/4'")
    press(browser, "k")
    assert browser.run("location.hash") == "#sums/3"


def test_what_answers_do_not_share_is_marked_word_by_word(browser: Browser, pair: Path) -> None:
    """Struck through on the first side, underlined on the second, and nothing else of the text."""
    show(browser, pair, "#sums/3")
    marked = "[...document.querySelectorAll('NAME')].map((one) => one.textContent)"
    assert browser.run(marked.replace("NAME", "del")) == ["6", "6"]  # the raw answer, and the filter's
    assert browser.run(marked.replace("NAME", "ins")) == ["42", "42"]
    assert "the sum is 42 then" in browser.run("document.getElementById('document').textContent")
    show(browser, pair, "#sums/0")
    assert browser.run(marked.replace("NAME", "del, ins")) == []


def test_columns_can_be_chosen_and_sorted_and_another_metric_can_decide(browser: Browser, pair: Path) -> None:
    """Every metric is a column; a click on its head sorts by the difference of the sides."""
    show(browser, pair, "#t%20ask%25/0")
    heads = "[...document.querySelectorAll('#heads button.value')].map((one) => one.textContent)"
    assert browser.run(heads) == ["acc", "acc_norm"]
    browser.run("document.querySelectorAll('#columns input')[1].click()")
    assert browser.run(heads) == ["acc"]
    browser.run("document.querySelector('#heads button.value').click()")
    assert listed(browser) == ["1", "2", "0"]
    assert browser.run("document.querySelector('#tall .row:last-child .value').textContent") == "1 → 0"
    choose(browser, "decides", "1")
    assert listed(browser)[0] == "1"
    choose(browser, "show", "lost")
    assert listed(browser) == ["1"]


def test_hostile_text_is_text_and_colours_are_readable(browser: Browser, pair: Path) -> None:
    """No element comes out of an answer; every text has contrast enough, in light and in dark."""
    for scheme in ("light", "dark"):
        browser.resize(1300, 900, scheme=scheme)
        show(browser, pair, "#sums/5")
        assert browser.run("document.querySelectorAll('img').length") == 0
        assert "<img src=x onerror=alert(1)> <U+202E>שלום" in browser.run(
            "document.getElementById('document').textContent"
        )
        handlers = [name for name in browser.run(HANDLERS) if name != "style"]  # the script places rows by it
        assert handlers == []
        assert browser.run(CONTRASTS) == []
        keep(browser, f"pair_{scheme}")


@pytest.mark.parametrize("width", [420, 1300])
def test_nothing_is_wider_than_the_screen(browser: Browser, pair: Path, width: int) -> None:
    """On a phone the list leads to the document and back; on both the page does not scroll sideways."""
    browser.resize(width, 900, is_phone=width == 420)
    show(browser, pair)
    assert browser.run("document.documentElement.scrollWidth") <= width
    is_open = "getComputedStyle(document.getElementById('document')).display !== 'none'"
    assert browser.run(is_open) is (width == 1300)
    keep(browser, f"list_{width}")
    browser.run("document.querySelector('#tall .row:nth-child(2)').click()")
    wait(browser, "document.documentElement.dataset.shown === '#sums/3'")
    assert browser.run(is_open) and browser.run("document.getElementById('document').scrollWidth") <= width
    keep(browser, f"document_{width}")
    if width == 420:
        browser.run("document.querySelector('.back').click()")
        assert not browser.run(is_open)


def test_thousands_of_documents_scroll_and_are_searched_in_packed_blocks(browser: Browser, tmp_path: Path) -> None:
    """Few rows stand in the page whatever its length; a word of the last document is found; the keys reach the end."""
    shots = "This example stands before every question. " * 10
    rows = [answer(f"answer number{n} of many", none=str(n % 50)) | {"prompt": f"{shots}Ask{n}?"} for n in range(3_000)]
    write_generated(tmp_path / "r", "baseline", rows)
    assert main(["show", str(tmp_path / "r"), "--html", str(tmp_path / "page.html")]) == 0
    show(browser, tmp_path / "page.html")
    assert len(listed(browser)) < 60
    browser.run("document.getElementById('list').scrollTop = 1e9")
    wait(browser, "document.getElementById('d2999') !== null")
    choose(browser, "query", "ask2998?")
    assert listed(browser) == ["2998"]
    choose(browser, "query", "number2999")
    assert listed(browser) == ["2999"]
    browser.run("document.querySelector('#tall .row').click()")
    wait(browser, "document.documentElement.dataset.shown === '#sums/2999'")
    assert "answer number2999 of many" in browser.run("document.getElementById('document').textContent")
    assert browser.messages == []


def test_a_task_without_samples_says_so_and_another_can_be_chosen(browser: Browser, tmp_path: Path) -> None:
    """The sentence stands where the documents would; the list of tasks still works."""
    write_run(tmp_path / "r", {"bare": {"acc": [1.0, 0.0]}}, with_samples=False)
    assert main(["show", str(tmp_path / "r"), "--html", str(tmp_path / "page.html")]) == 0
    browser.open(tmp_path / "page.html")
    assert "No sample file of this task" in wait(browser, "document.getElementById('said').textContent")
    press(browser, "j", "f", "t")
    assert browser.messages == []
