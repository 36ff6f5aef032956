"""The word list and the texts hold what the generators and tasks count on."""

from __future__ import annotations

import re
from collections import Counter

from harness.tasks.texts import TEXTS
from harness_tasks.words import WORDS


def test_there_are_1000_different_words_of_1_to_11_letters():
    assert len(WORDS) == len(set(WORDS)) == 1000
    assert {len(word) for word in WORDS} == set(range(1, 12))
    assert Counter(map(len, WORDS)).most_common(1)[0][0] == 4


def test_only_i_is_a_capital_and_two_words_have_an_apostrophe():
    assert [word for word in WORDS if not re.fullmatch("[a-z]+", word)] == ["I", "don't", "won't"]


def test_every_rule_finds_words_enough():
    for fits in (
        lambda word: len(word) >= 7,
        lambda word: len(word) <= 3,
        lambda word: len(word) >= 6,
        lambda word: len(word) <= 4,
    ):
        assert sum(map(fits, WORDS)) >= 100
    doubled = {letter for word in WORDS for letter, times in Counter(word).items() if times >= 2}
    assert len(doubled) >= 15


def test_there_are_40_texts_of_150_to_400_bytes():
    assert len(TEXTS) == len(set(TEXTS)) == 40
    assert all(150 <= len(text.encode()) <= 400 for text in TEXTS)


def test_the_first_24_texts_are_plain_english():
    assert all(re.fullmatch(r"[A-Za-z ,.;:'\-]+", text) for text in TEXTS[:24])
