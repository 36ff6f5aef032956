"""Training windows and supervised examples: what is trained on, exactly."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from harness import HarnessError
from harness.methods.corpus import Corpus
from harness_stochastok.examples import rows
from harness_stochastok.windows import Resplitter, Windows, expansion_report

TEXT = "The clockmaker wound forty clocks in the order in which he had bought them, every single Sunday."
CORPUS = Corpus("test", [f"{TEXT} Number {number}." for number in range(40)], "digest")


def resplitter(tokenizer: Any, scheme: str = "stochastok", *, proportion: float = 0.5, seed: int = 0) -> Resplitter:
    return Resplitter(tokenizer, scheme, proportion, 0.1, seed)


def first(windows: Windows, count: int) -> list[list[int]]:
    return list(itertools.islice(windows, count))


def windows_of(
    tokenizer: Any, scheme: str = "stochastok", *, seed: int = 0, once: bool = False, needed: int = 10**6
) -> Windows:
    return Windows(CORPUS, resplitter(tokenizer, scheme, seed=seed), 32, tokens_needed=needed, once=once)


def test_every_window_has_the_length_asked_for_over_several_epochs(tokenizer: Any) -> None:
    windows = windows_of(tokenizer)
    per_epoch = sum(len(ids) for _, _, ids in windows.documents) // 32
    assert {len(window) for window in first(windows, 5 * per_epoch)} == {32}


def test_equal_seeds_give_equal_windows_and_other_seeds_others(tokenizer: Any) -> None:
    assert first(windows_of(tokenizer), 20) == first(windows_of(tokenizer), 20)
    assert first(windows_of(tokenizer), 20) != first(windows_of(tokenizer, seed=1), 20)


def test_scheme_none_trains_on_the_ordinary_tokens_in_order(tokenizer: Any) -> None:
    windows = windows_of(tokenizer, "none")
    stream = [token for _, _, ids in windows.documents for token in ids]
    text = tokenizer.decode(stream)
    assert all(tokenizer.decode(window) in text for window in first(windows, 10))


@pytest.mark.parametrize("scheme", ["stochastok", "bpe_dropout"])
def test_resplit_text_still_reads_the_same(tokenizer: Any, scheme: str) -> None:
    maker = resplitter(tokenizer, scheme)
    ids = maker.encode(TEXT)
    split = maker.resplit(TEXT, ids, epoch=0, document=0)
    assert len(split) > len(ids)
    assert tokenizer.decode(split) == tokenizer.decode(ids) == f"{TEXT}<|end|>"


def test_each_epoch_and_document_is_split_anew_unless_once(tokenizer: Any) -> None:
    maker = resplitter(tokenizer)
    ids = maker.encode(TEXT)
    draws = [maker.resplit(TEXT, ids, epoch=epoch, document=document) for epoch, document in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(draw) for draw in draws}) == 3
    assert draws[0] == maker.resplit(TEXT, ids, epoch=0, document=0)

    once, anew = windows_of(tokenizer, once=True, needed=32), windows_of(tokenizer, needed=32)
    for windows in (once, anew):
        first(windows, 40)  # far more than one epoch of the two or three documents this needs
    assert once.resplitter.growth.documents == len(once.documents)
    assert anew.resplitter.growth.documents > len(anew.documents)


def test_growth_counts_what_happened(tokenizer: Any) -> None:
    maker = resplitter(tokenizer)
    expansion_report(CORPUS, maker)
    report = maker.growth.report()
    before = sum(len(maker.encode(text)) for text in CORPUS.documents)
    attempts = sum(len(maker.encode(text)) // 2 for text in CORPUS.documents)
    assert (report["documents"], report["tokens_before"], report["attempts"]) == (40, before, attempts)
    assert report["tokens_after"] - before == report["successes"] <= attempts
    assert report["growth"] == pytest.approx(report["successes"] / before, abs=1e-4)


def test_no_more_text_is_read_than_training_needs(tokenizer: Any) -> None:
    assert len(windows_of(tokenizer, needed=100).documents) < 10
    assert len(windows_of(tokenizer).documents) == 40


def test_a_text_shorter_than_one_window_is_refused(tokenizer: Any) -> None:
    with pytest.raises(HarnessError, match="has 3 tokens, fewer than one window of 32"):
        first(Windows(Corpus("short", ["ab"], "digest"), resplitter(tokenizer), 32, tokens_needed=1), 1)


def test_the_loss_of_an_example_is_on_its_answer_alone(tokenizer: Any) -> None:
    prompt, answer = "Which is longest? Answer:", " clockmaker"
    ids, labels = next(rows([(prompt, answer)], resplitter(tokenizer), length=64, expand_examples=False))
    answer_ids = tokenizer.encode(answer)
    assert labels[-len(answer_ids) :] == answer_ids == ids[-len(answer_ids) :]
    assert set(labels[: -len(answer_ids)]) == {-100}
    assert tokenizer.decode(ids) == prompt + answer


def test_expanded_examples_keep_their_border_and_fit_the_context(tokenizer: Any) -> None:
    prompt, answer = "Which is longest? Answer:", " clockmaker"
    whole = len(tokenizer.encode(prompt)) + len(tokenizer.encode(answer))
    maker = resplitter(tokenizer, proportion=3.0)
    for length in (whole, whole + 3, 256):
        for ids, labels in itertools.islice(rows([(prompt, answer)], maker, length=length, expand_examples=True), 20):
            assert len(ids) == len(labels) <= length
            border = labels.count(-100)
            assert tokenizer.decode(ids[:border]) == prompt and tokenizer.decode(ids[border:]) == answer
            assert labels[border:] == ids[border:]


def test_a_long_prompt_is_cut_on_the_left_and_an_answer_never(tokenizer: Any) -> None:
    ids, labels = next(rows([("word " * 200, " clockmaker")], resplitter(tokenizer), length=16, expand_examples=False))
    assert len(ids) == 16 and tokenizer.decode(ids).endswith(" clockmaker") and labels.count(-100) > 0
    with pytest.raises(HarnessError, match="an example's answer has"):
        next(rows([("q", "clockmaker " * 50)], resplitter(tokenizer), length=16, expand_examples=False))
