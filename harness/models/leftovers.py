"""Tensors in a checkpoint that no layer reads: told apart, by name and shape, from weights that would be missed."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# What older releases saved beside the weights, and what is computed anew: causal masks, angles and places.
BUFFERS = frozenset({
    "masked_bias", "inv_freq", "original_inv_freq", "position_ids", "token_type_ids", "cos_cached", "sin_cached",
    "cos_cache", "sin_cache", "freqs_cis", "causal_mask", "attn_mask", "alibi", "slopes", "num_batches_tracked",
    "_extra_state", "embed_positions.weights",
})  # fmt: skip
# Heads beside the one that gives the next token: what trl, a reward model or a classifier put on a language model.
HEADS = frozenset({
    "v_head", "value_head", "reward_head", "critic_head", "score", "scores", "classifier", "classification_head",
    "multiple_choice_head", "qa_outputs", "summary", "pooler", "regression_head", "rank_head",
})  # fmt: skip
# Another one with a name of its own is told by how little comes out of it: a score, or a few labels.
MOST_LABELS = 32
# A number called so decides answers wherever it stands.
COUNTS = frozenset(
    {"scale", "scales", "scaling", "scalar", "gate", "gates", "gating", "alpha", "weight", "zeros", "factor"}
)


def is_beside(name: str, shape: Callable[[str], tuple[int, ...] | None] | None = None) -> bool:
    """Return whether answers are the same without a tensor: an old buffer, a lone number, or another head's weights.

    Args:
        name: in the checkpoint.
        shape: gives that of a tensor by its name, None where it is not known.
    """
    parts = name.split(".")
    if parts[-1] in BUFFERS or ".".join(parts[-2:]) in BUFFERS:
        return True
    if set(parts[:2]) & HEADS:
        return True
    size = shape(name) if shape is not None else None
    if size is None:
        return False
    is_head = any(part.endswith("_head") and part != "lm_head" for part in parts[:2]) and size[:1] <= (MOST_LABELS,)
    is_mask = parts[-1] in {"bias", "mask"} and len(size) == 4 and size[:2] == (1, 1) and size[2] == size[3]
    is_number = size in {(), (1,)} and not set(re.split(r"[._]", name.lower())) & COUNTS
    return is_head or is_mask or is_number


class Shapes:
    """The shapes of the tensors in the checkpoint of a folder, whose files are read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor, None where there is none.

        A name may be longer or shorter at its beginning than in the file: a model's parts are renamed when it is loaded.
        """
        if name in self.by_name:
            return self.by_name[name]
        alike = {
            size
            for key, size in self.by_name.items()
            if f".{key}".endswith(f".{name}") or f".{name}".endswith(f".{key}")
        }
        return alike.pop() if len(alike) == 1 else None

    @functools.cached_property
    def by_name(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape."""
        found: dict[str, tuple[int, ...]] = {}
        for file in sorted(self._folder.iterdir()):
            with suppress(Exception):  # a file of another kind, or one that transformers did not read either
                found |= _safetensors(file) if file.suffix == ".safetensors" else _pickled(file)
        return found


def _safetensors(file: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118


def _pickled(file: Path) -> dict[str, tuple[int, ...]]:
    import torch

    if file.suffix not in (".bin", ".pt"):
        return {}
    tensors = torch.load(file, map_location="meta", weights_only=True)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if hasattr(tensor, "shape")}
