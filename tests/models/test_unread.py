"""LMs whose weights were not read count the tokens that the same requests take in an LM with weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval_answers import asking
from tiny_models import build_tokenizer
from transformers import T5Config, T5ForConditionalGeneration

from harness.models.finding import resolve
from harness.models.kinds import kind_of

PAIRS = [("The clockmaker's shop stood", " between a bakery and a bank"), ("Which is right?", " None"), ("", "None")]


def counted(lm: Any) -> tuple[int, int]:
    return lm.work.requested_tokens, lm.work.distinct_tokens


def test_an_encoder_counts_each_text_once(tiny_encoder: Path) -> None:
    source, kind = resolve({"pretrained": str(tiny_encoder), "pooling": "mean"}), kind_of("encoder")
    texts = [(text, {}) for text in ("Forty clocks ticked.", "noon", "noon", "Forty clocks")]
    read, unread = kind.load(source, "cpu", "auto"), kind.unread(source)
    for lm in (read, unread):
        assert len(lm.embed(asking("embed", *texts))) == 4
    assert counted(read) == counted(unread) != (0, 0)


def test_an_encoder_decoder_counts_as_it_is_asked(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path / "t5")
    config = T5Config(
        vocab_size=400, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=1, pad_token_id=1,
        eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    source, kind = resolve({"pretrained": str(tmp_path / "t5")}), kind_of("hf")
    read, unread = kind.load(source, "cpu", 1), kind.unread(source)
    for lm in (read, unread):
        lm.loglikelihood(asking("loglikelihood", *PAIRS))
    assert counted(read) == counted(unread) != (0, 0)
    written = asking("generate_until", *[(text, {"until": ["zz"], "max_gen_toks": 5}) for text, _ in PAIRS[:2]])
    unread.start_counting()
    assert unread.generate_until(written) == ["", ""]
    assert unread.new_tokens == 10


@pytest.mark.parametrize("name", ["hf", "tokenizer"])
def test_no_weights_are_read(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """The files may be anything: only what is asked of the tokenizer and the configuration is looked at."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(b"no weights" if path.suffix == ".safetensors" else path.read_bytes())
    source = resolve({"pretrained": str(folder)}, needs_weights=kind_of(name).has_weights)
    lm = kind_of(name).unread(source)
    assert lm.tokenize(asking("tokenize", ("noon",))) == [lm.tokenizer.encode("noon", add_special_tokens=False)]
    assert lm.new_tokens == 0
