"""An adapter's folder, looked at before weights are read: whether it is one, and was made for matrices of these sizes."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.models.files import ADAPTER_CONFIG
from harness.models.leftovers import Shapes
from harness.names import printable

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# Before the names of a model's layers in an adapter's file, and behind them: the two matrices of LoRA.
ON_TOP = "base_model.model."
IN, OUT = ".lora_A.weight", ".lora_B.weight"
# Get other rows with the tokens that an adapter brings.
OF_TOKENS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")


def check_folder(folder: Path) -> None:
    """Raise ``HarnessError`` where a folder lacks what makes an adapter, or its configuration is none."""
    shown, config = printable(folder), folder / ADAPTER_CONFIG
    if not config.is_file():
        raise HarnessError(f"'{shown}' is no adapter folder: it has no {ADAPTER_CONFIG}")
    try:
        content: Any = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HarnessError(f"{ADAPTER_CONFIG} in '{shown}' is not valid JSON: {printable(error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("peft_type"), str):
        raise HarnessError(
            f"{ADAPTER_CONFIG} in '{shown}' names no peft_type, so nobody knows what kind of adapter it is"
        )
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise HarnessError(f"adapter folder '{shown}' has no weights ({' or '.join(WEIGHTS)})")


def check_sizes(folder: Path, model: Path, *, name: str) -> None:
    """Raise ``HarnessError`` where LoRA's matrices do not fit those of the model that stand under the same names.

    Only what both files say is compared: layers that are named otherwise are told when the adapter is put on.

    Args:
        model: the folder with the model's weights; ``name`` is what the error calls it.
    """
    ours, theirs = Shapes(folder), Shapes(model)
    for layer in ours.by_name:
        if not layer.endswith(IN) or any(part in layer.split(".") for part in OF_TOKENS):
            continue
        place = layer.removeprefix(ON_TOP).removesuffix(IN)
        size = theirs(f"{place}.weight")
        low, high = ours(layer), ours(layer.removesuffix(IN) + OUT)
        if size is None or low is None or high is None or not len(size) == len(low) == len(high) == 2:
            continue
        fits = {high[0], low[1]} == set(size)  # some keep their matrices turned
        if not fits and not _is_packed(size, high[0] * low[1]):
            raise HarnessError(
                f"adapter '{printable(folder)}' cannot be put on '{printable(name)}': it was made for another model "
                f"({printable(place)} is {high[0]} x {low[1]} there, and {size[0]} x {size[1]} here)"
            )


def check_layers(folder: Path, layers: Collection[str], *, name: str) -> None:
    """Raise ``HarnessError`` where LoRA's matrices are of layers that a model does not have.

    Args:
        layers: the names of all modules of the model, which ``name`` is what the error calls.
    """
    for weight in Shapes(folder).by_name:
        place = weight.removeprefix(ON_TOP).removesuffix(IN)
        if weight.endswith(IN) and place not in layers and "base_layer" not in place:
            raise HarnessError(
                f"adapter '{printable(folder)}' cannot be put on '{printable(name)}': it has weights for layers that the model "
                f"does not have ({printable(place)})"
            )


def _is_packed(size: tuple[int, ...], numbers: int) -> bool:
    """Return whether a matrix may be stored in fewer numbers than it has, as quantised checkpoints do."""
    return size[0] * size[1] in {numbers // 2, numbers // 4, numbers // 8} and 1 in size
