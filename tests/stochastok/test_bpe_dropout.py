"""BPE-dropout: the tokenizer's own ids without dropout, the published law with it."""

from __future__ import annotations

import multiprocessing
import random
import statistics
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import groupby, pairwise, product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from stochastok_vocabularies import PARAGRAPH, Vocabulary, build_family, golden
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from harness.errors import HarnessError
from harness_stochastok.bpe_dropout import BpeDropout

BPE_FAMILIES = ["byte_level", "sentencepiece", "metaspace", "word_end"]
TEXTS = st.lists(
    st.sampled_from(["</s>", "<pad>", " the ferryman", "rewritten", "🎉👩‍👩‍👧", "\x04", "\n\n", "  ", "▁", "nnnnnn"])
    | st.text(max_size=20),
    max_size=12,
).map("".join)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@pytest.fixture(scope="module", params=BPE_FAMILIES)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    """Tiny BPE tokenizers of every family, with added tokens that take white space or follow normalisation."""
    built = build_family(request.param)
    built.add_tokens([AddedToken("<left>", lstrip=True), AddedToken("river", single_word=True, normalized=True)])
    return built


def own_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


@QUICK
@given(text=TEXTS)
def test_without_dropout_ids_are_the_tokenizers(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """Every merge is made: special tokens, unknown characters and byte fallback come out as the tokenizer has them."""
    text = f"{text} <left>river rivers{text}"
    assert BpeDropout.from_tokenizer(tokenizer, dropout=0).encode(text, seed=0) == own_ids(tokenizer, text)


def test_without_dropout_ids_are_the_golden_ones(name: str, vocabulary: Vocabulary) -> None:
    """On the 20 golden texts and a paragraph."""
    encoder = BpeDropout.from_tokenizer(vocabulary.tokenizer, dropout=0)
    for row in golden(f"{name}_texts.jsonl"):
        assert encoder.encode(row["text"], seed=0) == row["ids"]
    assert encoder.encode(PARAGRAPH, seed=0) == vocabulary.encode(PARAGRAPH)


@QUICK
@given(text=TEXTS, seed=st.integers(), dropout=st.sampled_from([0.1, 0.5, 1.0]))
def test_dropout_keeps_the_text(tokenizer: PreTrainedTokenizerBase, text: str, seed: int, dropout: float) -> None:
    """The ids decode to what the tokenizer's own ids decode to, and there are at least as many."""
    token_ids = own_ids(tokenizer, text)
    piece_ids = BpeDropout.from_tokenizer(tokenizer, dropout).encode(text, seed=seed)
    assert tokenizer.decode(piece_ids) == tokenizer.decode(token_ids)
    assert (
        set(piece_ids) & tokenizer.added_tokens_decoder.keys() == set(token_ids) & tokenizer.added_tokens_decoder.keys()
    )


def test_full_dropout_leaves_bytes(smollm2: Vocabulary) -> None:
    """With every merge skipped a byte-level tokenizer gives one token a byte."""
    piece_ids = BpeDropout.from_tokenizer(smollm2.tokenizer, dropout=1).encode(PARAGRAPH, seed=0)
    assert [smollm2.bytes_of[piece] for piece in piece_ids] == [bytes([byte]) for byte in PARAGRAPH.encode()]


def words_of(encoder: BpeDropout, text: str) -> list[tuple[int, ...]]:
    """Return the symbols of each word of a text."""
    encoding = encoder.symbols.encode(text, add_special_tokens=False)
    pairs = zip(encoding.word_ids, encoding.ids, strict=True)
    return [tuple(symbol for _, symbol in word) for _, word in groupby(pairs, key=lambda pair: pair[0])]


def candidates(encoder: BpeDropout, word: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return (rank, position) of every merge that a word allows."""
    pairs = enumerate(pairwise(word))
    return [(encoder.merges[pair][0], position) for position, pair in pairs if pair in encoder.merges]


def merged(encoder: BpeDropout, word: tuple[int, ...], position: int) -> tuple[int, ...]:
    return (*word[:position], encoder.merges[word[position], word[position + 1]][1], *word[position + 2 :])


def repetitive() -> PreTrainedTokenizerBase:
    """Return a tokenizer in which one merge is possible at several places of a word."""
    vocabulary = {"a": 0, "aa": 1, "aaa": 2, "aaaa": 3}
    backend = Tokenizer(models.BPE(vocabulary, [("a", "a"), ("aa", "aa"), ("aa", "a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize("text", ["untied", "rewritten", "aaaaa"])
def test_outcomes_follow_the_exact_law(text: str) -> None:
    """Every way to skip candidates at every step, by its probability; chi-square below the 0.9999 quantile."""
    encoder = BpeDropout.from_tokenizer(repetitive() if text == "aaaaa" else build_family("byte_level"), dropout=0.3)

    @cache
    def law(word: tuple[int, ...]) -> dict[tuple[int, ...], float]:
        """Return the probability of each result of merging on from ``word``."""
        possible = candidates(encoder, word)
        outcomes: dict[tuple[int, ...], float] = defaultdict(float)
        for kept in product([False, True], repeat=len(possible)):
            probability = 0.3 ** kept.count(False) * 0.7 ** kept.count(True)
            left = [candidate for candidate, is_kept in zip(possible, kept, strict=True) if is_kept]
            rest = law(merged(encoder, word, min(left)[1])) if left else {word: 1.0}
            for outcome, share in rest.items():
                outcomes[outcome] += probability * share
        return outcomes

    draws = 10_000
    (word,) = words_of(encoder, text)
    expected = {outcome: probability * draws for outcome, probability in law(word).items()}
    seen = Counter(tuple(encoder.encode(text, seed=seed)) for seed in range(draws))
    assert seen.keys() <= expected.keys() and len(seen) > 3
    common = [outcome for outcome, mean in expected.items() if mean >= 5]
    rare = draws - sum(expected[outcome] for outcome in common)
    statistic = sum((seen[outcome] - expected[outcome]) ** 2 / expected[outcome] for outcome in common)
    if rare:
        statistic += (draws - sum(seen[outcome] for outcome in common) - rare) ** 2 / rare
    assert statistic < chi2.ppf(0.9999, len(common))


def test_growth_is_that_of_the_published_rule(smollm2: Vocabulary) -> None:
    """On English prose, skipping candidates one by one at every step gives the same mean length."""
    text = golden("smollm2_texts.jsonl")[17]["text"]
    encoder = BpeDropout.from_tokenizer(smollm2.tokenizer, dropout=0.1)
    generator = random.Random(0)

    def literal(word: tuple[int, ...]) -> tuple[int, ...]:
        while kept := [candidate for candidate in candidates(encoder, word) if generator.random() >= 0.1]:
            word = merged(encoder, word, min(kept)[1])
        return word

    draws = 300
    literal_lengths = [sum(len(literal(word)) for word in words_of(encoder, text)) for _ in range(draws)]
    lengths = [len(encoder.encode(text, seed=seed)) for seed in range(draws)]
    standard_error = (2 / draws) ** 0.5 * statistics.stdev(literal_lengths)
    assert abs(statistics.mean(lengths) - statistics.mean(literal_lengths)) < 4.5 * standard_error
    # 72 tokens without dropout.
    assert statistics.mean(lengths) == pytest.approx(93.4, abs=4.5 * standard_error)


def test_seed_decides_in_every_process(smollm2: Vocabulary) -> None:
    """Equal seeds give equal ids, here and in another process; other seeds give others, negative ones included."""
    encoder = BpeDropout.from_tokenizer(smollm2.tokenizer, dropout=0.1)
    expected = [encoder.encode(PARAGRAPH, seed=seed) for seed in range(-3, 4)]
    assert len({tuple(token_ids) for token_ids in expected}) == 7
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(encoder.encode, PARAGRAPH, seed=seed) for seed in range(-3, 4)]
        assert [future.result() for future in futures] == expected


def test_tokenizer_stays_as_it_is(smollm2: Vocabulary) -> None:
    """Building and using an encoder changes neither the tokenizer nor the global random state."""
    before = smollm2.tokenizer.backend_tokenizer.to_str(), random.getstate()
    BpeDropout.from_tokenizer(smollm2.tokenizer, dropout=0.5).encode(PARAGRAPH, seed=0)
    assert before == (smollm2.tokenizer.backend_tokenizer.to_str(), random.getstate())


@pytest.mark.parametrize("dropout", [0.0, 1e-9])
def test_words_of_the_vocabulary_are_whole_only_without_dropout(dropout: float) -> None:
    """A tokenizer that looks words up before merging does so without dropout, and merges with it."""
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}
    backend = Tokenizer(models.BPE(vocabulary, [("a", "b")], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert own_ids(tokenizer, "abc") == [4]
    expected = [4] if dropout == 0 else [3, 2]
    assert BpeDropout.from_tokenizer(tokenizer, dropout).encode("abc", seed=0) == expected


def test_continuation_prefix_is_left_out_of_the_merged_token() -> None:
    """BPE whose inner pieces are marked merges 'a' and '##b' to 'ab'."""
    vocabulary = {"a": 0, "##b": 1, "##c": 2, "ab": 3, "##bc": 4, "abc": 5}
    merges = [("##b", "##c"), ("a", "##bc"), ("a", "##b")]
    backend = Tokenizer(models.BPE(vocabulary, merges, continuing_subword_prefix="##"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    for text in ("abc", "ab", "abcbc abb", "a"):
        assert BpeDropout.from_tokenizer(tokenizer, 0).encode(text, seed=0) == own_ids(tokenizer, text)


def test_truncation_of_the_tokenizer_plays_no_part(smollm2_tokenizer: PreTrainedTokenizerBase) -> None:
    """A tokenizer that was last used with padding and truncation still gives the whole text."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(smollm2_tokenizer.backend_tokenizer.to_str())
    )
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    expected = own_ids(smollm2_tokenizer, PARAGRAPH)
    assert BpeDropout.from_tokenizer(tokenizer, 0).encode(PARAGRAPH, seed=0) == expected


def test_typed_special_tokens_are_text_where_the_tokenizer_takes_them_so() -> None:
    """``split_special_tokens`` is honoured."""
    tokenizer = build_family("byte_level")
    for is_text in (False, True):
        tokenizer.split_special_tokens = is_text
        token_ids = BpeDropout.from_tokenizer(tokenizer, 0).encode("a</s>b", seed=0)
        assert token_ids == own_ids(tokenizer, "a</s>b")
        assert (tokenizer.eos_token_id in token_ids) is not is_text


@pytest.mark.parametrize("family_name", ["unigram", "wordpiece"])
def test_tokenizer_without_merges_is_refused(family_name: str) -> None:
    """The message names the tokenizer and its model."""
    kind = {"unigram": "Unigram", "wordpiece": "WordPiece"}[family_name]
    with pytest.raises(HarnessError, match=f"BPE-dropout skips merges, but \\w+ has a {kind} model"):
        BpeDropout.from_tokenizer(build_family(family_name))


@pytest.mark.parametrize("dropout", [-0.1, 1.1, float("nan")])
def test_impossible_dropout_is_refused(dropout: float) -> None:
    """The message says what dropout is."""
    with pytest.raises(HarnessError, match="it is the probability to skip a merge, 0 to 1"):
        BpeDropout.from_tokenizer(build_family("byte_level"), dropout)


def test_description_is_short() -> None:
    """An encoder in a message shows its dropout, not its merges."""
    assert repr(BpeDropout.from_tokenizer(build_family("byte_level"))) == "BpeDropout(dropout=0.1)"
