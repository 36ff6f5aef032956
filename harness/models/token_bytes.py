"""The bytes that each token stands for, in four families of tokenizers."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> dict[int, bytes]:
    """Return the bytes that each ordinary token stands for, by token id.

    Left out are the tokens that no split may touch or make: added and special tokens, the unknown token and
    sentencepiece's byte pieces (``<0x41>``). The bytes come from the vocabulary, not from ``decode``, which turns a
    part of a character into U+FFFD:

    - byte-level BPE: the bytes behind the printable stand-ins;
    - sentencepiece BPE and Unigram: the piece in UTF-8, ``▁`` included;
    - WordPiece: a token that starts a word leads with a space, one that continues it is bare, so that the bytes of two
      tokens only add up to those of a third where their text does too.

    Raises:
        HarnessError: the vocabulary is of none of these kinds.
    """
    spelling, excluded = _family(tokenizer)
    return {
        token: spelling.bytes_of(piece)
        for piece, token in tokenizer.get_vocab().items()
        if token not in excluded and (spelling.byte_level or not _BYTE_PIECE.fullmatch(piece))
    }


_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")


def _byte_of_stand_in() -> dict[str, int]:
    """Return the byte behind each character of a byte-level vocabulary.

    Bytes that print as a Latin-1 character stand for themselves; the others, in order, have the characters from
    U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(hidden)}


_BYTE_OF = _byte_of_stand_in()


@dataclass(frozen=True)
class _Spelling:
    """How a family of tokenizers writes text in the pieces of its vocabulary."""

    byte_level: bool = False
    continuation: str = ""
    """Marks a piece that does not start a word: ``##``."""
    word_end: str = ""
    """Marks a piece that ends a word: ``</w>``."""

    def bytes_of(self, piece: str) -> bytes:
        """Return the bytes of a piece, with a space where it has a word's border."""
        before = b" " if self.continuation and not piece.startswith(self.continuation) else b""
        after = b" " if self.word_end and piece.endswith(self.word_end) else b""
        bare = piece.removeprefix(self.continuation).removesuffix(self.word_end)
        if self.byte_level and _BYTE_OF.keys() >= set(bare):
            return before + bytes(map(_BYTE_OF.__getitem__, bare)) + after
        return before + bare.encode() + after


def _family(tokenizer: PreTrainedTokenizerBase) -> tuple[_Spelling, set[int | None]]:
    """Return how a tokenizer spells, and the ids that are no ordinary tokens."""
    added_tokens = getattr(tokenizer, "added_tokens_decoder", None)
    if not isinstance(added_tokens, Mapping):
        raise _unknown_kind(tokenizer, "does not tell which tokens are added")
    vocabulary = tokenizer.get_vocab()
    excluded = {*added_tokens, *tokenizer.all_special_ids}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        spelling = _spelling_of_pieces([piece for piece, token in vocabulary.items() if token not in excluded])
        reason = "has no backend, nor pieces marked by 'Ġ', '▁', '##' or '</w>'"
    else:
        description = json.loads(backend.to_str())
        model = description["model"]
        excluded |= {model.get("unk_id"), vocabulary.get(model.get("unk_token"))}
        spelling = _spelling_of_backend(description)
        reason = f"has a {model.get('type')} model without byte map, '▁' or word marks"
    if spelling is None:
        raise _unknown_kind(tokenizer, reason)
    return spelling, excluded


def _spelling_of_backend(description: Mapping[str, Any]) -> _Spelling | None:
    """Tell the family from the parts of a fast tokenizer."""
    model = description["model"]
    parts = [description.get(name) for name in ("normalizer", "pre_tokenizer", "decoder")]
    parts_text = json.dumps(parts, ensure_ascii=False)
    spelling = _Spelling(
        byte_level='"ByteLevel"' in parts_text,
        continuation=model.get("continuing_subword_prefix") or "",
        word_end=model.get("end_of_word_suffix") or "",
    )
    if model.get("type") == "BPE":
        is_known = spelling != _Spelling() or model.get("byte_fallback") or "▁" in parts_text
    else:
        is_known = model.get("type") in ("Unigram", "WordPiece")
    return spelling if is_known else None


def _spelling_of_pieces(pieces: Collection[str]) -> _Spelling | None:
    """Tell the family of a tokenizer without a backend from its vocabulary."""
    starts = {piece[:1] for piece in pieces}
    if "Ġ" in starts and all(map(_BYTE_OF.keys().__ge__, map(set, pieces))):
        return _Spelling(byte_level=True)
    if "▁" in starts:
        return _Spelling()
    if any(piece.startswith("##") for piece in pieces):
        return _Spelling(continuation="##")
    if any(piece.endswith("</w>") for piece in pieces):
        return _Spelling(word_end="</w>")
    return None


def _unknown_kind(tokenizer: PreTrainedTokenizerBase, reason: str) -> HarnessError:
    return HarnessError(
        f"{type(tokenizer).__name__} {reason}, so what its tokens spell is not known; "
        "use a byte-level BPE, sentencepiece BPE, Unigram or WordPiece tokenizer"
    )
