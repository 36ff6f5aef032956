"""The journal: answers come back bit for bit, for the same question alone, and a torn one costs itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval_answers import llama

from harness.models.causal import CausalLM
from harness.models.lm import Answering
from harness.run import journal
from harness.run.journal import Journal


class Echo(Answering):
    """Answers with the number of letters; counts how much it was asked."""

    answers = frozenset({"loglikelihood", "generate_until"})

    def __init__(self) -> None:
        self.asked = 0

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        self.asked += len(requests)
        return [(-1.0 / 3.0 * len(request.args[0]), False) for request in requests]

    def generate_until(self, requests: list[Any]) -> list[str]:
        self.asked += len(requests)
        return [f"ünï \ud83d {len(request.args[0])}" for request in requests]


def request(*args: Any, doc: int = 0, idx: int = 0) -> Any:
    return SimpleNamespace(args=args, doc_id=doc, idx=idx, task_name="t", doc={})


def test_a_journal_gives_back_what_was_answered_bit_for_bit(tmp_path: Path) -> None:
    lm, requests = Echo(), [request("a" * n, "b", doc=n) for n in range(5)]
    texts = [request("a" * n, {"until": ["\n"]}, doc=n) for n in range(5)]
    with Journal(tmp_path, {"a": 1}).answering(lm):
        first = lm.loglikelihood(requests), lm.generate_until(texts)
    assert lm.asked == 10
    assert "loglikelihood" not in vars(lm)
    journal = Journal(tmp_path, {"a": 1})
    with journal.answering(lm):
        assert (lm.loglikelihood(requests), lm.generate_until(texts)) == first
    assert (lm.asked, journal.reused) == (10, 10)
    assert Journal(tmp_path, {"a": 2})._answers == {}


def test_answers_that_are_drawn_are_drawn_again(tmp_path: Path) -> None:
    lm = Echo()
    for _ in range(2):
        with Journal(tmp_path, {}).answering(lm):
            lm.generate_until([request("x", {"do_sample": True}), request("y", {"temperature": 0.5})])
    assert lm.asked == 4


def test_a_torn_journal_costs_only_its_torn_answer(tmp_path: Path) -> None:
    lm = Echo()
    journal = Journal(tmp_path, {})
    with journal.answering(lm):
        lm.loglikelihood([request("abc", "d", doc=n) for n in range(3)])
    lines = journal.file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4  # the last one says how long it took
    journal.file.write_bytes(b"".join(lines[:3])[:-7])
    again = Journal(tmp_path, {})
    with again.answering(lm):
        lm.loglikelihood([request("abc", "d", doc=n) for n in range(3)])
    assert (again.reused, lm.asked) == (2, 4)


VALUES = [
    "null",
    "true",
    "0",
    "-1",
    "1e400",
    "NaN",
    '"abc"',
    "[]",
    "[-0.5, false]",
    "{}",
    '{"text": 1, "trace": 2}',
    "9" * 5000,
]


def test_any_line_of_a_journal_costs_its_own_answer_at_most(tmp_path: Path) -> None:
    """Case journal_line: every JSON type as line, key, answer, digest and seconds, torn ones, no text, no JSON."""
    lm, asked = Echo(), [request("abc", "d", doc=n) for n in range(3)]
    with Journal(tmp_path, {}).answering(lm, "sums"):
        first = lm.loglikelihood(asked)
    [file] = tmp_path.glob(".unfinished/*/answers-0.jsonl")
    good = file.read_bytes().splitlines()
    key, answer, check = json.loads(good[0])
    lines = [*VALUES, "[" * 100_000, '{"a":', "", "\0", '["seconds of sums", "abc"]']
    for value in VALUES:
        lines += [f"[{value}]", f"[{value}, {value}, {value}]", f'["{key}", {value}]', f'["seconds of sums", {value}]']
        lines += [
            f'["{key}", {value}, "{check}"]',
            f'["{key}", {json.dumps(answer)}, {value}]',
            f'[{value}, 1, "{check}"]',
        ]
    edited = good[0].replace(b"-1.0", b"-1.5")
    assert edited != good[0]
    # Whoever knows how a line is made may write what no run does.
    lines += [journal.line_of("seconds of sums", value) for value in (None, "abc", -1, 1e300, True, {}, [1])]
    torn = [good[1][:end] for end in range(1, len(good[1]))]
    bad = [line.encode() for line in lines] + [edited, b"\xff\xfe", *torn]
    file.write_bytes(b"\n".join([*good[1:2], *bad, *good[2:]]) + b"\n[1")
    again = Journal(tmp_path, {})
    with again.answering(lm, "sums"):
        assert lm.loglikelihood(asked) == first
    assert (again.reused, lm.asked) == (2, 4)
    assert 0 <= again.earlier_seconds("sums") < 60
    assert Journal(tmp_path, {})._answers.keys() >= {key}  # the end without a line break spoils nothing after it


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link", "folder of links"])
def test_what_is_no_file_of_answers_is_none(kind: str, tmp_path: Path) -> None:
    """Case journal_line: of the file's name, a folder, a pipe nobody writes, or a link to nothing."""
    place = Journal(tmp_path, {}).folder
    place.mkdir(parents=True)
    for name in ("answers-0.jsonl", "answers-1.jsonl", ".answers-0.jsonl.lock"):
        if kind == "folder" or (kind != "dangling link" and name.endswith("lock")):
            (place / name).mkdir()
        elif kind == "pipe":
            os.mkfifo(place / name)
        else:
            (place / name).symlink_to(tmp_path / "nowhere" / name)
    lm = Echo()
    with Journal(tmp_path, {}).answering(lm, "sums"):
        assert len(lm.loglikelihood([request("abc", "d")])) == 1
    assert Journal(tmp_path, {})._answers == {}


def asked(context: str, doc: Any, number: int = 0) -> Instance:
    """Return a request for a few greedy tokens."""
    kwargs = {"until": ["\n\n"], "max_gen_toks": 4, "do_sample": False}
    return Instance("generate_until", doc, (context, kwargs), 0, metadata=("asked", number, 1))


def test_a_changed_document_is_asked_again_and_an_unchanged_one_is_not(tokenizer: Any, tmp_path: Path) -> None:
    """Demand: answers may come of what a document tells besides its prompt, so that an answer to another one is none."""
    lm = CausalLM(llama(tokenizer), tokenizer, batch_size=4)
    docs = [{"question": "What is time?", "gold": [number, {"tool": "add"}]} for number in range(3)]
    requests = [asked("What is time?", doc, number) for number, doc in enumerate(docs)]
    with Journal(tmp_path, {"run": 1}).answering(lm, "asked"):
        first = lm.generate_until(requests, True)
    docs[1] = {"question": "What is time?", "gold": [7, {"tool": "add"}]}
    requests = [asked("What is time?", doc, number) for number, doc in enumerate(docs)]
    again = Journal(tmp_path, {"run": 1})
    with again.answering(lm, "asked"):
        assert lm.generate_until(requests, True) == first
    assert again.reused == 2


@pytest.mark.parametrize("doc", [{1: 2, "a": 3}, {None: 1, "a": 2}, {(1, 2): 3}, {"image": object()}])
def test_documents_that_json_cannot_hold_do_not_stop_a_run(doc: Any) -> None:
    """Demand: the journal names their requests without them, the same at every start."""
    asked = [Instance("generate_until", doc, ("text", {}), 0, metadata=("made_up", 0, 1))]
    assert journal._keys("generate_until", asked) == journal._keys("generate_until", asked)
    assert journal._keys("generate_until", asked)[0] is not None


class Contrasting(Echo):
    """Asks itself twice on its way to an answer, in two states of its model."""

    shift = 0.0

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [(value + self.shift, best) for value, best in super().loglikelihood(requests)]

    def generate_until(self, requests: list[Any]) -> list[str]:
        pairs = [request(one.args[0], "b", doc=one.doc_id) for one in requests]
        found = []
        for self.shift in (0.0, 10.0):
            found.append(self.loglikelihood(pairs))
        return [f"{second[0] - first[0]:g}" for first, second in zip(*found, strict=True)]


def test_what_an_lm_asks_itself_is_not_kept_for_another_state_of_it(tmp_path: Path) -> None:
    """Demand: a contrast of two adapters is not 0 everywhere because the second was answered with the first one's scores."""
    lm, journal = Contrasting(), Journal(tmp_path, {})
    with journal.answering(lm):
        assert lm.generate_until([request("abc", {}), request("de", {}, doc=1)]) == ["10", "10"]
    assert journal.reused == 0
