"""The pages of a run and of two side by side: what stands in them, read back from the file, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from compared_runs import write_run
from generated_runs import answer, write_generated
from written_records import write_board, write_results

from harness.cli import main
from harness.pages import unpacked

METHOD_RUN, BASELINE_RUN = "softly-0123456789", "baseline-0123456789"
HOSTILE = "</script><img src=x onerror=alert(1)><!-- \u2028 \u202e \x1b[31m & &amp;"


class Page(HTMLParser):
    """A page, parsed: its text outside scripts, its islands, its links, and what tags and attributes it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.islands, self.links = "", dict[str, tuple[str, str]](), list[str]()
        self.tags, self.handlers = set[str](), list[str]()
        self._open: dict[str, str | None] | None = None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.add(tag)
        self.handlers += [name for name in named if name.startswith("on") or name in {"style", "src"}]
        self._open = named if tag == "script" else None
        self.links += [str(named["href"])] if tag == "a" and "href" in named else []

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is None:
            self.text += data
        elif self._open.get("id"):
            self.islands[str(self._open["id"])] = (str(self._open["type"]), data)

    @property
    def head(self) -> dict[str, Any]:
        found: dict[str, Any] = unpacked(*self.islands["head"])
        return found

    def island(self, number: int) -> Any:
        return unpacked(*self.islands[f"i{number}"])

    def task(self, name: str) -> dict[str, Any]:
        [told] = [task for task in self.head["tasks"] if task["name"] == name]
        found: dict[str, Any] = self.island(told["island"])
        return found

    def rows(self, filtered: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of one filter of one run of one side, in the order of the file."""
        return [row for block in filtered["blocks"] for row in self.island(block)]

    def everything(self) -> str:
        return self.text + json.dumps([unpacked(*island) for island in self.islands.values()], ensure_ascii=False)


Make = Callable[..., Page]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def make(here: Path) -> Make:
    """Return a function that calls ``harness`` with ``--html page.html`` and gives the page."""

    def call(*words: object, status: int = 0) -> Page:
        assert main([*map(str, words), "--html", "page.html"]) == status
        return Page(here / "page.html")

    return call


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return the one sentence that a command is refused with."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("harness: ")]
    return line


def test_a_run_becomes_a_page_named_after_it_that_says_where_it_is(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without FILE the page is called as the run, in the working folder, and the line says so."""
    results = write_results(here / "results")
    assert main(["show", str(results / METHOD_RUN), "--html"]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {METHOD_RUN}.html (")
    assert "softly on tiny" in Page(here / f"{METHOD_RUN}.html").text


def test_the_page_of_a_run_has_all_its_documents_and_the_baselines_answers(tmp_path: Path, make: Make) -> None:
    """Every row of the sample files is there, with what is right, chosen and changed, the baseline beside it."""
    page = make("show", write_results(tmp_path / "results") / METHOD_RUN)
    assert page.head["sides"] == ["baseline", "softly"]
    assert [(task["name"], task["docs"]) for task in page.head["tasks"]] == [("colours_cold", 3), ("colours_warm", 5)]
    warm = page.task("colours_warm")
    assert warm["ids"] == [0, 1, 2, 3, 4]
    assert warm["columns"][0]["values"] == [[1, 0, 1, 1, 0], [0, 0, 1, 1, 0]]
    assert (warm["decides"], warm["changed"]) == (0, ["10000"])
    [[then], [now]] = warm["sides"]
    first_then, first_now = page.rows(then["filters"][0])[0], page.rows(now["filters"][0])[0]
    assert first_now["p"] == "Question: colours_warm 0? Answer:" and first_now["t"] == "0: a"
    assert first_then["c"] == [[" a", -1.5, False], [" b", -2.5, False]]
    assert (first_then["n"], first_now["n"], first_now["g"]) == (0, 1, 0)
    for told in ("0.4000", "-0.2000", "softly (softly 1)", "adapter/weights.safetensors", "growth.before"):
        assert told in page.text


def test_a_page_needs_nothing_else(tmp_path: Path, make: Make) -> None:
    """One file: no address is fetched, and its policy allows only its own style and script."""
    page = make("compare", "softly@baseline", "--records", write_results(tmp_path / "results"))
    assert not {"link", "img", "iframe", "object"} & page.tags and not page.handlers
    assert (
        "default-src &#39;none&#39;" in page.source and "http://" not in page.source and "https://" not in page.source
    )


def test_a_comparison_has_the_numbers_of_the_terminal(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """The statistics on top are those that ``harness compare`` prints, cell by cell; the documents stand below alone."""
    write_run(tmp_path / "results", {"t": {"acc": [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]}})
    write_run(tmp_path / "results", {"t": {"acc": [1.0] * 8}}, method="m")
    words = ["compare", "m@baseline", "--records", tmp_path / "results"]
    assert main([*map(str, words)]) == 0
    printed = capsys.readouterr().out
    page = make(*words)
    [line] = re.findall(r"^ *t +acc ↑.*$", printed, re.M)
    for cell in line.split():
        assert cell in page.text
    assert "Holm-corrected" in page.text and "documents that changed most" not in page.text
    assert page.task("t")["columns"][0]["values"] == [[1, 0, 1, 0, 1, 0, 0, 0], [1] * 8]


def test_the_raw_answer_and_what_each_filter_made_of_it_are_there(tmp_path: Path, make: Make) -> None:
    """Several filters are several columns, and the text before them stands once."""
    write_generated(
        tmp_path / "r",
        "baseline",
        [answer("it is 42 so", strict="[invalid]", loose="42"), answer("1", strict="1", loose="1")],
    )
    write_generated(
        tmp_path / "r", "m", [answer("#### 42", strict="42", loose="42"), answer("1", strict="1", loose="1")]
    )
    page = make("compare", "m@baseline", "--records", tmp_path / "r")
    sums = page.task("sums")
    assert sums["filters"] == ["strict", "loose"]
    assert [column["name"] for column in sums["columns"]] == ["exact_match (strict)", "exact_match (loose)"]
    assert sums["columns"][0]["values"] == [[0, 0], [1, 0]] and sums["columns"][1]["values"] == [[1, 0], [1, 0]]
    assert sums["changed"] == ["10", "00"]
    strict, loose = sums["sides"][0][0]["filters"]
    assert page.rows(strict)[0]["r"] == ["it is 42 so"] and page.rows(strict)[0]["f"] == ["[invalid]"]
    assert page.rows(loose)[0]["f"] == ["42"] and "r" not in page.rows(loose)[0]


def test_hostile_text_ends_no_script_and_becomes_no_markup(tmp_path: Path, make: Make) -> None:
    """Text of models stays text, in the islands and in the tables; what steers a terminal or turns a line is made visible."""
    rows = [answer(HOSTILE, none=HOSTILE) | {"prompt": HOSTILE} for _ in range(3)]
    write_generated(tmp_path / "r", "baseline", rows)
    page = make("show", tmp_path / "r")
    assert page.tags <= {
        "html", "head", "meta", "title", "style", "body", "a", "header", "h1", "h2", "bdi", "p", "noscript", "details", "summary",
        "div", "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "main", "label", "select", "input", "button",
        "output", "section", "article", "dialog", "form", "kbd", "script", "ul", "li", "span",
    }  # fmt: skip
    [row] = page.rows(page.task("sums")["sides"][0][0]["filters"][0])[:1]
    assert row["r"] == ["</script><img src=x onerror=alert(1)><!-- <U+2028> <U+202E> ␛[31m & &amp;"]


def test_a_long_answer_says_what_is_left_out_and_text_from_right_to_left_stays(tmp_path: Path, make: Make) -> None:
    """Of an answer of a megabyte beginning and end are shown; Hebrew and Arabic are letters like others."""
    rows = [answer("x" * 1_000_000, none="x"), answer("שלום עולם", none="مرحبا")]
    write_generated(tmp_path / "r", "baseline", rows)
    page = make("show", tmp_path / "r")
    long, hebrew = page.rows(page.task("sums")["sides"][0][0]["filters"][0])
    assert len(long["r"][0]) < 210_000 and "[...800,000 characters...]" in long["r"][0]
    assert (hebrew["r"], hebrew["f"]) == (["שלום עולם"], ["مرحبا"])
    assert page.task("sums")["sides"][0][0]["filters"][0]["previews"][1] == "مرحبا"


def test_of_a_question_the_end_is_listed_and_of_a_text_the_beginning(tmp_path: Path, make: Make) -> None:
    """A prompt asks at its end; a text that is scored whole is told from others by how it begins."""
    words = "first " + "word " * 200 + "last"
    text = {"arguments": {"gen_args_0": {"arg_0": words}}, "resps": [["-3.5"]], "filtered_resps": ["-3.5"]}
    write_generated(
        tmp_path / "r", "baseline", [answer("1", none="1") | {"prompt": words}, answer("", none="") | {"more": text}]
    )
    asked, scored = make("show", tmp_path / "r").task("sums")["questions"]
    assert asked.startswith("…") and asked.endswith("last") and scored.startswith("first word") and scored.endswith("…")


def test_a_large_page_is_packed_and_reads_back(tmp_path: Path, make: Make) -> None:
    """Thousands of documents stand in compressed blocks; every one is found where the columns say."""
    rows = [answer(f"answer number {n} of many", none=str(n % 50)) for n in range(1_500)]
    write_generated(tmp_path / "r", "baseline", rows)
    page = make("show", tmp_path / "r")
    [filtered] = page.task("sums")["sides"][0][0]["filters"]
    assert len(filtered["blocks"]) == 6 and filtered["starts"] == [0, 256, 512, 768, 1024, 1280]
    assert {page.islands[f"i{block}"][0] for block in filtered["blocks"][:5]} == {"application/gzip"}
    assert [row["r"][0] for row in page.rows(filtered)] == [row["raw"] for row in rows]
    assert filtered["rows"] is None and len(page.source) < 400_000


def test_secrets_are_taken_out(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is redacted elsewhere is redacted here, in prompts, answers, previews and tokens alike."""
    monkeypatch.setenv("SOME_API_KEY", "zq81-drawn-at-random")
    secret = answer("my key is zq81-drawn-at-random", none="zq81-drawn-at-random") | {
        "prompt": "use zq81-drawn-at-random"
    }
    write_generated(tmp_path / "r", "baseline", [secret, secret])
    assert "zq81" not in make("show", tmp_path / "r").everything()


def test_traces_and_pages_of_the_method_are_shown_and_linked(tmp_path: Path, make: Make) -> None:
    """What an answer tells of how it came about stands with it; the method's own pages are linked from where the page lies."""
    traced = answer("12+30=42", none="42") | {"more": {"traces": [[{"tool": "add", "at": 5, "result": "42"}]]}}
    run = write_generated(tmp_path / "r", "m", [traced, answer("1", none="1")])
    (run / "run.json").write_text('{"status": "finished"}', encoding="utf-8")
    (run / "artefacts").mkdir()
    (run / "artefacts" / "report 1.html").write_text("a page", encoding="utf-8")
    page = make("show", run)
    first, second = page.rows(page.task("sums")["sides"][0][0]["filters"][0])
    assert first["x"] == [[["tool", "add"], ["at", "5"], ["result", "42"]]] and "x" not in second
    assert "../r/m-0/artefacts/report%201.html" in page.links


def test_tasks_of_groups_are_named_with_them_and_those_without_samples_say_so(tmp_path: Path, make: Make) -> None:
    """A group has no documents of its own; a task whose sample file is not there is one sentence."""
    board = write_board(tmp_path / "records")
    page = make("show", board, "--run", "baseline")
    assert {(task["name"], *task["groups"]) for task in page.head["tasks"]} == {
        ("colours_warm", "colours"),
        ("colours_cold", "colours"),
    }
    write_run(tmp_path / "bare", {"t": {"acc": [1.0, 0.0]}}, with_samples=False)
    [task] = make("show", tmp_path / "bare").head["tasks"]
    assert task["island"] is None
    assert task["notes"] == [
        "No sample file of this task lies beside its records, so there are no documents to look at."
    ]


def test_logs_of_inspect_stand_side_by_side(make: Make) -> None:
    """What another tool measured has the same page: its scorers are filters, its documents those of both sides."""
    logs = Path(__file__).parents[1] / "foreign" / "made" / "inspect"
    page = make("compare", logs / "weak", logs / "strong")
    assert page.head["sides"] == ["weak", "strong"]
    sums = page.task("sums")
    assert sums["filters"][:2] == ["match", "graded"] and len(sums["ids"]) == 12
    assert page.rows(sums["sides"][1][0]["filters"][0])[0]["t"] == "1"


def test_a_cut_sample_file_is_shown_as_far_as_it_goes_and_told(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page has the rows before the damage and says so, the score is marked as one that does not follow, and the exit is 1."""
    results = write_results(tmp_path / "results")
    [path] = (results / METHOD_RUN / "tiny").glob("samples_colours_warm*")
    path.write_bytes(path.read_bytes()[:-40])
    page = make("show", results / METHOD_RUN, status=1)
    assert "line 5" in capsys.readouterr().err
    [warm] = [task for task in page.head["tasks"] if task["name"] == "colours_warm"]
    assert warm["docs"] == 4 and "line 5" in warm["notes"][0]
    assert "Does not follow" in page.text


def test_sides_with_other_tasks_show_what_both_have(tmp_path: Path, make: Make) -> None:
    """A task of one side alone is left out, and a note says so, as on the terminal."""
    write_run(tmp_path / "r", {"both": {"acc": [1.0, 0.0]}, "first": {"acc": [1.0, 0.0]}})
    write_run(tmp_path / "r", {"both": {"acc": [1.0, 1.0]}, "second": {"acc": [1.0, 0.0]}}, method="m")
    page = make("compare", "m@baseline", "--records", tmp_path / "r")
    assert [task["name"] for task in page.head["tasks"]] == ["both"]
    assert "only in baseline, left out: first" in page.text


def test_seeds_of_a_side_stand_beside_each_other(tmp_path: Path, make: Make) -> None:
    """A document's value is its mean over the seeds, and every seed's answer is there."""
    write_generated(tmp_path / "r", "baseline", [answer("a", none="41"), answer("b", none="42")])
    write_generated(tmp_path / "r", "m", [answer("c", none="42"), answer("d", none="42")], seed=0)
    write_generated(tmp_path / "r", "m", [answer("e", none="42"), answer("f", none="1")], seed=1)
    sums = make("compare", "m@baseline", "--records", tmp_path / "r").task("sums")
    assert sums["columns"][0]["values"] == [[0, 1], [1, 0.5]]
    assert [[run["seed"] for run in side] for side in sums["sides"]] == [[0], [0, 1]]


def test_one_document_is_enough(tmp_path: Path, make: Make) -> None:
    """A run of one document has a page like any other."""
    write_generated(tmp_path / "r", "baseline", [answer("42", none="42")])
    assert make("show", tmp_path / "r").task("sums")["ids"] == [0]


def test_only_a_page_of_this_kind_is_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page written before is replaced; another file, a link or a folder is left as it is, and the sentence says what to do."""
    run = write_results(here / "results") / METHOD_RUN
    for _ in range(2):
        assert main(["show", str(run), "--html", "a.html"]) == 0
    (here / "b.html").write_text("<p>mine</p>", encoding="utf-8")
    assert "is there already and is no page that" in refused(capsys, "show", run, "--html", "b.html")
    assert (here / "b.html").read_text(encoding="utf-8") == "<p>mine</p>"
    (here / "c.html").symlink_to(here / "a.html")
    assert "is there already" in refused(capsys, "show", run, "--html", "c.html")
    assert "is a folder" in refused(capsys, "show", "--html", here / "results")
    assert "does not end in .html" in refused(
        capsys, "compare", "softly@baseline", "--records", here / "results", "--html", "d.pdf"
    )
    assert "holds 2 runs and a page shows one" in refused(capsys, "show", here / "results", "--html")
    assert not list(here.glob(".*partial"))


def test_a_comparison_of_three_sides_is_no_page(tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two sides stand beside each other; three are refused before anything is written."""
    for method in ("baseline", "m", "n"):
        write_run(tmp_path / "r", {"t": {"acc": [1.0, 0.0]}}, method=method)
    said = refused(capsys, "compare", "baseline", "m", "n", "--records", tmp_path / "r", "--html", "p.html")
    assert "two sides beside each other, and these are 3" in said
    assert "--html takes no --format" in refused(
        capsys, "compare", "m@baseline", "--records", tmp_path / "r", "--html", "p.html", "--format", "json"
    )
    assert not list(here.iterdir())


def test_tokens_are_marked_with_the_tokenizer_of_the_run(tmp_path: Path, tiny_model: Path, here: Path) -> None:
    """With ``--tokens`` the parts of a prompt together are the prompt; another tokenizer than the record's is refused."""
    from transformers import AutoTokenizer

    from harness.models.identity import tokenizer_digest

    digest = tokenizer_digest(AutoTokenizer.from_pretrained(tiny_model))
    write_run(tmp_path / "r", {"t": {"acc": [1.0, 0.0]}}, tokenizer={"digest": digest, "vocabulary": 400})
    assert main(["show", str(tmp_path / "r"), "--html", "page.html", "--tokens", str(tiny_model)]) == 0
    page = Page(here / "page.html")
    row = page.rows(page.task("t")["sides"][0][0]["filters"][0])[0]
    [[title, strip]] = row["q"]
    assert "".join(text for text, _ in strip) == row["p"] == "Question t 0?"
    assert title == f"Prompt, {len(strip)} tokens" and all(re.fullmatch(r"id \d+( \+ \d+)*", said) for _, said in strip)


def test_ids_of_tokens_are_shown_as_they_are_without_a_tokenizer(tmp_path: Path, make: Make) -> None:
    """What a task asked for by id, with its log-likelihoods, and what it got as ids, stand as tokens; digits alone are none."""
    asked = {"gen_args_0": {"arg_0": "the text", "arg_1": [68, 88]}}
    scored = answer("", none="") | {
        "more": {"arguments": asked, "resps": [[["-1.5", "-0.25"]]], "filtered_resps": [["-1.5", "-0.25"]]}
    }
    cut = answer("", none="") | {
        "more": {
            "arguments": {"gen_args_0": {"arg_0": "the text"}},
            "resps": [[["504", "31"]]],
            "filtered_resps": [["504", "31"]],
        }
    }
    write_generated(tmp_path / "r", "baseline", [scored, cut, answer("12", none="12")])
    page = make("show", tmp_path / "r")
    first, second, third = page.rows(page.task("sums")["sides"][0][0]["filters"][0])
    assert first["k"] == [
        ["Tokens 1, 2 tokens", [["68", "id 68, log-likelihood -1.5"], ["88", "id 88, log-likelihood -0.25"]]]
    ]
    assert second["k"] == [["Tokens 1, 2 tokens", [["504", "id 504"], ["31", "id 31"]]]]
    assert page.task("sums")["questions"] == ["the text", "the text", "Question 2?"]
    assert "k" not in third and third["f"] == ["12"]


def test_rows_without_numbers_are_documents_in_their_order(tmp_path: Path, make: Make) -> None:
    """A sample file of somebody else's may not number its documents; they are counted then."""
    write_run(tmp_path / "r", {"t": {"acc": [1.0, 0.0, 1.0]}})
    [path] = (tmp_path / "r").rglob("samples_t.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text(
        "".join(json.dumps({k: v for k, v in row.items() if k != "doc_id"}) + "\n" for row in rows), encoding="utf-8"
    )
    page = make("show", tmp_path / "r", status=1)  # it is not the file of the record
    assert (page.task("t")["ids"], page.task("t")["columns"][0]["values"]) == ([0, 1, 2], [[1, 0, 1]])


def test_the_tokenizer_of_another_model_is_refused(
    tmp_path: Path, tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tokens of another tokenizer would be a lie, so there is a sentence instead, and no page."""
    write_run(tmp_path / "r", {"t": {"acc": [1.0, 0.0]}})
    said = refused(capsys, "show", tmp_path / "r", "--html", "page.html", "--tokens", tiny_model)
    assert "is not the one that the run used" in said
    assert not list(here.iterdir())
