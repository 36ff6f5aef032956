"""Tiny models for what methods build on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_model

from harness.models.finding import resolve
from harness.models.loading import load_lm


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that gives the folder of a tiny model with these settings, built once."""
    built: dict[str, Path] = {}

    def folder(**settings: Any) -> Path:
        key = str(sorted(settings.items()))
        if key not in built:
            # 64 wide: bitsandbytes packs blocks of 64 weights.
            built[key] = build_model(
                tmp_path_factory.mktemp("models") / "m", **({"hidden_size": 64, "intermediate_size": 128} | settings)
            )
        return built[key]

    return folder


@pytest.fixture
def load(folders: Callable[..., Path]) -> Callable[..., Any]:
    """Return a function that loads a tiny model as a user would; untied where ``tied=False``."""

    def loading(*, tied: bool = True, quantization: str = "none", **source: Any) -> Any:
        folder = folders() if tied else folders(tie_word_embeddings=False)
        found = resolve({"pretrained": str(folder)} | source, quantization=quantization)
        return load_lm(found, device="cpu", batch_size=1)

    return loading
