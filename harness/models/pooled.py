"""One vector of the states of a text's tokens: the poolings by name, exact whatever padding stands beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.errors import HarnessError
from harness.names import printable

Tensor = torch.Tensor


def pool(
    states: Tensor, first: Sequence[int], end: Sequence[int], modes: Sequence[str], *, counts_from_start: bool = False
) -> Tensor:
    """Return one vector a row, of the states of its tokens from ``first`` up to ``end``.

    Args:
        states: (B, T, D), after the last norm, any float dtype; what lies outside a row's tokens decides nothing.
        first, end: (B,) places of each row; at least one token lies between them.
        modes: of ``sentence_files.POOLINGS``; what several give stands side by side. ``cls`` is the first token, ``last`` and
            ``eos`` the last one. The weights of ``weighted_mean`` are 1, 2, ... from the first token on.
        counts_from_start: those weights are counted from the very start of a row, before what is pooled, as
            sentence-transformers does.

    Returns:
        (B, D times the number of modes), float32.
    """
    states = states.float()
    places = torch.arange(states.shape[1], device=states.device)
    starts, ends = (torch.as_tensor(list(each), device=states.device) for each in (first, end))
    mask = (places >= starts[:, None]) & (places < ends[:, None])
    # What padding holds may be anything, NaN too, which no weight of 0 would hide.
    states = states.masked_fill(~mask[..., None], 0.0)
    rows = torch.arange(len(states), device=states.device)
    found = {"cls": lambda: states[rows, starts], "last": lambda: states[rows, ends - 1]}
    found["eos"] = found["last"]
    found["max"] = lambda: states.masked_fill(~mask[..., None], float("-inf")).amax(dim=1)
    weights: dict[str, Any] = {"mean": lambda: _even(mask, 1.0), "mean_sqrt_len": lambda: _even(mask, 0.5)}
    weights["weighted_mean"] = lambda: _by_place(mask, places - (0 if counts_from_start else starts[:, None]))
    return torch.cat(
        [found[mode]() if mode in found else torch.einsum("btd,bt->bd", states, weights[mode]()) for mode in modes],
        dim=-1,
    )


def dense_layer(folder: Path, *, device: Any) -> Callable[[Tensor], Tensor]:
    """Return the layer after the pooling that a folder of sentence-transformers holds, in float32.

    Raises:
        HarnessError: it is of another kind than a matrix, a bias and one of torch's activations, or cannot be read.
    """
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        layer = torch.nn.Linear(said["in_features"], said["out_features"], bias=said.get("bias", True))
        name = said.get("activation_function", "torch.nn.modules.activation.Tanh")
        activation = getattr(torch.nn, name.rpartition(".")[2]) if name.startswith("torch.nn.") else None
        apart = {said.get(key) for key in ("module_input_name", "module_output_name")} - {None, "sentence_embedding"}
        if activation is None or said.get("use_residual") or apart:
            raise ValueError("it is more than a matrix, a bias and one of torch's activations on a text's vector")
        tensors = _tensors(folder)
        layer.load_state_dict({key.removeprefix("linear."): value.float() for key, value in tensors.items()})
        return torch.nn.Sequential(layer, activation()).to(device).eval()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HarnessError(f"the layer in {printable(folder)} cannot be taken: {printable(why)[:200]}") from error


def _tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / "model.safetensors").is_file():
        from safetensors.torch import load_file

        return dict(load_file(folder / "model.safetensors"))
    return dict(torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True))


def _even(mask: Tensor, power: float) -> Tensor:
    return mask / mask.sum(dim=1, keepdim=True) ** power


def _by_place(mask: Tensor, places: Tensor) -> Tensor:
    weights = torch.where(mask, places + 1.0, 0.0)
    return weights / weights.sum(dim=1, keepdim=True)
