"""Tiny models with random weights, and a tokenizer trained on a paragraph of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PARAGRAPH = """\
The clockmaker's shop stood between a bakery and a bank, and it was never quiet. Forty clocks ticked there, each a little
ahead of or behind its neighbour, so that noon took four minutes to pass. Customers would ask which of them was right.
"None," said the clockmaker, "but together they are never far wrong." He wound them every Sunday, in the order in which
he had bought them, and he wrote the hour of each in a ledger: 7:58, 8:01, 8:02. Children liked the cuckoo best. It had
lost its voice in the war, and now it only bowed. What is time? asked the children; the clockmaker gave them sweets.
"""


# Two layers, 32 wide, as most configurations of transformers call it.
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def build_tokenizer(vocabulary: int = 400) -> Any:
    """Train a byte-level BPE tokenizer on ``PARAGRAPH``, with an end-of-text token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(PARAGRAPH.splitlines(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", bos_token="<|end|>")


def build_model(folder: Path, **settings: Any) -> Path:
    """Save a two-layer, 32-wide Llama with random weights (seed 0) and its tokenizer into ``folder``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = SIZES | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    LlamaForCausalLM(LlamaConfig(**(config | settings))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_encoder(folder: Path, **settings: Any) -> Path:
    """Save a two-layer, 32-wide BERT with random weights (seed 0) and a WordPiece tokenizer into ``folder``."""
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = build_wordpieces()
    torch.manual_seed(0)
    sizes = {
        name: SIZES[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    }
    config = {**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 64, "pad_token_id": 0} | settings
    BertModel(BertConfig(**config), add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_wordpieces() -> Any:
    """Return a WordPiece tokenizer of the letters and the words of ``PARAGRAPH``, as BERT's reads text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = "".join(letter if letter.isalpha() else " " for letter in PARAGRAPH.lower()).split()
    letters = [chr(number) for number in range(33, 127) if not chr(number).isupper()]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    backend = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names)


def as_sentence_folder(folder: Path, *, pooling: dict[str, Any], more: dict[str, Any] | None = None) -> Path:
    """Add to a model's folder what sentence-transformers keeps there: a pooling, a length of 32, vectors of length 1.

    Args:
        pooling: the content of ``1_Pooling/config.json``.
        more: other files by name, and what JSON they hold.
    """
    import json

    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds.items())
    ]
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": 32},
    }
    for name, content in (files | (more or {})).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder
