"""Reading a vocabulary, finding every split and applying given ones."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from stochastok_vocabularies import PARAGRAPH, Vocabulary, build_family, golden, replay, toy_table
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from harness.errors import HarnessError
from harness.models.token_bytes import token_bytes
from harness.seeds import stream_seed
from harness_stochastok.splitting import build_split_table, count_attempts, table_digest


def test_table_equals_the_golden_rows(name: str, vocabulary: Vocabulary) -> None:
    """Property 5: 200 ids have exactly the golden bytes and splits, in order."""
    for row in golden(f"{name}_splits.jsonl"):
        assert vocabulary.bytes_of[row["id"]].hex() == row["bytes_hex"]
        assert vocabulary.table.get(row["id"], []) == [tuple(pair) for pair in row["splits"]]


def test_table_adds_up_to_the_golden_totals(name: str, vocabulary: Vocabulary) -> None:
    """Property 5: totals, missing bytes and the digest of all splits equal the golden ones."""
    summary = golden(f"{name}_summary.json")
    single_bytes = {spelling for spelling in vocabulary.bytes_of.values() if len(spelling) == 1}
    counts = [len(splits) for splits in vocabulary.table.values()]
    assert len(vocabulary.bytes_of) == summary["ordinary_tokens"]
    assert sorted(set(range(256)) - {byte[0] for byte in single_bytes}) == summary["missing_bytes"]
    assert len(vocabulary.table) == summary["splittable_tokens"]
    assert sum(counts) == summary["split_pairs"]
    assert {str(count): counts.count(count) for count in set(counts)} | {
        "0": len(vocabulary.bytes_of) - len(counts)
    } == summary["tokens_by_number_of_splits"]
    assert table_digest(vocabulary.table) == summary["sha256_of_pairs"]


def test_toy_table_equals_the_golden_one() -> None:
    """Property 5: the toy vocabulary has exactly the written splits."""
    tokens = golden("toy_vocabulary.json")["tokens"]
    assert build_split_table({token["id"]: bytes.fromhex(token["bytes_hex"]) for token in tokens}) == toy_table()


def test_every_split_spells_its_token(vocabulary: Vocabulary) -> None:
    """Property 5: the bytes of the halves add up, no half is empty, no pair comes twice, the shortest left is first."""
    assert_table_is_sound(vocabulary)


def test_every_split_spells_its_token_in_every_family(family: Vocabulary) -> None:
    """Property 5, for small tokenizers of all families."""
    assert_table_is_sound(family)
    assert family.table


def assert_table_is_sound(vocabulary: Vocabulary) -> None:
    spelling = vocabulary.bytes_of
    for token, splits in vocabulary.table.items():
        assert all(spelling[left] + spelling[right] == spelling[token] for left, right in splits)
        assert all(spelling[left] and spelling[right] for left, right in splits)
        assert len(set(splits)) == len(splits)
        assert splits == sorted(splits, key=lambda pair: len(spelling[pair[0]]))


def test_added_and_special_tokens_are_neither_split_nor_halves(vocabulary: Vocabulary) -> None:
    """Property 4: none of them is in the table, as key or half."""
    assert_special_tokens_are_absent(vocabulary)


def test_added_and_special_tokens_are_absent_in_every_family(family: Vocabulary) -> None:
    """Property 4, for small tokenizers of all families, the unknown token included."""
    assert_special_tokens_are_absent(family)


def assert_special_tokens_are_absent(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    special = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    used = {*vocabulary.table, *(half for splits in vocabulary.table.values() for pair in splits for half in pair)}
    assert special
    assert not special & used
    assert used <= vocabulary.bytes_of.keys()


def test_unknown_token_is_left_out_even_where_it_is_not_declared_special() -> None:
    """A model's unknown token stands for anything, so its name is not what it spells."""
    vocabulary = {"[UNK]": 0, "[": 1, "##UNK]": 2, "ab": 3, "a": 4, "##b": 5}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert build_split_table(token_bytes(tokenizer)) == {3: [(4, 5)]}


def test_bytes_of_byte_level_tokens_are_those_of_the_text(vocabulary: Vocabulary) -> None:
    """Whole characters and parts of one: the bytes of a text's tokens add up to the text."""
    for text in (PARAGRAPH, "Grüße 🎉 日本語 \t\n  naïve", "é"):
        assert vocabulary.spell(vocabulary.encode(text)) == text.encode()


def test_byte_pieces_of_sentencepiece_are_left_out() -> None:
    """A piece <0x41> is neither split nor a half: it spells a byte, not its name."""
    tokenizer = build_family("sentencepiece")
    byte_pieces = {token for piece, token in tokenizer.get_vocab().items() if piece.startswith("<0x")}
    assert len(byte_pieces) == 256
    assert not byte_pieces & token_bytes(tokenizer).keys()


def test_wordpiece_splits_only_at_legal_places() -> None:
    """A token that starts a word splits into one that does and one that continues it; a continuation into two such."""
    vocabulary = Vocabulary.of(build_family("wordpiece"))
    piece_of = vocabulary.tokenizer.convert_ids_to_tokens
    for token, splits in vocabulary.table.items():
        for left, right in splits:
            assert piece_of(left).startswith("##") == piece_of(token).startswith("##")
            assert piece_of(left) + piece_of(right).removeprefix("##") == piece_of(token)
            assert piece_of(right).startswith("##")


def test_lower_id_is_the_half_where_two_share_a_spelling() -> None:
    """Both are split, one serves."""
    table = build_split_table({9: b"a", 4: b"a", 5: b"b", 7: b"ab", 6: b"ab"})
    assert table == {6: [(4, 5)], 7: [(4, 5)]}


def test_long_token_without_a_split_is_no_error() -> None:
    """Tokens without a valid cut are absent."""
    assert build_split_table({1: b"abc", 2: b"a", 3: b"b", 4: b""}) == {}


@pytest.mark.parametrize("model", [models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"), models.BPE({"a": 0}, [])])
def test_unknown_kind_of_tokenizer_is_refused(model: models.Model) -> None:
    """Where it cannot be told what a token spells, the message names the tokenizer and its model."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    kind = type(model).__name__
    with pytest.raises(HarnessError, match=f"(?s){type(tokenizer).__name__} has a {kind} model"):
        token_bytes(tokenizer)


def slow_bert(folder: Path, pieces: list[str]) -> PreTrainedTokenizerBase:
    """Return a tokenizer without backend whose vocabulary is ``pieces``."""
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join(special + pieces), encoding="utf-8")
    tokenizer: PreTrainedTokenizerBase = BertTokenizerLegacy(str(folder / "vocab.txt"))
    return tokenizer


@pytest.mark.parametrize(
    ("pieces", "spellings"),
    [
        (["ab", "a", "##b", "##bc"], [b" ab", b" a", b"b", b"bc"]),
        (["Ġab", "Ġ", "ab", "Ã©"], [b" ab", b" ", b"ab", b"\xc3\xa9"]),
        (["▁ab", "é", "ab"], ["▁ab".encode(), "é".encode(), b"ab"]),
        (["ab</w>", "a", "b</w>"], [b"ab ", b"a", b"b "]),
    ],
)
def test_family_of_a_slow_tokenizer_is_told_from_its_pieces(
    tmp_path: Path, pieces: list[str], spellings: list[bytes]
) -> None:
    """A tokenizer without backend: its marks tell what its pieces spell."""
    assert list(token_bytes(slow_bert(tmp_path, pieces)).values()) == spellings


def test_slow_tokenizer_without_marks_is_refused(tmp_path: Path) -> None:
    """Nothing tells a word's start from its middle."""
    with pytest.raises(HarnessError, match="BertTokenizerLegacy has no backend"):
        token_bytes(slow_bert(tmp_path, ["ab", "a", "b"]))


def test_replay_gives_the_golden_ids(name: str, vocabulary: Vocabulary) -> None:
    """Property 12: with the draws given, the result is exactly the golden one, and the input is left alone."""
    for row in golden(f"{name}_replays.jsonl"):
        token_ids = list(row["ids"])
        assert replay(token_ids, vocabulary.table, row["draws"]) == row["result"]
        assert token_ids == row["ids"]


def test_pre_tokenizer_alone_tells_a_byte_level_vocabulary() -> None:
    """Some byte-level tokenizers come without a decoder."""
    tokenizer = build_family("byte_level")
    without_decoder = Tokenizer(tokenizer.backend_tokenizer.model)
    without_decoder.pre_tokenizer = pre_tokenizers.ByteLevel()
    bytes_of = token_bytes(PreTrainedTokenizerFast(tokenizer_object=without_decoder))
    assert token_bytes(tokenizer).items() <= bytes_of.items()


def test_attempts_are_the_whole_part_of_the_float_product() -> None:
    """The authors' rule: 0.29 of 100 tokens makes 28 attempts."""
    assert [count_attempts(100, proportion) for proportion in (0, 0.009, 0.1, 0.29, 1, 2.5)] == [0, 0, 10, 28, 100, 250]
    assert count_attempts(9, 0.1) == 0
    assert count_attempts(10**6, 1e308) > 10**18


@pytest.mark.parametrize("proportion", [-0.1, math.nan, math.inf, -math.inf])
def test_impossible_proportion_is_refused(proportion: float) -> None:
    """The message says what a proportion is."""
    with pytest.raises(HarnessError, match=r"proportion .* is not possible: it counts split attempts per token"):
        count_attempts(10, proportion)


def test_streams_are_apart_and_the_same_in_every_process() -> None:
    """Seeds of streams are a pure function of what names them."""
    assert stream_seed(0, 1, 2) == 6904036108104594151
    streams = {
        stream_seed(seed, epoch, document) for seed in (-1, 0, 1) for epoch in range(10) for document in range(99)
    }
    assert len(streams) == 3 * 10 * 99
    assert stream_seed(1, 23) != stream_seed(12, 3)
    assert stream_seed(0, "1") != stream_seed(0, 1)


def test_streams_do_not_depend_on_the_type_of_integer() -> None:
    """A document index may come out of a NumPy array."""
    import numpy as np

    assert stream_seed(np.int64(3), np.int32(4)) == stream_seed(3, 4)
