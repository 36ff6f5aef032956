"""Planted stories: what is said of the error is true, and nothing else gives it away."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Any

import pytest

from harness import HarnessError
from harness.models.causal import CausalLM
from harness.models.spans import first_token
from harness_critical_tokens.encoding import encode
from harness_critical_tokens.phrasings import STYLES, styles_named
from harness_critical_tokens.stories import KINDS, write_stories
from harness_critical_tokens.verify import is_right

EQUATION = re.compile(r"([0-9]+) ([-+*]) ([0-9]+) = ([0-9]+)")


def false_sums(text: str) -> int:
    operations = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    return sum(
        operations[sign](int(left), int(right)) != int(result) for left, sign, right, result in EQUATION.findall(text)
    )


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return write_stories(250, seed=0, styles="mixed")


def test_all_that_is_said_of_an_error_is_so(rows):
    """Property 27: text at the spans, arithmetic before them, final answers."""
    for row in rows:
        rejected, (start, end) = row["rejected"], row["critical_span"]
        assert rejected[start:end] == row["wrong_text"] != row["right_text"]
        assert len(row["wrong_text"]) == len(row["right_text"])
        place = row["first_wrong_char"] - start
        assert row["wrong_text"][:place] == row["right_text"][:place]
        assert row["wrong_text"][place] != row["right_text"][place]
        assert false_sums(row["chosen"]) == 0
        assert false_sums(rejected) == (row["kind"] == "result")
        assert false_sums(rejected[:start]) == 0
        assert is_right(row["chosen"], str(row["answer"]), "number")
        assert is_right(rejected, str(row["rejected_answer"]), "number")
        assert row["answer"] != row["rejected_answer"]
        assert row["prompt"].endswith("\nAnswer:") and row["chosen"][0] == rejected[0] == " "
        for first, last in row["propagated_spans"]:
            assert first >= end and rejected[first:last].isdigit() and rejected[first - 1] == " "
        steps = len(EQUATION.findall(rejected))
        assert row["step"] == (steps if row["kind"] == "final" else len(EQUATION.findall(rejected[:start])))


def test_an_error_is_of_its_kind(rows):
    """The right text put in its place mends the sum, and a miscopied number is not named in words before."""
    for row in rows:
        start, end = row["critical_span"]
        sums = [match for match in EQUATION.finditer(row["rejected"]) if match.end() >= end > match.start()]
        if row["kind"] == "final":
            assert "answer is" in row["rejected"][:start].rpartition(".")[2].rpartition("!")[2].lower()
            assert not row["propagated_spans"]
            continue
        [equation] = sums
        slot = {"carry": 1, "operator": 2, "operand": 3, "result": 4}[row["kind"]]
        assert equation.span(slot) == (start, end)
        assert row["propagated_spans"]
        if row["kind"] == "operand":
            sentence = re.split(r"[.!:] ", row["rejected"][: equation.start()])[-1]
            assert row["right_text"] not in re.findall("[0-9]+", sentence)


def test_kinds_and_styles_take_turns_and_the_first_difference_gives_nothing_away(rows):
    assert Counter(row["kind"] for row in rows) == dict.fromkeys(KINDS, 50)
    assert Counter(row["style"] for row in rows) == dict.fromkeys(STYLES, 50)
    for style in STYLES:
        of_style = [row for row in rows if row["style"] == style]
        first = [
            next(n for n, (a, b) in enumerate(zip(row["chosen"], row["rejected"], strict=False)) if a != b)
            for row in of_style
        ]
        given_away = sum(n == row["first_wrong_char"] for n, row in zip(first, of_style, strict=True))
        assert given_away <= 0.25 * len(of_style)


def test_the_same_seed_writes_the_same_and_no_sums_are_shared():
    train, longer = write_stories(20, seed=3), write_stories(30, seed=3)
    assert longer[:20] == train == write_stories(20, seed=3)
    assert write_stories(20, seed=4) != train

    def sums(rows: list[dict[str, Any]]) -> set[tuple[str, ...]]:
        return {tuple(EQUATION.findall(row["chosen"])) for row in rows}

    made = [
        sums(write_stories(150, seed=seed, styles=style, split=split))
        for seed, style, split in (
            (0, "plain", "train"),
            (1, "notes", "train"),
            (0, "plain", "test"),
            (2, "mixed", "test"),
        )
    ]
    assert all(len(one) == 150 for one in made)
    assert not (made[0] | made[1]) & (made[2] | made[3])
    told = [
        {row["prompt"].partition(":")[2].strip() for row in write_stories(50, seed=0, styles=style)} for style in STYLES
    ]
    assert not set.intersection(*told)


def test_styles_share_no_sentence():
    """What is unfamiliar in one style is told in no other."""
    for one, other in itertools.combinations(STYLES.values(), 2):
        sentences = [
            {
                *style.starts,
                *style.asks,
                *style.firsts,
                *style.lasts,
                *style.people,
                *style.things,
                *itertools.chain(*style.changes.values()),
                *itertools.chain(*style.steps.values()),
            }
            for style in (one, other)
        ]
        assert not sentences[0] & sentences[1]
    for style in STYLES.values():
        assert all(any("{number}" not in step for step in steps) for steps in style.steps.values())


def test_every_critical_character_lies_in_a_token(rows, smollm2_tokenizer, tiny_model):
    """Property 27: tokens tile the response, and one covers the first wrong character; ids do not depend on the stage."""
    from transformers import LlamaForCausalLM

    lm = CausalLM(LlamaForCausalLM.from_pretrained(tiny_model), smollm2_tokenizer)
    for row in rows[::5]:
        for side in ("chosen", "rejected"):
            found = encode(lm, row["prompt"], row[side])
            assert not found.straddles
            assert "".join(row[side][first:last] for first, last in found.offsets) == row[side]
        token = first_token(found.offsets, row["first_wrong_char"])
        first, last = found.offsets[token]
        assert first <= row["first_wrong_char"] < last
        assert smollm2_tokenizer.decode(found.response_ids[token]) == row["rejected"][first:last]


def test_what_cannot_be_written_is_said_in_one_sentence():
    for arguments, words in (
        ({"count": 0}, "0 stories cannot be written"),
        ({"count": 1, "styles": "plain+note"}, "there is no style 'note' of stories; did you mean 'notes'"),
        ({"count": 1, "split": "dev"}, "there is no split 'dev'"),
    ):
        with pytest.raises(HarnessError, match=re.escape(words)):
            write_stories(seed=0, **arguments)
    assert styles_named("mixed") == list(STYLES)
