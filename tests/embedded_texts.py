"""Texts as an encoder of a folder embeds them, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance

from harness.models.encoder import Encoder
from harness.models.finding import resolve
from harness.models.kinds import kind_of


def load(folder: Path, *, batch_size: int | str = "auto", quantization: str = "none", **args: Any) -> Encoder:
    """Return the LM of a folder, loaded as ``--model encoder`` does."""
    kind = kind_of("encoder")
    source = resolve({"pretrained": str(folder), **args}, quantization=quantization)
    kind.check(source)
    lm = kind.load(source, "cpu", batch_size)
    assert isinstance(lm, Encoder)
    return lm


def requests(texts: Sequence[str], instruction: str | None = None, role: str | None = None) -> list[Instance]:
    """Return a request for each text."""
    arguments = {"instruction": instruction, "role": role}
    return [Instance("embed", {}, (text, arguments), 0, ("sts", n, 1)) for n, text in enumerate(texts)]  # type: ignore[arg-type]


def vectors(lm: Encoder, texts: Sequence[str], instruction: str | None = None, role: str | None = None) -> np.ndarray:
    """Return the vectors (N, D) of texts."""
    return np.stack(lm.embed(requests(texts, instruction, role)))


def unit(rows: Any) -> np.ndarray:
    """Return vectors at length 1, in double precision."""
    found = np.asarray(rows, dtype=np.float64)
    return found / np.linalg.norm(found, axis=-1, keepdims=True)
