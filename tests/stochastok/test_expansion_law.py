"""What random expansion keeps, and the law of what it changes."""

from __future__ import annotations

import json
import multiprocessing
import random
import statistics
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from stochastok_vocabularies import PARAGRAPH, Vocabulary, golden, replay, toy_table

from harness.errors import HarnessError
from harness.seeds import stream_seed
from harness_stochastok.splitting import SplitTable, count_attempts, expand

PROPORTIONS = [0.05, 0.1, 0.5, 1.0]
TEXTS = st.lists(
    st.sampled_from(
        ["<|im_start|>", "<|im_end|>", "<|endoftext|>", " the", "unbelievable", "🎉👩‍👩‍👧", "\x04", "\n\n", "  "]
    )
    | st.text(max_size=20),
    max_size=12,
).map("".join)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
GOLDEN_SEEDS = 10_000


def runs(token_ids: Sequence[int], piece_ids: Sequence[int], vocabulary: Vocabulary) -> list[list[int]]:
    """Cut pieces into one run for each token, with the bytes of that token."""
    pieces = iter(piece_ids)
    cut = []
    for token in token_ids:
        run = [next(pieces)]
        while len(vocabulary.spell(run)) < len(vocabulary.spell([token])):
            run.append(next(pieces))
        assert vocabulary.spell(run) == vocabulary.spell([token])
        cut.append(run)
    assert not list(pieces)
    return cut


@QUICK
@given(text=TEXTS, seed=st.integers(), proportion=st.floats(0, 20))
def test_expansion_keeps_the_text(smollm2: Vocabulary, text: str, seed: int, proportion: float) -> None:
    """Property 1: the decoded text and the bytes stay, whatever the text, special tokens among it."""
    assert_text_stays(smollm2, text, seed, proportion)


@QUICK
@given(text=TEXTS, seed=st.integers(), proportion=st.floats(0, 20))
def test_expansion_keeps_the_text_in_every_family(family: Vocabulary, text: str, seed: int, proportion: float) -> None:
    """Property 1, for small tokenizers of all families."""
    assert_text_stays(family, text, seed, proportion)


def assert_text_stays(vocabulary: Vocabulary, text: str, seed: int, proportion: float) -> None:
    token_ids = vocabulary.encode(text)
    piece_ids = expand(token_ids, vocabulary.table, proportion=proportion, seed=seed)
    assert vocabulary.tokenizer.decode(piece_ids) == vocabulary.tokenizer.decode(token_ids)
    assert vocabulary.spell(piece_ids) == vocabulary.spell(token_ids)


@QUICK
@given(text=TEXTS, seed=st.integers(), proportion=st.floats(0, 20))
def test_expansion_gains_at_most_one_token_an_attempt(
    smollm2: Vocabulary, text: str, seed: int, proportion: float
) -> None:
    """Property 2: between 0 and ``attempts`` more tokens, and never more tokens than bytes and special tokens."""
    token_ids = smollm2.encode(text)
    piece_ids = expand(token_ids, smollm2.table, proportion=proportion, seed=seed)
    assert 0 <= len(piece_ids) - len(token_ids) <= count_attempts(len(token_ids), proportion)
    assert len(piece_ids) <= sum(len(smollm2.bytes_of.get(token, b".")) for token in token_ids)


@QUICK
@given(text=TEXTS, seed=st.integers(), proportion=st.floats(0, 20))
def test_expansion_refines_the_tokens(smollm2: Vocabulary, text: str, seed: int, proportion: float) -> None:
    """Property 3: every token became a run of pieces with its bytes; one without a split is still itself."""
    token_ids = smollm2.encode(text)
    piece_ids = expand(token_ids, smollm2.table, proportion=proportion, seed=seed)
    for token, run in zip(token_ids, runs(token_ids, piece_ids, smollm2), strict=True):
        assert run == [token] or token in smollm2.table


@QUICK
@given(data=st.data(), seed=st.integers(), proportion=st.floats(0, 20))
def test_special_tokens_keep_their_place(
    smollm2: Vocabulary, data: st.DataObject, seed: int, proportion: float
) -> None:
    """Property 4: same special tokens in the same order, with the same bytes between them."""
    ids = st.integers(0, len(smollm2.tokenizer) - 1) | st.integers(0, 16)
    token_ids = data.draw(st.lists(ids, max_size=40))
    piece_ids = expand(token_ids, smollm2.table, proportion=proportion, seed=seed)
    special = smollm2.tokenizer.added_tokens_decoder.keys()
    assert [token for token in piece_ids if token in special] == [token for token in token_ids if token in special]
    assert smollm2.spell(piece_ids) == smollm2.spell(token_ids)


def test_text_that_spells_a_special_token_stays_text(smollm2: Vocabulary) -> None:
    """Property 4: pieces of typed '<|im_end|>' stay ordinary ids, and none becomes the special one."""
    token_ids = [token for part in ("<|im", "_end", "|>") for token in smollm2.encode(part)]
    assert smollm2.tokenizer.decode(token_ids) == "<|im_end|>"
    for seed in range(200):
        piece_ids = expand(token_ids, smollm2.table, proportion=1, seed=seed)
        assert not smollm2.tokenizer.added_tokens_decoder.keys() & set(piece_ids)


def documents() -> list[list[int]]:
    """Return 40 documents in ids of the toy vocabulary."""
    return [[38 + (index + token) % 50 for token in range(index + 20)] for index in range(40)]


def expand_document(index: int) -> list[int]:
    """Expand one document with the stream of its own."""
    return expand(documents()[index], toy_table(), proportion=0.5, seed=stream_seed(7, 0, index))


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_and_order_do_not_matter(workers: int) -> None:
    """Property 6: documents spread over other processes, last first, come out the same."""
    expected = [expand_document(index) for index in range(40)]
    assert expected == [expand_document(index) for index in range(40)]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [
            pool.submit(expand, documents()[index], toy_table(), proportion=0.5, seed=stream_seed(7, 0, index))
            for index in reversed(range(40))
        ]
        assert [future.result() for future in reversed(futures)] == expected


def test_another_program_gives_the_same() -> None:
    """Property 6: neither the process nor its hash seed plays a part."""
    program = (
        "import json, sys; from harness.seeds import stream_seed; from harness_stochastok.splitting import expand;"
        "ids, table = json.load(sys.stdin);"
        "table = {int(token): splits for token, splits in table.items()};"
        "print(expand(ids, table, proportion=0.5, seed=stream_seed(7, 0, 39)))"
    )
    given_ids = json.dumps([documents()[39], toy_table()])
    answer = subprocess.run(
        [sys.executable, "-c", program], input=given_ids, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert json.loads(answer.stdout) == expand_document(39)


def test_another_seed_gives_another_result(smollm2: Vocabulary) -> None:
    """Property 6: long input comes out differently for every seed, negative ones included."""
    token_ids = smollm2.encode(PARAGRAPH)
    results = {tuple(expand(token_ids, smollm2.table, proportion=0.5, seed=seed)) for seed in range(-50, 50)}
    assert len(results) == 100


def test_global_random_state_is_untouched(smollm2: Vocabulary) -> None:
    """Property 7: a call leaves the generators of Python, NumPy and Torch where they were."""
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
    expand(smollm2.encode(PARAGRAPH), smollm2.table, proportion=0.5, seed=0)
    assert before == (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())


@pytest.mark.parametrize("row", golden("toy_exact_distributions.jsonl"), ids=lambda row: f"{row['ids']}-{row['steps']}")
def test_toy_outcomes_follow_the_exact_law(row: dict[str, Any]) -> None:
    """Property 8: in the toy vocabulary."""
    assert_law_is_exact(row, toy_table())


def test_outcomes_follow_the_exact_law(name: str, vocabulary: Vocabulary) -> None:
    """Property 8: in GPT-2's and SmolLM2's."""
    for row in golden(f"{name}_exact_distributions.jsonl"):
        assert_law_is_exact(row, vocabulary.table)


def assert_law_is_exact(row: dict[str, Any], table: SplitTable, draws: int = 20_000) -> None:
    """No outcome outside the list, and frequencies below the 0.9999 quantile of chi-square."""
    token_ids, steps = row["ids"], row["steps"]
    # Half a step more than asked for, so that the product cannot round below it.
    proportion = (steps + 0.5) / len(token_ids) if token_ids else 1.0
    seen = Counter(tuple(expand(token_ids, table, proportion=proportion, seed=seed)) for seed in range(draws))
    expected = {tuple(outcome["ids"]): outcome["value"] * draws for outcome in row["outcomes"]}
    assert seen.keys() <= expected.keys()
    statistic = sum((seen[ids] - mean) ** 2 / mean for ids, mean in expected.items())
    assert len(expected) == 1 or statistic < chi2.ppf(0.9999, len(expected) - 1)


@pytest.mark.parametrize("proportion", PROPORTIONS)
def test_growth_has_the_golden_mean_and_spread(name: str, vocabulary: Vocabulary, proportion: float) -> None:
    """Property 9: tokens gained, over own seeds, for each of the 20 texts."""
    ids_of = {text["text_index"]: text["ids"] for text in golden(f"{name}_texts.jsonl")}
    draws = 2_000
    for row in golden(f"{name}_expansion_statistics.jsonl"):
        token_ids = ids_of[row["text_index"]]
        if row["proportion"] != proportion or row["steps"] == 0:
            continue
        extra = [
            len(expand(token_ids, vocabulary.table, proportion=proportion, seed=seed)) - len(token_ids)
            for seed in range(draws)
        ]
        assert count_attempts(len(token_ids), proportion) == row["steps"]
        assert_mean_is_near(statistics.mean(extra), row, draws)
        assert statistics.stdev(extra) == pytest.approx(row["extra_std"], rel=0.1)


def test_growth_of_long_input_has_the_golden_mean(name: str, vocabulary: Vocabulary) -> None:
    """Property 9: 2,880 tokens, more than one bucket of them."""
    row = golden(f"{name}_long_input.json")
    token_ids = golden(f"{name}_texts.jsonl")[17]["ids"] * 40
    extra = [
        len(expand(token_ids, vocabulary.table, proportion=row["proportion"], seed=seed)) - len(token_ids)
        for seed in range(400)
    ]
    assert_mean_is_near(statistics.mean(extra), row, len(extra))


def assert_mean_is_near(mean: float, row: dict[str, Any], draws: int) -> None:
    standard_error = row["extra_std"] * (1 / row["seeds"] + 1 / draws) ** 0.5
    assert abs(mean - row["extra_mean"]) <= 4.5 * standard_error, (row["text_index"], mean, row["extra_mean"])


@pytest.mark.parametrize("proportion", PROPORTIONS)
def test_every_token_fares_as_the_golden_one(name: str, vocabulary: Vocabulary, proportion: float) -> None:
    """Property 10: per original token, the share of runs that left it whole and its mean number of pieces."""
    ids_of = {text["text_index"]: text["ids"] for text in golden(f"{name}_texts.jsonl")}
    for row in golden(f"{name}_expansion_statistics.jsonl"):
        if row["proportion"] != proportion or "fraction_left_whole" not in row or row["steps"] == 0:
            continue
        token_ids = ids_of[row["text_index"]]
        token_ends = np.cumsum([len(vocabulary.bytes_of[token]) for token in token_ids])
        pieces = np.empty((GOLDEN_SEEDS, len(token_ids)), dtype=np.int64)
        for seed in range(GOLDEN_SEEDS):
            piece_ids = expand(token_ids, vocabulary.table, proportion=proportion, seed=seed)
            piece_ends = list(accumulate(len(vocabulary.bytes_of[piece]) for piece in piece_ids))
            pieces[seed] = np.searchsorted(piece_ends, token_ends) + 1
        pieces[:, 1:] -= pieces[:, :-1].copy()
        tolerance = 0.03 if proportion <= 0.1 else 0.08
        np.testing.assert_allclose((pieces == 1).mean(0), row["fraction_left_whole"], rtol=0, atol=0.03)
        np.testing.assert_allclose(pieces.mean(0), row["mean_pieces_per_token"], rtol=0, atol=tolerance)


def test_splits_of_one_token_are_equally_likely(smollm2: Vocabulary) -> None:
    """Property 11: one attempt on a token with k splits makes each of them in 1 of k cases."""
    draws = 5_000
    for count in (2, 3, 5, 9, 37):
        token = next(token for token, splits in smollm2.table.items() if len(splits) == count)
        seen = Counter(tuple(expand([token], smollm2.table, proportion=1, seed=seed)) for seed in range(draws))
        assert seen.keys() <= set(smollm2.table[token])
        standard_error = (draws * (1 / count) * (1 - 1 / count)) ** 0.5
        assert all(abs(seen[pair] - draws / count) <= 4.5 * standard_error for pair in smollm2.table[token])


def test_every_position_is_equally_likely() -> None:
    """Property 11, of positions: one attempt on a list of several buckets splits each token in 1 of n cases."""
    table, tokens, draws = {0: [(1, 2)]}, 1_500, 15_000
    seen = [expand([0] * tokens, table, proportion=1.5 / tokens, seed=seed).index(1) for seed in range(draws)]
    statistic = sum((count - 10) ** 2 / 10 for count in np.bincount(seen, minlength=tokens))
    assert chi2.ppf(0.0001, tokens - 1) < statistic < chi2.ppf(0.9999, tokens - 1)


def test_results_are_those_that_replay_can_reach(smollm2: Vocabulary) -> None:
    """Property 12: two attempts give exactly the results that all possible draws give."""
    token_ids = smollm2.encode(" strawberry")
    reachable = {
        tuple(replay(token_ids, smollm2.table, [first, second]))
        for first in possible_draws(token_ids, smollm2.table)
        for second in possible_draws(replay(token_ids, smollm2.table, [first]), smollm2.table)
    }
    assert len(token_ids) == 1 and len(reachable) > 2
    assert {tuple(expand(token_ids, smollm2.table, proportion=2, seed=seed)) for seed in range(2_000)} == reachable


def possible_draws(pieces: list[int], table: SplitTable) -> list[tuple[int, int | None]]:
    """Return every position with every split there."""
    return [
        (position, choice)
        for position, piece in enumerate(pieces)
        for choice in (range(len(table[piece])) if piece in table else [None])
    ]


def test_nothing_happens_without_an_attempt(vocabulary: Vocabulary) -> None:
    """Property 13: proportion 0, no tokens, or too few for one attempt leave the input as it is."""
    token_ids = vocabulary.encode(PARAGRAPH)
    assert expand(token_ids, vocabulary.table, proportion=0, seed=0) == token_ids
    assert expand(token_ids[:9], vocabulary.table, proportion=0.1, seed=0) == token_ids[:9]
    assert expand([], vocabulary.table, proportion=1e9, seed=0) == []
    assert expand(token_ids, vocabulary.table, proportion=1, seed=0, max_splits=0) == token_ids


@pytest.mark.parametrize("proportion", [1e4, 1e9, 1e308, 10**400])
def test_huge_proportion_ends_at_single_bytes(vocabulary: Vocabulary, proportion: float) -> None:
    """Property 13: where every longer token has a split, everything is split at last, and quickly so."""
    token_ids = vocabulary.encode(PARAGRAPH)
    piece_ids = expand(token_ids, vocabulary.table, proportion=proportion, seed=0)
    assert [vocabulary.bytes_of[piece] for piece in piece_ids] == [bytes([byte]) for byte in PARAGRAPH.encode()]


def test_canonical_text_stays_canonical(name: str, vocabulary: Vocabulary) -> None:
    """Property 14: encoding the decoded expansion gives the tokens back, wherever it does for the text."""
    for row in golden(f"{name}_texts.jsonl"):
        token_ids = row["ids"]
        assert vocabulary.encode(row["text"]) == token_ids
        assert (vocabulary.encode(vocabulary.tokenizer.decode(token_ids)) == token_ids) == row["decodes_back"]
        for seed, proportion in enumerate(PROPORTIONS):
            piece_ids = expand(token_ids, vocabulary.table, proportion=proportion, seed=seed)
            if row["decodes_back"]:
                assert vocabulary.encode(vocabulary.tokenizer.decode(piece_ids)) == token_ids


class CountingTable(dict[int, list[tuple[int, int]]]):
    """A split table that counts how often a token is looked up in it."""

    lookups = 0

    def get(self, token: int, default: Any = None) -> Any:
        """Count, and look up."""
        self.lookups += 1
        return super().get(token, default)


@pytest.mark.parametrize("tokens", [1_000, 50_000, 100_000])
def test_work_grows_with_the_attempts_alone(smollm2: Vocabulary, tokens: int) -> None:
    """Property 15: one look-up an attempt, at any length; ``benchmarks/expansion.py`` measures the time."""
    paragraph_ids = smollm2.encode(PARAGRAPH)
    token_ids = (paragraph_ids * (tokens // len(paragraph_ids) + 1))[:tokens]
    table = CountingTable(smollm2.table)
    expand(token_ids, table, proportion=0.1, seed=0)
    assert table.lookups == tokens // 10


def test_caller_keeps_the_list(smollm2: Vocabulary) -> None:
    """The result is a new list, also where nothing changed."""
    token_ids = smollm2.encode(PARAGRAPH)
    copy = list(token_ids)
    for proportion in (0, 1):
        assert expand(token_ids, smollm2.table, proportion=proportion, seed=0) is not token_ids
        assert token_ids == copy


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_array_comes_back_as_an_array(smollm2: Vocabulary, dtype: type[np.generic]) -> None:
    """An array of NumPy keeps its dtype and is not modified."""
    token_ids = smollm2.encode(PARAGRAPH)
    given_ids = np.array(token_ids, dtype=dtype)
    piece_ids = expand(given_ids, smollm2.table, proportion=0.5, seed=3)
    assert isinstance(piece_ids, np.ndarray) and piece_ids.dtype == dtype
    assert piece_ids.tolist() == expand(token_ids, smollm2.table, proportion=0.5, seed=3)
    assert given_ids.tolist() == token_ids


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_tensor_comes_back_as_a_tensor(smollm2: Vocabulary, dtype: torch.dtype) -> None:
    """A tensor keeps its dtype and is not modified."""
    token_ids = smollm2.encode(PARAGRAPH)
    given_ids = torch.tensor(token_ids, dtype=dtype)
    piece_ids = expand(given_ids, smollm2.table, proportion=0.5, seed=3)
    assert isinstance(piece_ids, torch.Tensor) and piece_ids.dtype == dtype
    assert piece_ids.tolist() == expand(token_ids, smollm2.table, proportion=0.5, seed=3)
    assert given_ids.tolist() == token_ids
    assert expand(given_ids[:0], smollm2.table, proportion=1, seed=0).dtype == dtype


def test_other_sequences_come_back_as_a_list_of_integers(smollm2: Vocabulary) -> None:
    """Ids equal by value are found, whatever integers and containers they come in."""
    token_ids = smollm2.encode(PARAGRAPH)
    expected = expand(token_ids, smollm2.table, proportion=0.5, seed=3)
    for given_ids in (
        tuple(token_ids),
        iter(token_ids),
        array("i", token_ids),
        [np.int32(token) for token in token_ids],
        [torch.tensor(token) for token in token_ids],
        [*token_ids[:5], *np.array(token_ids[5:])],
    ):
        piece_ids = expand(given_ids, smollm2.table, proportion=0.5, seed=3)
        assert piece_ids == expected
        assert {type(piece) for piece in piece_ids} == {int}
    assert expand(token_ids, smollm2.table, proportion=0.5, seed=np.int64(3)) == expected


def test_batch_of_texts_is_refused() -> None:
    """Padding must not be drawn, so sequences are expanded one by one."""
    for batch in (np.zeros((2, 3), dtype=np.int64), torch.zeros((2, 3), dtype=torch.int64)):
        with pytest.raises(HarnessError, match="token ids of 2 dimensions"):
            expand(batch, {}, proportion=1, seed=0)


def test_unknown_ids_pass_through() -> None:
    """Ids outside the vocabulary take part in the draw and stay."""
    piece_ids = expand([5, -1, 10**12] * 20, {5: [(6, 7)]}, proportion=10, seed=0)
    assert piece_ids == [6, 7, -1, 10**12] * 20


@pytest.mark.parametrize("limit", [1, 7, 40])
def test_successes_stop_at_the_limit(smollm2: Vocabulary, limit: int) -> None:
    """With ``max_splits`` the draws are the same, up to that many successes."""
    token_ids = smollm2.encode(PARAGRAPH)
    piece_ids = expand(token_ids, smollm2.table, proportion=3, seed=0, max_splits=limit)
    assert len(piece_ids) == len(token_ids) + limit
    assert len(runs(token_ids, piece_ids, smollm2)) == len(token_ids)
    assert len(expand(token_ids[:20], smollm2.table, proportion=0.05, seed=0, max_splits=limit)) <= 21


def test_negative_limit_is_refused() -> None:
    """The message says what to give instead."""
    with pytest.raises(HarnessError, match="max_splits -1 is not possible: give 0 or more"):
        expand([1], {}, proportion=1, seed=0, max_splits=-1)


def test_impossible_proportion_is_refused() -> None:
    """Also for an empty list."""
    for proportion in (-1, float("nan"), float("inf")):
        with pytest.raises(HarnessError, match="is not possible"):
            expand([], {}, proportion=proportion, seed=0)
