"""The HTML page: foreign text stays text, nothing is fetched, and the same records give the same bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from board_records import HOSTILE, UNUSUAL, baseline, record, sampled, write

from harness import pages
from harness.board import board, details, page
from harness.names import printable
from harness.records import ledger
from harness.records.record import Record

VOID = {"wbr", "meta", "input", "br"}


class Reader(HTMLParser):
    """Collects tags with their attributes, the text, and the content of script and style elements.

    Attributes:
        tags: how often each tag and attribute name occurs.
        values: every attribute value by attribute name.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.values: dict[str, list[str]] = {}
        self.text: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attributes:
            self.tags[f"{tag}@{name}"] += 1
            self.values.setdefault(name, []).append(value or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, f"</{tag}> out of place"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.raw:
            self.raw[self._open[-1]].append(data)
        else:
            self.text.append(data)

    def island(self) -> dict[str, Any]:
        """Return what the script of the page reads."""
        found: dict[str, Any] = json.loads("".join(self.raw["script"]).partition('"use strict"')[0])
        return found


def strings(value: Any) -> list[str]:
    """Return every text inside JSON values, keys left out."""
    if isinstance(value, str):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for one in values for text in strings(one)]


def everywhere(name: str, folder: Path) -> list[Record]:
    """Return records that hold ``name`` wherever a record may hold foreign text, with sample answers of it."""
    more: dict[str, Any] = {
        "model": {"name": name, "revision": name, "digest": name, "dtype": name, "quantization": name},
        "tokenizer": {"digest": name},
        "task": {"name": name, "version": name, "docs_digest": name, "prompts_digest": name},
        "metric": {"name": name, "filter": name},
        "settings": {"system_instruction": name, "gen_kwargs": {name: name}, "model_args": {name: name}},
        "environment": dict.fromkeys(("python", "torch", "device", "platform", "harness_commit"), name),
        "batch_size": name, "command": name, "created": name, "stderr": 0.1,
    }  # fmt: skip
    answers = dict.fromkeys(("prompt", "answer", "target"), name)
    samples = sampled(folder, "samples_x.jsonl", {0: 1.0, 1: 0.0}, **answers)
    method = {"method": name, "options": {name: name, "x": name}, "plugin": {"name": name, "version": name}}
    return [
        baseline(0.5, **more, samples=samples),
        *(record(0.5 + seed / 9, seed=seed, **(more | method), samples=samples) for seed in range(2)),
        record(0.6, method="other", options={name: 1, "x": 2}, **more),
        record(0.9, **(more | {"task": {"name": name, "version": "2", "docs_digest": "y"}, "settings": {"limit": 2}})),
    ]


def rendered(records: list[Record], folder: Path) -> str:
    reading = ledger.read(write(folder / "records.jsonl", records))
    assert not reading.problems
    return page.render(board.build_reading(reading))


def surrogate_free(name: str) -> str:
    """Return what a record file can hold: a lone surrogate has no UTF-8."""
    return name.replace("\ud83d", "�")


@pytest.mark.parametrize("name", [*map(surrogate_free, HOSTILE), *UNUSUAL], ids=ascii)
def test_hostile_text_adds_no_tag_and_no_attribute_and_round_trips(name: str, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = Reader(rendered(everywhere("plain", tmp_path / "plain"), tmp_path / "plain"))
    text = rendered(everywhere(name, tmp_path), tmp_path)
    found = Reader(text)
    # The list of a select, the ticks of an axis and places to break a line may differ in number; nothing else may, and no kind.
    assert set(found.tags) - {"wbr"} == set(plain.tags) - {"wbr"}
    counted = {tag for tag in plain.tags if tag.split("@")[0] not in {"line", "text", "option", "wbr"}}
    assert {tag: found.tags[tag] for tag in counted} == {tag: plain.tags[tag] for tag in counted}
    shown = printable(name)
    assert any(shown in one for one in found.text)
    held = strings(found.island())
    assert shown in held, "a name"
    assert details.text_lines(name) in held, "a sample answer"
    assert all(character in "\n\xa0" or character.isprintable() for one in held for character in one)
    links = [value for name in ("href", "src", "action", "xlink:href") for value in found.values.get(name, [])]
    assert links == ["#tables", "#t0", "#t1"]
    assert not [name for name in found.values if name.startswith("on") or name == "style"]


@pytest.mark.parametrize("weakness", ["no escaping", "no escaping in the island"])
def test_a_page_that_does_not_escape_would_be_seen(
    weakness: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jinja2

    if weakness == "no escaping":
        real = jinja2.Environment
        monkeypatch.setattr(jinja2, "Environment", lambda **settings: real(**settings | {"autoescape": False}))
    else:
        monkeypatch.setattr(pages, "json_island", json.dumps)
    (tmp_path / "plain").mkdir()
    plain = Reader(rendered(everywhere("plain", tmp_path / "plain"), tmp_path / "plain"))
    try:
        found = Reader(rendered(everywhere("</script><b onclick=x>", tmp_path), tmp_path)).tags
    except AssertionError:
        return  # tags that do not close
    assert set(found) != set(plain.tags)


def test_the_policy_allows_this_script_and_this_style_and_nothing_else(tmp_path: Path) -> None:
    found = Reader(rendered([baseline(), record()], tmp_path))
    [policy] = [value for value in found.values["content"] if "default-src" in value]
    assert policy.startswith("default-src 'none'; ")
    for kind, text in (("style", found.raw["style"][0]), ("script", found.raw["script"][-1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy and "http" not in policy


def test_the_island_ends_no_script_whatever_it_holds() -> None:
    for text in [*HOSTILE, "\u2028\u2029<>&"]:
        island = pages.json_island({"x": text, text: 1})
        assert not re.search("[<>&\u2028\u2029]", island)
        assert json.loads(island) == {"x": text, text: 1}


def test_a_click_finds_options_command_environment_and_answers_of_each_row(tmp_path: Path) -> None:
    samples = sampled(tmp_path, "samples_x.jsonl", {0: 1.0, 1: 0.0}, prompt="Who?\nSay.", answer="Me", target="You")
    records = [
        record(
            0.5, seed=seed, options={"steps": 7, "file": None}, command=f"harness eval --seed {seed}",
            environment={"torch": "2.9"}, samples=samples,
        )
        for seed in range(2)
    ]  # fmt: skip
    island = Reader(rendered(records, tmp_path)).island()
    [row] = island["tables"][0]["rows"]
    detail, pool = island["details"][row[2]], island["pool"]
    assert pool[detail["options"]] == [["steps", "7"], ["file", "null"]]
    assert [(title, pool[place]) for title, place in detail["commands"]] == [
        ("Command, seed 0", "harness eval --seed 0"),
        ("Command, seed 1", "harness eval --seed 1"),
    ]
    [[title, place]] = detail["environments"]
    assert title == "Environment" and ["torch", "2.9"] in pool[place]
    assert detail["examples"][0] == ["0", "Who?\nSay.", "Me", "You", "acc 1"]
    assert island["seeds"][str(row[2])] == [[["0", "0.5000"], ["1", "0.5000"]]]


def test_long_answers_are_cut_and_say_by_how_much(tmp_path: Path) -> None:
    samples = sampled(tmp_path, "samples_x.jsonl", {0: 1.0}, prompt="p" * 5000, answer="a" * 5000)
    island = Reader(rendered([record(1.0, samples=samples)], tmp_path)).island()
    _, prompt, answer, *_ = island["details"][0]["examples"][0]
    assert len(prompt) < 700 and "[…4400 characters…]" in prompt
    assert len(answer) < 400 and "[…4700 characters…]" in answer


def test_a_page_of_no_records_says_so() -> None:
    text = page.render(board.build([]))
    assert "No records yet." in text and "Nothing: 0 records" in text


def test_nothing_is_dropped_silently(tmp_path: Path) -> None:
    records = [
        baseline(0.5), baseline(0.6), record(None, method="dead", counts={"not_finite": 4}),
        record(0.5, method="cut", counts={"requests": 10, "truncated_requests": 9}),
        record(0.5, settings={"limit": 5}, task={"docs_digest": "less"}),
    ]  # fmt: skip
    file = write(tmp_path / "records.jsonl", records)
    with file.open("a", encoding="utf-8") as lines:
        lines.write("broken\n")
    text = "".join(Reader(page.render(board.build_reading(ledger.read(file)))).text)
    for said in (
        "1 line could not be read as a record:",
        "records.jsonl, line 6",
        "1 record replaced by a later one of the same measurement, 1 of them with another value",
        "1 score not ranked: no score",
        "1 score not ranked: cut to fit the context",
        "1 row not ranked: only part of the task was asked",
        "no score: 4 requests gave no finite number",
        "cut to fit the context: 9 of 10 requests",
    ):
        assert said in text, said


def test_rows_beyond_the_first_are_in_the_island_and_a_button_leads_to_them(tmp_path: Path) -> None:
    found = Reader(rendered([record(0.5, method=f"m{n}") for n in range(page.FIRST_ROWS + 1)], tmp_path))
    in_summary = 1 + page.FIRST_ROWS + 1
    assert found.tags["tr"] == in_summary + 1 + page.FIRST_ROWS
    [table] = found.island()["tables"]
    assert len(table["rows"]) == page.FIRST_ROWS + 1
    assert found.tags["button@hidden"] == 0


def test_no_clock_and_no_path_reaches_the_page(tmp_path: Path) -> None:
    text = rendered([baseline(created="1970-01-01T00:00:00Z"), record(created="2100-12-31T23:59:59Z")], tmp_path)
    assert "1970-01-01 to 2100-12-31" in text
    assert str(tmp_path) not in text


ENVIRONMENTS = [
    {"LC_ALL": "C", "TZ": "UTC"},
    {"LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati"},
    {"LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Kathmandu"},
    {"PYTHONUTF8": "0", "LC_ALL": "C", "TZ": "America/St_Johns"},
    {"PYTHONHASHSEED": "1", "LANG": "ar_EG.UTF-8", "TZ": "Asia/Tokyo"},
    {"PYTHONHASHSEED": "2", "LC_ALL": "POSIX", "TZ": "Australia/Lord_Howe", "PYTHONIOENCODING": "latin-1"},
]


def test_six_locales_and_time_zones_give_the_same_bytes(tmp_path: Path) -> None:
    name = "Größe ışık 日本語"
    write(tmp_path / "records.jsonl", everywhere(name, tmp_path))
    digests = set()
    for number, settings in enumerate(ENVIRONMENTS):
        files = [tmp_path / f"{number}.md", tmp_path / f"{number}.html"]
        words = [sys.executable, "-m", "harness.cli", "leaderboard", str(tmp_path / "records.jsonl")]
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHONUTF8", "TZ"))
        }
        for file in files:
            words += ["-o", str(file)]
        done = subprocess.run(
            words, env=clean | settings, capture_output=True, text=True, errors="replace", timeout=120, check=False
        )
        assert done.returncode == 1 and done.stderr.count("its sample file holds 2 documents") == 2, "of another size"
        digests.add(hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest())
    assert len(digests) == 1


def test_files_in_another_order_of_creation_give_the_same_bytes(tmp_path: Path) -> None:
    records = {"a": baseline(0.5, stderr=0.1), "b": record(0.6, stderr=0.1), "c": record(0.7, method="n", stderr=0.1)}
    made = []
    for number, order in enumerate((["a", "b", "c"], ["c", "b", "a"])):
        folder = tmp_path / str(number)
        for name in order:
            write(folder / f"{name}.jsonl", [records[name]])
        made.append(page.render(board.build_reading(ledger.read(folder))))
    assert made[0] == made[1]
