"""The commands of the tool-tokens plugin: calls counted and shown on a page, tools listed and called by hand."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.names import printable
from harness.run.evaluating import evaluate
from harness.run.run import Run
from harness.tasks.alignment import pairing
from harness_tool_tokens.__main__ import main
from harness_tool_tokens.report import page
from harness_tool_tokens.tools.pairing import call_counts
from harness_tool_tokens.tools.tool import Tool
from harness_tool_tokens.tools.toolbox import Toolbox

DUE = [{"tool": "multiply", "args": "2, 7", "result": "14"}, {"tool": "subtract", "args": "14, 5", "result": "9"}]
HOSTILE = [
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<!--<script>", "</style><b>x", "</bdi></dd></dl><h1>x",
    "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", "<base href=//evil>", "<meta http-equiv=refresh content=0>",
    '" onmouseover="alert(1)', "' autofocus onfocus='x", "{{ 7 * 7 }}", "{% raw %}", "&lt;b&gt;", "http://evil.example/",
    "[bold red]x[/]", "\x00\x01\x1b[31mred", "\x1b]8;;http://evil\x07x", "\u202egnp.exe", "\u2066x\u2069", "a\u200bb\ufeff",
    "a\u2028b", "\u05e9\u05dc\u05d5\u05dd", "__proto__", "a\nb\r\nc\td",
]  # fmt: skip
TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "main", "section", "div", "table", "thead",
    "tbody", "tr", "th", "td", "label", "select", "option", "output", "noscript", "span", "small", "b", "bdi", "article", "dl",
    "dt", "dd", "code", "i", "script",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "role", "tabindex", "aria-label", "aria-live", "scope", "hidden",
    "id", "value", "data-section", "data-right", "data-outcomes",
}  # fmt: skip
VOID = {"meta"}
MINE = """\
from harness_tool_tokens import tool


@tool(description="Tells how long a word is.", examples=["Q: How long is ant?\\nA: <length>(ant)=3"])
def length(word):
    print("counting")
    return len(word)


@tool(description="Halves a whole number.", examples=["<half>(4)=2", "<half>(6)=3"])
def half(number: int):
    if number % 2:
        raise ValueError("it is odd")
    return number // 2
"""
SUMS = """\
from datasets import Dataset


def make(**_):
    rows = []
    for first in (3, 20, 41):
        question = f"What is {first} and 4?"
        call = {"tool": "add", "args": f"{first}, 4", "result": str(first + 4)}
        told = {"procedure": "calls", "question": question, "prompts": "own", "calls": [call], "tools": None}
        rows.append({"question": question, "answer": str(first + 4), "tool_use": told})
    return {"test": Dataset.from_list(rows)}
"""
SUMS_TASK = """\
task: own_sums
custom_dataset: !function data.make
test_split: test
output_type: generate_until
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: answer
generation_kwargs:
  until: ["\\n\\n"]
  max_gen_toks: 24
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


def call(tool: str, at: int = 0, **more: Any) -> dict[str, Any]:
    """Return a call as a trace holds it; it fails with ``error`` or gives ``result``."""
    about = {"margin": 1.5, "arguments": "2, 7", "result": None, "error": None, "detail": "", "forced": ""}
    return {"tool": tool, "at": at, **about, "before": "", "after": "", **more}


def row(
    number: int, text: str, trace: Sequence[Any] | None = (), due: Sequence[Any] | None = DUE, **more: Any
) -> dict[str, Any]:
    """Return a row as ``harness eval`` writes it: without ``due`` the task tells no calls, without a trace no tools."""
    doc: dict[str, Any] = {"question": f"Question {number}?"}
    if due is not None:
        doc["tool_use"] = {"procedure": "calls", "question": doc["question"], "calls": list(due)}
    made = {
        "doc_id": number, "doc": doc, "target": "9", "arguments": {"gen_args_0": {"arg_0": f"Q: {doc['question']}\nA:"}},
        "resps": [[text]], "filtered_resps": [text], "filter": "none", "metrics": ["acc", "calls"], "doc_hash": f"hash-{number}",
        "acc": 0.0, "calls": 2.0,
    }  # fmt: skip
    return made | ({} if trace is None else {"traces": [list(trace)]}) | more


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(each) + "\n" for each in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def table(printed: str) -> dict[str, dict[str, str]]:
    """Return the cells of the first table that was printed, by tool and column."""
    lines = [
        [cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in printed.splitlines() if line[:1] in "│┃"
    ]
    [heads, *rows] = [line for line in lines if line]
    return {cells[0]: dict(zip(heads[1:], cells[1:], strict=True)) for cells in rows}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command in this process: exit status, standard output, standard error."""

    def running(*words: object) -> tuple[int, str, str]:
        try:
            status = main([str(word) for word in words])
        except SystemExit as error:
            status = int(error.code or 0)
        return (status, *capsys.readouterr())

    return running


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A sample file with a right answer, a wrong tool that fails, a false call, a missed one, and no call at all."""
    rows = [
        row(
            0,
            "2*7=14, 14-5=9",
            [call("multiply", 4, result="14", margin=2.0), call("subtract", 13, result="9")],
            acc=1.0,
        ),
        row(1, "2*7=14, 14/0=?", [call("multiply", 4, result="14"), call("divide", 13, error="zero_division")]),
        row(
            2,
            "14, 9, 1",
            [call("multiply", 0, margin=2), call("subtract", 4), call("add", 7, margin=None, forced="written")],
        ),
        row(3, "9", [call("subtract", 0, error="syntax", detail="never closed")]),
        row(4, "I do not know.", []),
    ]
    return write(tmp_path / "samples_sums_2026-01-02T03-04-05.678.jsonl", rows)


# Counting.


def test_pairs_give_the_counts_that_the_metrics_give() -> None:
    draw = random.Random(0)
    for _ in range(3000):
        due, called = ([draw.choice("abc") for _ in range(draw.randint(0, 7))] for _ in range(2))
        pairs = pairing(due, called)
        assert pairs == sorted(pairs) and all(len({*places}) == len(pairs) for places in zip(*pairs, strict=True))
        counts = call_counts([{"tool": tool} for tool in due], [{"tool": tool} for tool in called])
        same = sum(due[i] == called[j] for i, j in pairs)
        assert (same, len(pairs) - same) == (counts["right"], counts["wrong"])


def test_the_table_counts_by_tool_and_in_all(mixed: Path, run: Command) -> None:
    status, out, err = run("calls", mixed)
    found = table(out)
    assert (status, err) == (0, "")
    assert list(next(iter(found.values()))) == [
        "due", "calls", "right", "wrong tool", "missed", "false", "syntax", "zero_division", "mean margin",
    ]  # fmt: skip
    assert list(found) == ["multiply", "subtract", "add", "divide", "all"]
    assert [*found["multiply"].values()] == ["5", "3", "3", "0", "2", "0", "0", "0", "+1.83"]
    assert [*found["subtract"].values()] == ["5", "3", "3", "0", "1", "0", "1", "0", "+1.50"]
    assert [*found["divide"].values()] == ["0", "1", "0", "1", "0", "0", "0", "1", "+1.50"]
    assert [*found["add"].values()] == ["0", "1", "0", "0", "0", "1", "0", "0", ""]
    assert [*found["all"].values()] == ["10", "8", "6", "1", "3", "1", "1", "1", "+1.64"]
    assert "5 answers, 4 with calls. Most often called for another: divide for subtract (1×)." in out
    assert out.startswith(f"sums: {mixed.parent.name}")


def test_a_task_that_tells_no_right_calls_gets_calls_and_errors_only_and_counts_a_document_once(
    tmp_path: Path, run: Command
) -> None:
    trace = [call("add", 0, result="9"), call("divide", 1, error="domain")]
    rows = [row(n, "9", trace, None, filter=name) for name in ("strict-match", "flexible-extract") for n in range(3)]
    _, out, _ = run("calls", write(tmp_path / "samples_gsm8k.jsonl.gz", rows))
    assert [*table(out)["all"].items()] == [("calls", "6"), ("domain", "3"), ("mean margin", "+1.50")]
    assert "3 answers, 3 with calls. The task tells no right calls, so there are calls and errors only." in out


def test_answers_of_a_plain_model_count_as_without_calls(tmp_path: Path, run: Command) -> None:
    told = write(tmp_path / "samples_told.jsonl", [row(n, "9", None) for n in range(4)])
    _, out, _ = run("calls", told)
    assert [*table(out)["all"].values()] == ["8", "0", "0", "0", "8", "0", ""]
    assert "4 answers, 0 with calls." in out
    _, out, _ = run("calls", write(tmp_path / "samples_plain.jsonl", [row(0, "9", None, None)]))
    assert "1 answers, 0 with calls. The task tells no right calls" in out and "│" not in out


def test_each_of_several_answers_to_a_document_counts(tmp_path: Path, run: Command) -> None:
    several = row(0, "", DUE, resps=[["9", "10"]], traces=[[call("multiply")], [call("subtract"), call("subtract")]])
    _, out, _ = run("calls", write(tmp_path / "samples_x.jsonl", [several]))
    assert [*table(out)["all"].values()] == ["4", "3", "2", "1", "1", "0", "+1.50"]


def test_malformed_parts_of_rows_are_left_out(tmp_path: Path, run: Command) -> None:
    odd = {"tool": "add", "at": "x", "margin": "y", "error": ["z"], "result": {}}
    odder = {"tool": "add", "at": -5, "margin": float("nan"), "error": "new kind"}
    oddest = {"tool": "add", "at": 10**30, "margin": 10**400}
    broken: list[Any] = [3, None, {}, {"tool": 3}, odd, odder, oddest]
    rows = [
        row(0, "text", broken, [3, {}, {"tool": ["add"]}, {"tool": "add", "args": ["x"], "result": [1]}]),
        {**row(1, "text"), "doc": "text", "traces": "text"},
        {**row(2, "text"), "doc": {"tool_use": []}, "traces": [3]},
        {"resps": [["no number"]]}, {"resps": [["no number either"]]},
    ]  # fmt: skip
    status, out, _ = run("calls", write(tmp_path / "samples_x.jsonl", rows), "-o", tmp_path / "page.html")
    assert status == 0
    assert [*table(out)["all"].items()][1:] == [
        ("calls", "3"), ("right", "1"), ("wrong tool", "0"), ("missed", "0"), ("false", "2"), ("other", "2"), ("mean margin", ""),
    ]  # fmt: skip
    assert "5 answers, 1 with calls" in out


def test_thousands_of_calls_in_an_answer_take_no_thousands_of_seconds(tmp_path: Path, run: Command) -> None:
    due = [{"tool": f"t{n % 7}"} for n in range(20_000)]
    path = write(tmp_path / "samples_x.jsonl", [row(0, "text", [call(f"t{n % 5}") for n in range(20_000)], due)])
    status, out, _ = run("calls", path, "-o", tmp_path / "page.html")
    found = table(out)["all"]
    assert status == 0 and found["calls"] == found["due"] == "20,000"
    assert len((tmp_path / "page.html").read_bytes()) < 200_000


# Finding.


def test_nothing_to_count_is_told_in_a_sentence(tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("results", "x" * 300, "a\0b"):
        status, _, err = run("calls", *([] if name == "results" else [name]))
        assert status == 2 and f"no sample files at '{printable(name)}': there is no file or folder of that name" in err
    (tmp_path / "empty").mkdir()
    status, _, err = run("calls", "empty")
    assert (
        status == 2
        and "neither a file samples_*.jsonl or .jsonl.gz nor a record with one" in err
        and err.count("\n") == 1
    )
    choices = {"doc_id": 0, "doc": {}, "resps": [[["-1.0", "False"]], [["-2.0", "True"]]], "filter": "none"}
    status, _, err = run("calls", write(tmp_path / "samples_choices.jsonl", [choices]))
    assert status == 2 and "no generated answers in 1 sample file in" in err and "task of type generate_until" in err
    (tmp_path / "samples_bad.jsonl").write_text('{"doc_id": 0}\nnonsense\n', encoding="utf-8")
    status, _, err = run("calls", "samples_bad.jsonl")
    assert status == 2 and err.startswith("error: samples_bad.jsonl, line 2: ") and err.count("\n") == 1
    assert run("calls", "samples_bad.jsonl", "--most", "-1")[0] == 2


def test_a_broken_file_costs_only_its_own_table(mixed: Path, run: Command) -> None:
    (mixed.parent / "samples_bad.jsonl.gz").write_bytes(b"no gzip")
    write(mixed.parent / "samples_choice.jsonl", [{"doc_id": 0, "resps": [[["-1.0", "False"]]]}])
    status, out, err = run("calls", mixed.parent)
    assert status == 1 and "samples_bad.jsonl.gz, line 1" in err
    assert table(out)["all"]["calls"] == "8" and "Left out: 1 sample files without generated answers." in out


@pytest.fixture(scope="module")
def results(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder: the tiny model with tools, with right calls made for it, and without the method."""
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "tasks" / "data.py", [])
    (folder / "tasks" / "data.py").write_text(SUMS, encoding="utf-8")
    (folder / "tasks" / "own_sums.yaml").write_text(SUMS_TASK, encoding="utf-8")
    for options in ({"bias": 2.0, "max_calls": 3, "max_argument_tokens": 8}, {"variant": "oracle_call"}):
        evaluate(
            Run(
                tasks=("own_sums",),
                plugin="tool_tokens",
                method_args={"tools": ["arithmetic"], **options},
                model_args={"pretrained": str(tiny_model)},
                include_path=(str(folder / "tasks"),),
                output_path=folder / "results",
                with_baseline="variant" in options,
            )
        )
    return folder / "results"


def test_real_runs_are_counted_from_their_results_folder(results: Path, tmp_path: Path, run: Command) -> None:
    status, out, err = run("calls", results, "--output", tmp_path / "calls.html")
    assert (status, err) == (0, "")
    parts = re.split(r"^own_sums: ", out, flags=re.MULTILINE)[1:]
    assert len(parts) == 3
    oracle = table(next(part for part in parts if "variant=oracle_call" in part))
    assert [*oracle["add"].values()] == ["3", "3", "3", "0", "0", "0", ""]
    plain = table(next(part for part in parts if part.startswith("baseline-")))
    assert [*plain["all"].values()] == ["3", "0", "0", "0", "3", "0", ""]
    tools = table(next(part for part in parts if "variant=tools" in part))["all"]
    counts = {name: int(count) for name, count in tools.items() if name != "mean margin"}
    assert counts["calls"] == counts["right"] + counts["wrong tool"] + counts["false"] > 0
    assert counts["due"] == 3 == counts["right"] + counts["wrong tool"] + counts["missed"]
    assert float(tools["mean margin"]) > 0
    content = (tmp_path / "calls.html").read_text(encoding="utf-8")
    assert content.count("<article") == 9 and "forced: oracle call" in content and "What is 41 and 4?" in content


def test_a_runs_folder_a_file_of_records_and_a_leaderboard_are_read_too(
    results: Path, tmp_path: Path, run: Command
) -> None:
    [sample] = [file for file in results.rglob("samples_*") if "oracle call" in file.read_text(encoding="utf-8")]
    folder = sample.parents[1]
    wanted = table(run("calls", sample)[1])
    assert table(run("calls", folder)[1]) == wanted
    [records] = folder.glob("records_*.jsonl")
    assert table(run("calls", records)[1]) == wanted
    board = tmp_path / "board" / "records"
    (board / "samples").mkdir(parents=True)
    shutil.copy(records, board / "tool_tokens.jsonl")
    content = sample.read_bytes()
    name = f"{hashlib.sha256(content).hexdigest()[:16]}.jsonl.gz"
    (board / "samples" / name).write_bytes(gzip.compress(content))
    (board / "notes.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    status, out, err = run("calls", board.parent)
    assert (status, table(out)) == (0, wanted) and "own_sums: tool_tokens-" in out
    assert err.startswith("note: 1 lines are no records; the first: ")


# The page.


class Reader(HTMLParser):
    """Reads a page: tags and attributes as they are opened, elements that are left open, the text of each article."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.opened: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.articles: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "article":
            self.articles.append("")
        if tag in {"dt", "dd"}:
            self.articles[-1] += " "
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "article" in self.open:
            self.articles[-1] += data
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    assert {tag for tag, _ in reader.opened} <= TAGS
    assert {name for _, attributes in reader.opened for name in attributes} <= ATTRIBUTES
    assert reader.scripts == [(page.TEMPLATES / "calls.js").read_text(encoding="utf-8")]
    return reader


@pytest.fixture
def made(tmp_path: Path, run: Command) -> Callable[..., Reader]:
    """Return a function that writes the page of rows, or of a file of them, and reads it."""

    def making(rows: Sequence[Any] | Path, *flags: object) -> Reader:
        path = rows if isinstance(rows, Path) else write(tmp_path / "samples_made.jsonl", rows)
        status, out, err = run("calls", path, "--output", tmp_path / "made.html", *flags)
        assert (status, err) == (0, "") and f"wrote {tmp_path / 'made.html'}" in out
        return read(tmp_path / "made.html")

    return making


def test_each_answer_stands_on_the_page_with_its_calls_at_their_places(
    mixed: Path, made: Callable[..., Reader]
) -> None:
    reader = made(mixed)
    texts = {article.split()[1]: " ".join(article.split()) for article in reader.articles}
    assert [*texts] == ["1", "2", "3", "4", "0"]  # wrong ones first
    assert "2*7=multiply(2, 7) → 14 +1.50 · right14, 14/0=divide(2, 7) ✗ zero_division" in texts["1"]
    assert "✗ zero_division +1.50 · wrong tool, subtract was due?" in texts["1"]
    assert "expected calls multiply(2, 7) = 14, subtract(14, 5) = 9 target 9" in texts["1"]
    assert (
        "subtract(2, 7) ✗ syntax: never closed +1.50 · right9" in texts["3"]
        and "missed: multiply(2, 7) = 14" in texts["3"]
    )
    assert "add(2, 7) forced: written · false1" in texts["2"]
    assert "question Question 4? expected calls" in texts["4"] and "metrics acc 0" in texts["4"]
    names = dict(
        re.findall(r'<option value="(o\d+)">(.*?) \(', (mixed.parent / "made.html").read_text(encoding="utf-8"))
    )
    outcomes = {
        text.split()[1]: ([names[o] for o in (attributes["data-outcomes"] or "").split()], attributes["data-right"])
        for text, (_, attributes) in zip(
            reader.articles, [opened for opened in reader.opened if opened[0] == "article"], strict=True
        )
    }
    assert outcomes == {
        "0": (["all calls right"], "right"),
        "1": (["wrong tool", "error: zero_division"], "wrong"),
        "2": (["false"], "wrong"),
        "3": (["missed", "error: syntax"], "wrong"),
        "4": (["no call", "missed"], "wrong"),
    }


def test_the_page_of_a_task_without_right_calls_judges_none(made: Callable[..., Reader]) -> None:
    for due in (None, []):
        [text] = made([row(0, "a 9", [call("add", 2, result="9")], due)]).articles
        assert "a add(2, 7) → 9 +1.509" in text and "expected" not in text and "false" not in text


def test_plan_tokens_named_tools_and_errors_written_into_answers_keep_their_text(made: Callable[..., Reader]) -> None:
    plan = [call("[WALK]", 0, arguments=""), call("<attic>", 6, arguments="")]
    rows = [
        row(0, "[WALK] <attic>\n[END]", plan, [{"tool": "[WALK]", "args": "", "result": "[WALK]"}]),
        row(1, " <P7>", [call("P7", 1, arguments="")], [{"tool": "P7", "args": "", "result": ""}]),
        row(2, "1/0=[zero_division] so", [call("divide", 4, error="zero_division")]),
        row(3, "short", [call("add", 99, result="lost")]),
    ]
    plan_text, named, failed, cut = sorted(made(rows).articles, key=lambda text: text.split()[1])
    assert "[WALK]() +1.50 · right[WALK]<attic>() +1.50 · false <attic>\n[END]" in plan_text
    assert "expected calls [WALK]()\n target" in plan_text
    assert " P7() +1.50 · right<P7>" in named
    assert "divide(2, 7) ✗ zero_division +1.50 · wrong tool, multiply was due[zero_division] so" in failed
    assert "shortadd(2, 7) → lost" in cut


def test_hostile_text_stays_text_wherever_it_stands(made: Callable[..., Reader], tmp_path: Path, run: Command) -> None:
    rows = []
    for number, text in enumerate(HOSTILE):
        about = call(text, 3, arguments=text, result=text, detail=text, forced=text, before=text, after=text)
        made_row = row(number, f"So {text} it is {text}", [about, {**about, "result": None, "error": "domain"}])
        made_row["doc"] = {"tool_use": {"question": text, "calls": [{"tool": text, "args": text, "result": text}]}}
        made_row |= {
            "target": text,
            "filter": text,
            "metrics": ["acc", text],
            text: text,
            "acc": text,
            "doc_hash": text,
        }
        rows.append(made_row)
    reader = made(rows)
    policies = [attributes["content"] for tag, attributes in reader.opened if attributes.get("http-equiv")]
    assert len(policies) == 1 and str(policies[0]).startswith("default-src 'none'; style-src 'sha256-")
    everything = "\n".join(reader.articles)
    content = (tmp_path / "made.html").read_text(encoding="utf-8")
    for text in HOSTILE:
        assert "\t".join(map(printable, text.split("\n")[0].split("\t"))) in everything
    assert not set(re.findall(r"[^\S\n\t ]|[\x00-\x08\x0b-\x1f\u200b\u202a-\u202e\u2028\u2066-\u2069\ufeff]", content))
    name = "samples_<img src=x>\u202e_2026-01-02T03-04-05.678.jsonl"
    shutil.copy(tmp_path / "samples_made.jsonl", tmp_path / name)
    status, out, _ = run("calls", tmp_path / name, "-o", tmp_path / "made.html")
    assert status == 0 and not re.search(r"[\x00-\x09\x0b-\x1f\u202e\ud800-\udfff]", out)
    assert "<img src=x><U+202E>: " in out and "[bold red]x[/]" in out
    read(tmp_path / "made.html")


def test_as_much_as_a_row_may_hold_makes_a_small_page(made: Callable[..., Reader], tmp_path: Path) -> None:
    long = "<b>\u202ex" * 40_000  # of a row, no more than 5 MB are read
    wide = long[:100_000]
    about = call(wide, 9_000_000, arguments=long, result=wide, detail=wide, forced=wide)
    made_row = row(0, long, [about, call("add", 10, error="domain", detail=wide)], [{"tool": wide, "args": wide}])
    made_row["doc"]["tool_use"]["question"] = long
    reader = made([made_row | {"target": long, "acc": wide, "metrics": ["acc", wide], wide: wide, "filter": wide}])
    assert (tmp_path / "made.html").stat().st_size < 150_000
    assert "[...198,000 characters...]" in reader.articles[0]


def test_what_does_not_fit_the_page_is_counted_and_wrong_answers_come_first(
    made: Callable[..., Reader], tmp_path: Path
) -> None:
    rows = [row(n, "9", [call("add")] if n % 2 else [], acc=float(n > 5)) for n in range(40)]
    path = write(tmp_path / "both" / "samples_first.jsonl", rows)
    write(tmp_path / "both" / "samples_second.jsonl", rows[:3])
    reader = made(path.parent, "--most", "11")
    shown = [tuple(article.split()[:2]) for article in reader.articles]
    assert shown == [("first", str(n)) for n in range(8)] + [("second", str(n)) for n in range(3)]
    content = (tmp_path / "made.html").read_text(encoding="utf-8")
    assert "11 of 43 questions are shown; 32 are left out, those answered wrong are shown first." in content
    assert made(path.parent, "--most", "0").articles == []
    assert len(made(path.parent, "--most", "1000").articles) == 43


def test_a_page_that_cannot_be_written_is_told(mixed: Path, run: Command, tmp_path: Path) -> None:
    status, _, err = run("calls", mixed, "--output", tmp_path)
    assert status == 2 and err.startswith(f"error: cannot write '{tmp_path}': ")


# Tools by hand.


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_a_call_prints_its_result_or_what_went_wrong(run: Command) -> None:
    assert run("call", "add", "2, 3") == (0, "5\n", "")
    assert run("call", "<divide>", "1, 3") == (0, "0.33\n", "")
    assert run("call", "divide", "1, 3", "--rounding", "exact") == (0, "0.333333333333\n", "")
    assert run("call", "subtract", "-5, 3") == (0, "-8\n", "")
    assert run("call", "divide", "1, 0") == (
        1, "", "zero_division: <divide>(1, 0) has no result: a division by zero\n",
    )  # fmt: skip
    status, out, err = run("call", "add", "\x1b[31m2")
    assert (status, out) == (1, "") and err.startswith("syntax: <add>(␛[31m2) has no result: ")


def test_an_unknown_tool_is_refused_with_a_suggestion(run: Command, mine: Path) -> None:
    assert run("call", "ad", "1") == (2, "", "error: no tool 'ad'; did you mean 'add'?\n")
    assert run("call", "add", "1", "--tools", mine) == (2, "", "error: no tool 'add'; there is half, length\n")
    status, _, err = run("call", "add", "1", "--tools", mine.parent / "none.py")
    assert status == 2 and err.count("\n") == 1 and "none.py" in err


def test_a_file_of_tools_can_be_tried_at_once(run: Command, mine: Path) -> None:
    assert run("call", "length", "clock", "--tools", mine) == (0, "5\n", "")
    assert run("call", "half", "7", "--tools", mine) == (
        1, "", "domain: <half>(7) has no result: ValueError: it is odd\n",
    )  # fmt: skip
    assert run("call", "add", "7", "--tools", f"arithmetic+{mine}") == (0, "7\n", "")
    assert run("call", "length", "7", "--tools", "gsm8k", "--tools", mine) == (0, "1\n", "")
    assert run("call", "half", "4", "--tools", mine, "--timeout", "0")[0] == 2


def test_tools_without_code_and_shared_names_are_told(run: Command, tmp_path: Path) -> None:
    relations = [{"key": f"P{n}", "name": "place", "description": "gets a place"} for n in (1, 2)]
    path = write(
        tmp_path / "relations.jsonl", [*relations, {"key": "P3", "name": "genre", "description": "gets a genre"}]
    )
    assert run("call", "genre", "x", "--tools", path) == (
        1, "", "unknown_tool: <genre>(x) has no result: there is nothing to run\n",
    )  # fmt: skip
    assert (
        run("call", "place", "x", "--tools", path)[2]
        == "error: 2 tools are called 'place'; give one of the keys P1, P2\n"
    )
    _, out, _ = run("tools", "--tools", path)
    assert [*table(out)["P3"].items()] == [
        ("name", "genre"), ("arguments", "0+"), ("examples", "0"), ("code", "none"), ("description", "gets a genre"),
    ]  # fmt: skip


def test_tools_are_listed_with_what_the_method_knows_of_them(run: Command, mine: Path) -> None:
    status, out, _ = run("tools")
    found = table(out)
    assert status == 0 and list(found) == list(Toolbox.load(["arithmetic"]).keys)
    assert found["log"]["arguments"] == "1-2" and found["add"]["code"] == "built in"
    _, out, _ = run("tools", "--tools", mine)
    assert table(out)["half"]["examples"] == "2" and table(out)["half"]["description"] == "Halves a whole number."
    assert Tool("half", "half").description == ""


def test_every_command_explains_itself(run: Command) -> None:
    for words in ((), ("calls",), ("call",), ("tools",)):
        status, out, _ = run(*words, "--help")
        assert status == 0 and "usage: python -m harness_tool_tokens" in out
    assert "mean margin" in run("calls", "--help")[1]
    assert run()[0] == 2


def test_the_commands_load_no_torch(mixed: Path) -> None:
    script = (
        "import sys; from harness_tool_tokens.__main__ import main; "
        f"main(['calls', {str(mixed)!r}, '-o', {str(mixed.parent / 'x.html')!r}]); main(['calls', {str(mixed.parent)!r}]); "
        "main(['tools']); main(['call', 'add', '1']); "
        "print([m for m in ('torch', 'transformers', 'lm_eval') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    command = [sys.executable, "-m", "harness_tool_tokens", "call", "divide", "1, 0"]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert failed.returncode == 1 and failed.stderr.startswith("zero_division: ")


# In a browser.


@pytest.fixture
def browser() -> Iterator[Any]:
    from chromium import Browser, installed

    if installed() is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with Browser() as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
def test_the_filters_choose_answers_in_a_browser(mixed: Path, made: Callable[..., Reader], browser: Any) -> None:
    made(mixed)
    browser.open(mixed.parent / "made.html")
    choose = """(([id, name]) => {
      const choice = document.getElementById(id);
      choice.value = [...choice.options].find((option) => option.textContent.startsWith(name)).value;
      choice.dispatchEvent(new Event("change"));
      const shown = [...document.querySelectorAll("article")].filter((article) => article.checkVisibility());
      const names = shown.map((article) => article.querySelectorAll("h3 bdi")[1].textContent);
      return [names, document.getElementById("count").textContent];
    })"""
    expected = [
        ("outcome", "all", ["1", "2", "3", "4", "0"]), ("outcome", "wrong tool", ["1"]), ("outcome", "error: syntax", ["3"]),
        ("outcome", "missed", ["3", "4"]), ("outcome", "no call", ["4"]), ("right", "right", []), ("outcome", "all", ["0"]),
        ("right", "wrong", ["1", "2", "3", "4"]),
    ]  # fmt: skip
    for identifier, name, articles in expected:
        assert browser.run(f"{choose}({json.dumps([identifier, name])})") == [articles, f"{len(articles)} of 5 shown"]
    assert browser.messages == [] and len(browser.requests) <= 1
