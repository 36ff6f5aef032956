"""Text2Token targets: golden distributions, and what no target may hold."""

from __future__ import annotations

import random

import pytest
from embedding_golden import rows, vocabulary

from harness_contextual_embeddings.targets import data_targets, mixed, model_target

WORDS = vocabulary()
SETTINGS = {"vocabulary": WORDS["vocabulary"], "special_ids": WORDS["special_ids"], "stop_words": WORDS["stop_words"]}


def _agree(found, golden) -> None:
    assert (found is None) == (golden is None)
    if golden is not None:
        assert [token for token, _ in found] == [token for token, _ in golden]
        assert [weight for _, weight in found] == pytest.approx([weight for _, weight in golden], abs=1e-9)


@pytest.mark.parametrize("row", rows("golden_data_targets"), ids=lambda row: row["case"])
def test_targets_of_a_corpus_are_the_golden_ones(row) -> None:
    """Property 17: to 1e-9, in order of weight, skipped texts among them."""
    found = data_targets(row["texts"], vocabulary=WORDS["vocabulary"], **row["options"])
    assert len(found) == len(row["targets"])
    for target, golden in zip(found, row["targets"], strict=True):
        _agree(target, golden)


@pytest.mark.parametrize("row", rows("golden_model_targets"), ids=lambda row: row["case"])
def test_targets_of_a_model_are_the_golden_ones(row) -> None:
    """Property 17."""
    options = {"vocabulary": WORDS["vocabulary"], **row["options"]}
    _agree(model_target(row["logits"], row["mean_logits"], row["text"], **options), row["target"])


@pytest.mark.parametrize("tf", ["log", "count", "binary"])
def test_targets_are_small_distributions_over_words(tf) -> None:
    """Property 17: sums 1, no special or stop token, at most top_k tokens."""
    draws = random.Random(0)
    texts = [[draws.randrange(49) for _ in range(draws.randrange(9))] for _ in range(30)]
    stopped = {n for n, text in enumerate(WORDS["vocabulary"]) if text.strip().lower() in WORDS["stop_words"]}
    for target in data_targets(texts, **SETTINGS, top_k=5, max_df=0.5, tf=tf):
        if target is not None:
            assert sum(weight for _, weight in target) == pytest.approx(1, abs=1e-12)
            assert len(target) <= 5
            assert not {token for token, _ in target} & (stopped | {0, 1, 2, 9, 10, 11, 12, 13, 14})


def test_a_token_of_every_text_says_nothing_and_a_text_of_such_is_skipped() -> None:
    """Property 17: its weight is 0."""
    found = data_targets([[15, 16], [15, 17], [15]], **SETTINGS, top_k=9, max_df=1.0, tf="count")
    assert found == [[(16, 1.0)], [(17, 1.0)], None]


def test_a_corpus_twice_changes_rarity_by_the_added_ones_alone() -> None:
    """Property 17: ln((1 + 2N) / (1 + 2 df)) in the place of ln((1 + N) / (1 + df))."""
    import math

    texts = [[15, 16, 16], [15, 17], [18]]
    [found, *_] = data_targets(texts * 2, **SETTINGS, top_k=9, max_df=1.0, tf="count")
    weights = {15: math.log(7 / 5), 16: 2 * math.log(7 / 3)}
    assert dict(found) == pytest.approx({token: w / sum(weights.values()) for token, w in weights.items()})


def test_equal_weights_stand_by_id() -> None:
    [found, _] = data_targets([[18, 15, 17, 16], [40]], **SETTINGS, top_k=3, max_df=1.0, tf="log")
    assert [token for token, _ in found] == [15, 16, 17]


def test_a_model_that_may_say_nothing_gives_no_target() -> None:
    options = {**SETTINGS, "stop_words": [text.strip().lower() for text in WORDS["vocabulary"]]}
    assert model_target([0.0] * 49, None, [], prior=False, **options) is None


def test_a_mixture_is_the_union_and_a_missing_side_gives_way() -> None:
    data, model = [(3, 0.75), (4, 0.25)], [(4, 0.5), (9, 0.5)]
    assert mixed(data, model, 0.5) == [(3, 0.375), (4, 0.375), (9, 0.25)]
    assert mixed(data, None, 0.5) == data
    assert mixed(None, model, 0.5) == model
    assert mixed(None, None, 0.5) is None
    assert mixed(data, model, 1.0) == data
