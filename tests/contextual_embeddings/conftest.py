"""A tiny decoder, a tiny encoder, and embedders made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_encoder, build_model

from harness.models.finding import resolve
from harness.models.loading import load_lm


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny encoder of 64 places, narrower than the decoder."""
    return build_encoder(tmp_path_factory.mktemp("encoders") / "narrow", hidden_size=24, intermediate_size=48)


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny decoder whose input rows and head are two matrices."""
    return build_model(tmp_path_factory.mktemp("decoders") / "tiny", tie_word_embeddings=False)


@pytest.fixture
def given_fresh(tiny_decoder: Path) -> Callable[[], Any]:
    """Return a function that loads the tiny decoder: a method may change it."""
    return lambda: load_lm(resolve({"pretrained": str(tiny_decoder)}), device="cpu", batch_size="auto")


@pytest.fixture
def lm(given_fresh: Callable[[], Any]) -> Any:
    """The tiny decoder, fresh."""
    return given_fresh()


@pytest.fixture
def embed_with(lm: Any, tiny_encoder: Path, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that applies the method with some options, and gives the LM that embeds."""
    from harness_contextual_embeddings.method import ContextualEmbeddings

    def apply(seed: int = 0, workdir: Path | None = None, given: Any = None, **options: Any) -> Any:
        folder = workdir or tmp_path / f"work-{len(list(tmp_path.iterdir()))}"
        folder.mkdir(exist_ok=True)
        method = ContextualEmbeddings(encoder=str(tiny_encoder), **options)
        return method.apply(given or lm, seed=seed, workdir=folder)

    return apply
