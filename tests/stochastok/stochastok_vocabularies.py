"""Vocabularies that the tests of StochasTok share: small ones of every family, and the golden data's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from harness.models.token_bytes import token_bytes
from harness_stochastok.splitting import SplitTable, build_split_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = ["byte_level", "sentencepiece", "metaspace", "unigram", "wordpiece", "word_end"]

PARAGRAPH = """\
Every spring the ferryman painted his boat, and every spring the river took the paint away again. He was not angry. The
river, he said, was only reading what he had written. Travellers asked him how deep it was; deeper than yesterday, he
answered, or not as deep, depending on the rain in the mountains. A teacher once counted the strokes of his oars from bank
to bank and wrote down a hundred and twelve. On the way back there were a hundred and nine. She underlined both numbers,
for she believed in mistakes, her own and those of rivers, and she never crossed the water without a pencil. Unreadable,
unwritten, rewritten: the children spelled the longest words they knew, letter by letter, while the boat was turning.
"""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with what splitting knows of it."""

    tokenizer: PreTrainedTokenizerBase
    bytes_of: Mapping[int, bytes]
    table: SplitTable

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
        bytes_of = token_bytes(tokenizer)
        return cls(tokenizer, bytes_of, build_split_table(bytes_of))

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` alone."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def spell(self, token_ids: list[int]) -> bytes:
        """Return the bytes of ids, with those that are no ordinary tokens written as numbers."""
        return b"".join(self.bytes_of.get(token, b"<%d>" % token) for token in token_ids)


def golden(name: str) -> Any:
    """Return a golden file: the object of a JSON file, the list of objects of a JSON lines file."""
    text = (GOLDEN / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]


def toy_table() -> SplitTable:
    """Return the split table written in the toy vocabulary's file."""
    splits = golden("toy_vocabulary.json")["splits"]
    return {int(token): [(left, right) for left, right in pairs] for token, pairs in splits.items()}


def build_family(name: str) -> PreTrainedTokenizerBase:
    """Train a tiny tokenizer of one of ``FAMILIES`` on ``PARAGRAPH``."""
    from transformers import PreTrainedTokenizerFast

    backend = {
        "byte_level": _byte_level,
        "sentencepiece": _sentencepiece,
        "metaspace": _metaspace,
        "unigram": _unigram,
        "wordpiece": _wordpiece,
        "word_end": _word_end,
    }[name]()
    special = {"unk_token": "<unk>"} if backend.token_to_id("<unk>") is not None else {}
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", **special)


def _byte_level() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(backend, trainers.BpeTrainer(vocab_size=450, initial_alphabet=alphabet, **_special()))


def _metaspace() -> Tokenizer:
    """Sentencepiece BPE whose words are cut before merging."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return _trained(backend, trainers.BpeTrainer(vocab_size=250, **_special("<unk>")))


def _sentencepiece() -> Tokenizer:
    """Sentencepiece BPE that merges a whole text at once and falls back on bytes."""
    description = json.loads(_metaspace().to_str())
    model = description["model"]
    size = len(model["vocab"])
    model["vocab"] |= {f"<0x{byte:02X}>": size + byte for byte in range(256)}
    backend = Tokenizer.from_str(json.dumps(description | {"model": model | {"byte_fallback": True}}))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


def _unigram() -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return _trained(backend, trainers.UnigramTrainer(vocab_size=180, unk_token="<unk>", **_special("<unk>")))


def _wordpiece() -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return _trained(backend, trainers.WordPieceTrainer(vocab_size=300, **_special("<unk>")))


def _word_end() -> Tokenizer:
    """BPE that marks the last piece of a word."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.BPEDecoder()
    return _trained(backend, trainers.BpeTrainer(vocab_size=250, end_of_word_suffix="</w>", **_special("<unk>")))


def _special(*more: str) -> dict[str, Any]:
    return {"special_tokens": ["<pad>", "</s>", *more], "show_progress": False}


def _trained(backend: Tokenizer, trainer: Any) -> Tokenizer:
    backend.train_from_iterator([PARAGRAPH], trainer)
    return backend


def replay(token_ids: Sequence[int], split_table: SplitTable, draws: Iterable[Sequence[int | None]]) -> list[int]:
    """Apply given splits instead of random ones.

    Args:
        token_ids: T ids.
        split_table: from ``build_split_table``.
        draws: pairs of a position in the list as it is by then, and the index of the split to make there; ``None`` for
            an attempt that is lost.
    """
    pieces = list(token_ids)
    for position, choice in draws:
        if position is not None and choice is not None:
            pieces[position : position + 1] = split_table[pieces[position]][choice]
    return pieces
