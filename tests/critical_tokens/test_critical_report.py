"""The page of a run: all text of the responses, escaped, one element per token group, nothing from outside, in any size."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness import HarnessError
from harness.json_lines import write_json_lines
from harness.models.causal import CausalLM
from harness_critical_tokens.__main__ import main
from harness_critical_tokens.encoding import encode
from harness_critical_tokens.pairs_file import Pair
from harness_critical_tokens.report import figures
from harness_critical_tokens.report.gathering import gather
from harness_critical_tokens.report.grouping import groups
from harness_critical_tokens.report.page import render, write_page
from harness_critical_tokens.responses import made_by, write_responses

HOSTILE = (
    ' <script>alert("1")</script> &amp; \' | s=.9 <i class="w9">\r\n\t\x00\x1b[31m \u202e 🙂👩‍👩‍👧 e\u0301 naïve  '
)
PLAIN = " There are 2 pens. The answer is 12."


class Page(HTMLParser):
    """What a browser would make of the page: texts and classes of the tokens by response, and every attribute."""

    VOID = ("meta", "line", "rect", "polyline")

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.responses: list[list[dict[str, Any]]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += attributes
        found = dict(attributes)
        if tag == "div" and found.get("class") == "response":
            self.responses.append([])
        if tag == "i" and "title" in found:
            self.responses[-1].append({**found, "shown": ""})
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] == "i" and self.responses and self.responses[-1]:
            self.responses[-1][-1]["shown"] += text

    def text(self, number: int) -> str:
        """Return the text of a response as it can be recovered."""
        return "".join(json.loads(i["data-text"]) if "data-text" in i else i["shown"] for i in self.responses[number])


def write_run(folder: Path, lm: Any, texts: list[tuple[str, str]], **row: Any) -> None:
    """Leave a run as ``score`` and ``find`` would, with made-up numbers."""
    shown, scores, rollouts = [], [], []
    for number, (chosen, rejected) in enumerate(texts):
        pair = Pair(number, "Question: <b>?\nAnswer:", chosen, rejected, row)
        for side in ("chosen", "rejected"):
            encoded = encode(lm, pair.prompt, getattr(pair, side))
            shown.append((pair, side, encoded))
            logs = [-0.001 if place % 7 else -3.0 for place in range(len(encoded.offsets))]
            ratios = [-1.0 * (place % 5) for place in range(len(encoded.offsets))]
            scores.append(
                {
                    "pair": number,
                    "side": side,
                    "ids": encoded.response_ids,
                    "log_score": logs,
                    "log_ratio": ratios,
                    "positive": logs,
                    "negative": logs,
                    "base": logs,
                }
            )
        counts = [None if place % 2 else max(0, 8 - place) for place in range(len(encoded.offsets))]
        rollouts.append(
            {
                "pair": number,
                "ids": encoded.response_ids,
                "counts": counts,
                "n": 8,
                "critical": 7,
                "fallback": None,
                "drop": 2,
            }
        )
    write_responses(folder, shown, made_by={"method": "score", "model": "tiny <b>", "options": {"contrast": 1.0}})
    for name, rows in (("scores", scores), ("rollouts", rollouts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    losses = {"losses": [1.0, 0.5, 0.25]}
    report = {
        "training": {"positive": losses},
        "policy": losses,
        "identification": {"responses": 1, "log_ratio": {"hit_at_1": 0.5, "by_kind": {"carry": {"hit_at_1": 1.0}}}},
    }
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "training.json").write_text(json.dumps({"margin": [0.0, 0.5], "odd": [None]}), encoding="utf-8")


@pytest.fixture(scope="module")
def lm(tiny_model):
    from transformers import AutoTokenizer, LlamaForCausalLM

    return CausalLM(LlamaForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model))


@pytest.fixture
def run(tmp_path, lm):
    start = HOSTILE.index("alert")
    error = {
        "critical_span": [start, start + 5],
        "first_wrong_char": start + 1,
        "propagated_spans": [[30, 34]],
        "kind": "<kind>",
    }
    write_run(tmp_path, lm, [(PLAIN, HOSTILE)], **error)
    return tmp_path


def test_all_text_is_on_the_page_and_nothing_of_it_acts(run):
    """Property 33: valid HTML, no outside address, all text recoverable, special characters escaped."""
    html = render(gather(run))
    page = Page(html)
    assert [page.text(number) for number in range(2)] == [PLAIN, HOSTILE]
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"style", "src", "href"}]
    assert not re.search("https?://|//[a-z]|url[(]|@import", html)
    assert html.count("<script>") == 1 and "<b>" not in html
    assert "\x00" not in html and "\x1b" not in html and "\u202e" not in html
    html.encode("utf-8")


def test_each_token_group_is_one_coloured_element_with_its_marks(run):
    """Property 33: and the critical token by rollouts outlined, the known error underlined, end of text marked."""
    shown, page = gather(run), Page(render(gather(run)))
    for number, each in enumerate(shown.responses):
        made = groups(each.text, each.offsets)
        assert len(page.responses[number]) == len(made)
        for element, group in zip(page.responses[number], made, strict=True):
            tokens = range(group.first, group.end)
            classes = (element.get("class") or "").split()
            weights = each.weights("contrastive", 4.0)
            assert weights is not None
            level = round(10 * max((weights[token] for token in tokens), default=0))
            assert [name for name in classes if name[0] == "w"] == ([f"w{level}"] if level else [])
            assert ("k" in classes) == (each.side == "rejected" and 7 in tokens)
            assert ("d" in classes) == (each.side == "rejected" and 2 in tokens)
            assert ({"s", "n"} & {*classes} != set()) == group.text.isspace()
            assert ("e" in classes) == (group.text == "")
    underlined = "".join(i["shown"] for i in page.responses[1] if "u" in (i.get("class") or "").split())
    assert "alert" in underlined
    titles = [i["title"] for i in page.responses[1]]
    assert re.fullmatch(r" ?.* s=\S+ p=\S+ q=\S+ d=-?\S+ r=8/8", titles[0], re.DOTALL)


def test_what_made_a_page_is_said_by_name(lm, tiny_model):
    method = Method(Path("pairs.jsonl"))
    said = made_by(method, lm, seed=3)
    assert said == {
        "method": "score",
        "model": str(tiny_model),
        "seed": 3,
        "options": {"pairs_file": Path("pairs.jsonl")},
    }


@dataclasses.dataclass(frozen=True)
class Method:
    """As a method has it."""

    pairs_file: Path
    name: ClassVar[str] = "score"


def test_the_page_says_what_made_it_and_shows_the_figures(run):
    html = render(gather(run))
    for words in (
        "tiny &lt;b&gt;",
        "options.contrast",
        "loss, positive",
        "loss, policy",
        "margin",
        "hit@1",
        "kind carry",
        "precision at 0.5",
        "rollouts a prefix",
        "2 of 2 responses",
    ):
        assert words in html, words
    assert "odd" not in html


def test_precision_and_recall_are_counted_over_rejected_tokens(run):
    shown = gather(run)
    table = figures.precision_table(shown)
    assert table is not None
    rows = {row[0]: row[1:] for row in table[1]}
    [rejected] = [each for each in shown.responses if each.side == "rejected"]
    weights = [1 - math.exp(log) for log in rejected.logs["log_score"]]
    at_half = sum(weight >= 0.5 for weight in weights)
    assert rows[figures.LABELS["contrastive"]][:3] == ["1", f"{(weights[7] >= 0.5) / at_half:.2f}", "1.00"]
    bars = figures.histogram(shown, "contrastive")
    counted = [int(bar.says.split()[0].replace(",", "")) for bar in bars]
    assert sum(counted) == len(weights)


@pytest.mark.parametrize(
    ("text", "offsets", "texts"),
    [
        ("ab", [(0, 1), (1, 2)], ["a", "b"]),
        ("a🙂b", [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)], ["a", "🙂", "b"]),  # one character in three tokens
        ("e\u0301x", [(0, 1), (1, 2), (2, 3)], ["e\u0301", "x"]),
        ("👩\u200d👧.", [(0, 1), (1, 2), (2, 3), (3, 4)], ["👩\u200d👧", "."]),
        ("👍🏽", [(0, 1), (1, 2)], ["👍🏽"]),
        ("a b", [(0, 1), (2, 3)], ["a", " b"]),  # a blank that no token covers
        ("ab", [(0, 0), (0, 2), (2, 2)], ["ab", ""]),  # a token without characters, and end of text
        ("abc", [(0, 1)], ["a", "bc"]),
        ("", [(0, 0)], [""]),
        ("", [], []),
    ],
)
def test_tokens_are_grouped_where_they_share_a_character(text, offsets, texts):
    made = groups(text, offsets)
    assert [group.text for group in made] == texts
    assert [token for group in made for token in range(group.first, group.end)] == list(range(len(offsets)))


def test_groups_of_real_tokenizers_are_the_text(lm, smollm2_tokenizer):
    """Property 27: concatenated they give the text, emoji and combining marks included."""
    from transformers import LlamaForCausalLM  # noqa: F401

    other = CausalLM(lm.model, smollm2_tokenizer)
    for each in (lm, other):
        for text in (HOSTILE, PLAIN, " é🙂 日本語 e\u0301", "\n\n  x  "):
            made = groups(text, encode(each, "Q:", text).offsets)
            assert "".join(group.text for group in made) == text
            assert not any(unicodedata.combining(group.text[0]) for group in made if group.text)


def test_five_thousand_responses_make_a_page_of_two_hundred_and_can_be_paged_through(tmp_path):
    """A page that browsers open, in seconds, with the figures of all."""
    text = " There are 12 of" * 2
    offsets = [[at, at + 4] for at in range(0, 32, 4)]
    row = {"side": "rejected", "prompt": "Question: 1\nAnswer:", "text": text, "offsets": offsets}
    write_json_lines(tmp_path / "responses.jsonl", ({"pair": number, **row} for number in range(5_000)))
    logs = [-0.1, -2.0, -9.0, 0.0] * 2
    score = {"side": "rejected", "log_score": logs, "log_ratio": logs, "positive": logs, "negative": logs}
    write_json_lines(tmp_path / "scores.jsonl", ({"pair": number, **score} for number in range(5_000)))
    html = write_page(tmp_path).read_text(encoding="utf-8")
    assert len(Page(html).responses) == 200 and "200 of 5,000 responses" in html
    assert "10,000 tokens from 0.85 to 0.9" in html and len(html) < 800_000
    assert main(["report", str(tmp_path), "--first", "4990", "--most", "50"]) == 0
    last = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(Page(last).responses) == 10 and "10 of 5,000 responses are shown, after the first 4,990" in last
    assert "10,000 tokens from 0.85 to 0.9" in last


def test_the_count_where_a_walk_ended_is_shown_as_a_bound_and_not_as_a_weight(run):
    """5 % or more came out right there, perhaps all."""
    rows = [json.loads(line) for line in (run / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]
    write_json_lines(run / "rollouts.jsonl", [row | {"settled": 4} for row in rows])
    titles = [i["title"] for i in Page(render(gather(run))).responses[1]]
    assert any(title.endswith(" r=≥4/8") for title in titles) and any(title.endswith(" r=2/8") for title in titles)
    [rejected] = [each for each in gather(run).responses if each.side == "rejected"]
    weights = rejected.weights("rate", 4.0)
    assert (weights[2], weights[4], weights[6]) == (0.25, 0.0, 0.75)


def test_fifty_responses_take_some_two_hundred_kilobytes(tmp_path, smollm2_tokenizer, lm):
    from harness_critical_tokens.stories import write_stories

    other = CausalLM(lm.model, smollm2_tokenizer)
    write_run(tmp_path, other, [(row["chosen"], row["rejected"]) for row in write_stories(5, seed=0)])
    assert len(render(gather(tmp_path)).encode()) < 60_000  # ten responses, and what every page has: some 20,000


def test_the_command_writes_stories_and_the_page(run, tmp_path, capsys):
    assert main(["stories", "--count", "5", "--styles", "notes", "--output", str(tmp_path / "pairs.jsonl")]) == 0
    lines = (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5 and json.loads(lines[0])["style"] == "notes"
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_text(encoding="utf-8") == render(gather(run))
    assert main(["report", str(run), "--most", "-1"]) == 2
    assert main(["stories", "--styles", "nots"]) == 2
    assert "did you mean 'notes'" in capsys.readouterr().err


def test_what_cannot_be_shown_is_said_and_leaves_an_earlier_page(run, tmp_path):
    with pytest.raises(HarnessError, match="there is nothing to show"):
        gather(tmp_path / "none")
    before = write_page(run).read_bytes()
    (run / "scores.jsonl").write_text('{"pair": 0, "side": "chosen", "log_score": [0.0]}', encoding="utf-8")
    with pytest.raises(HarnessError, match="'log_score' has 1 values for the"):
        write_page(run)
    (run / "scores.jsonl").unlink()
    (run / "report.json").write_text("{", encoding="utf-8")
    with pytest.raises(HarnessError, match="is no JSON"):
        write_page(run)
    assert (run / "report.html").read_bytes() == before
    (run / "report.json").unlink()
    assert "No token" not in render(gather(run))  # rollouts alone colour by their rate
