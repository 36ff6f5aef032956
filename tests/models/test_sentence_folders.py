"""Folders of sentence-transformers, as its sixth version writes them too: every part is followed or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedded_texts import load, vectors
from safetensors.torch import save_file
from tiny_models import as_sentence_folder, build_encoder

from harness.errors import HarnessError

TEXTS = ["Forty clocks ticked there.", "noon", "What is time?"]
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "Dropout": "sentence_transformers.sentence_transformer.modules.dropout.Dropout",
}
AS_IT_IS = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
LIMITS = {
    "transformer_task": "feature-extraction",
    "modality_config": AS_IT_IS,
    "module_output_name": "token_embeddings",
}
Folder = Callable[..., Path]


@pytest.fixture
def folder_of(tmp_path: Path) -> Folder:
    """Return a function that writes a folder of the given parts, with other files by name."""

    def make(*kinds: str, **more: Any) -> Path:
        folder = build_encoder(tmp_path / f"folder-{len(list(tmp_path.iterdir()))}")
        modules = [
            {"idx": n, "name": str(n), "path": "" if kind == "Transformer" else f"{n}_{kind}", "type": NEW[kind]}
            for n, kind in enumerate(kinds)
        ]
        written = {"modules.json": modules, "sentence_bert_config.json": LIMITS}
        pooling = {"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}
        as_sentence_folder(folder, pooling=pooling, more={**written, **more})
        return folder

    return make


def dense(folder: Path, place: str, **more: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Write a layer of 32 to 5 numbers as sentence-transformers 6 does, and return its matrix and bias."""
    (folder / place).mkdir(exist_ok=True)
    said = {
        "in_features": 32, "out_features": 5, "bias": True, "activation_function": "torch.nn.modules.linear.Identity",
        "module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding", **more,
    }  # fmt: skip
    (folder / place / "config.json").write_text(json.dumps(said), encoding="utf-8")
    torch.manual_seed(1)
    tensors = {"linear.weight": torch.randn(5, 32), "linear.bias": torch.randn(5)}
    save_file(tensors, str(folder / place / "model.safetensors"))
    return tensors["linear.weight"], tensors["linear.bias"]


def test_parts_are_followed_in_their_order(folder_of: Folder) -> None:
    plain = vectors(load(folder_of("Transformer", "Pooling")), TEXTS)
    folder = folder_of("Transformer", "Pooling", "Dropout", "Dense", "Normalize")
    matrix, bias = dense(folder, "3_Dense")
    layered = plain @ matrix.numpy().T + bias.numpy()
    found = vectors(load(folder), TEXTS)
    np.testing.assert_allclose(found, layered / np.linalg.norm(layered, axis=1, keepdims=True), atol=1e-5)


def test_vectors_are_cut_to_the_width_that_files_say(folder_of: Folder) -> None:
    """As sentence-transformers does it: after everything else, so that what is left is shorter than 1."""
    whole = vectors(load(folder_of("Transformer", "Pooling", "Normalize")), TEXTS)
    prompts = {"config_sentence_transformers.json": {"truncate_dim": 10}}
    lm = load(folder_of("Transformer", "Pooling", "Normalize", **prompts))
    np.testing.assert_array_equal(vectors(lm, TEXTS), whole[:, :10])


def test_texts_are_made_lower_case_letter_by_letter(folder_of: Folder) -> None:
    lm = load(folder_of("Transformer", "Pooling", **{"sentence_bert_config.json": {"do_lower_case": True}}))
    np.testing.assert_array_equal(vectors(lm, ["WHAT Is Time?"]), vectors(lm, ["what is time?"]))
    from harness.models.laid_out import _spelled

    assert _spelled(lm.way, "ΣΑΣ") == "σασ"


@pytest.mark.parametrize(
    ("kinds", "sentence"),
    [
        (
            ("Transformer", "Pooling", "Normalize", "Dense"),
            "in the order Transformer, Pooling, Normalize, Dense; known",
        ),
        (
            ("Transformer", "Dense", "Pooling"),
            "in the order Transformer, Dense, Pooling; known here are one Transformer",
        ),
        (("Transformer", "Pooling", "Pooling"), "in the order Transformer, Pooling, Pooling"),
        (("Pooling",), "in the order Pooling; known"),
    ],
)
def test_parts_in_another_order_are_refused(folder_of: Folder, kinds: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(HarnessError, match=sentence):
        load(folder_of(*kinds))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("sentence_bert_config.json", {**LIMITS, "query_length": 8}, "says query_length: 8, which is not known here"),
        (
            "sentence_bert_config.json",
            {**LIMITS, "processing_kwargs": {"text": {"max_length": 5}}},
            "processing_kwargs",
        ),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "says transformer_task: fill-mask"),
        (
            "sentence_bert_config.json",
            {**LIMITS, "modality_config": {**AS_IT_IS, "message": AS_IT_IS["text"]}},
            "laid out as messages of a chat",
        ),
        ("sentence_bert_config.json", {**LIMITS, "modality_config": {}}, "laid out as messages of a chat"),
        ("config_sentence_transformers.json", {"default_prompt_name": "sts"}, "'sts', which is none of its prompts"),
        ("2_Normalize/config.json", {"module_input_name": "token_embeddings"}, "known here is sentence_embedding"),
    ],
)
def test_what_would_make_other_vectors_is_refused(
    folder_of: Folder, name: str, content: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(HarnessError, match=sentence):
        load(folder_of("Transformer", "Pooling", "Normalize", **{name: content}))


@pytest.mark.parametrize(
    "more", [{"use_residual": True}, {"module_input_name": "token_embeddings"}, {"module_output_name": "other"}]
)
def test_layers_of_another_kind_are_refused(folder_of: Folder, more: dict[str, Any]) -> None:
    folder = folder_of("Transformer", "Pooling", "Dense")
    dense(folder, "2_Dense", **more)
    with pytest.raises(HarnessError, match="2_Dense cannot be taken: it is more than a matrix"):
        load(folder)
