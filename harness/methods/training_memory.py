"""How many tokens a training step may take at once: from free memory, fewer after it ran out, and layers run twice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint

from harness.control_groups import folders
from harness.models.tree import memory
from harness.progress import say

if TYPE_CHECKING:
    from harness.methods.micro_batches import MicroBatch

# A CPU is as fast with this many tokens at once as with more; a GPU gains nothing measurable beyond these.
CPU_TOKENS, DEVICE_TOKENS = 512, 16384
# Part of the free memory that one part of a step may take: the estimate is rough, and others may use the device.
SHARE = 0.5
# What a control group may take and what it has taken, in version 2 and 1.
LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


class Room:
    """Tokens per part of a step, from free memory; less of it after that was too much.

    Args:
        model: in training.
        device: where it is.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        self.model, self.device = model, device
        self.tokens = CPU_TOKENS if device.type == "cpu" else DEVICE_TOKENS
        self._twice: list[Any] = []  # layers that run again in the backward pass
        free, each = free_bytes(device), activation_bytes(model)
        self._fitting = None if free is None or each is None else int(SHARE * free / each)
        if self._fitting is not None:
            self.tokens = max(1, min(self.tokens, self._fitting))

    def prepare(self, parts: Sequence[MicroBatch]) -> None:
        """Have layers run twice where a row that goes alone is longer than what fits."""
        if self._fitting is not None and max(part.batch.labels.numel() for part in parts) > self._fitting:
            self._fitting = None  # not asked again
            if self._run_twice():
                say("the memory is short; each layer of the model runs twice in training and keeps nothing in between")

    def shrink(self, parts: Sequence[MicroBatch], *, rows_together: int | None) -> bool:
        """Take less memory from here on, after ``parts`` did not fit; return whether that is possible.

        Args:
            parts: of the step that failed.
            rows_together: rows that a part has to have at least; None: all of the step's.
        """
        memory.give_back()
        if rows_together is not None and max(len(part.batch.labels) for part in parts) > rows_together:
            self.tokens = max(1, min(self.tokens, max(part.batch.labels.numel() for part in parts)) // 2)
            how = f"with {self.tokens} tokens at a time"
        elif self._run_twice():
            how = "with layers that run twice"
        else:
            return False
        say(f"memory ran out; training goes on {how} (the step is taken again)")
        return True

    def restore(self) -> None:
        """Let layers run once again."""
        for layer in self._twice:
            layer.gradient_checkpointing = False
        self._twice = []

    def _run_twice(self) -> bool:
        """Have each layer keep its inputs alone for the backward pass; return whether any can and did not yet."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        before = len(self._twice)
        for layer in self.model.modules():
            # What transformers' own switch does, whose name changed between versions.
            if isinstance(layer, GradientCheckpointingLayer) and not layer.gradient_checkpointing:
                vars(layer)["_gradient_checkpointing_func"] = partial(checkpoint, use_reentrant=False)
                layer.gradient_checkpointing = True
                self._twice.append(layer)
        return len(self._twice) > before


def activation_bytes(model: Any) -> float | None:
    """Return about how many bytes a token leaves for the backward pass; None where the model does not tell its sizes."""
    if not hasattr(getattr(model, "config", None), "get_text_config"):
        return None
    config = model.config.get_text_config()
    layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if not isinstance(layers, int) or not isinstance(width, int):
        return None
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    return float(layers * model.dtype.itemsize * (10 * width + 4 * inner))


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that is free on a device or, on a CPU, for this process; None where the system cannot tell."""
    if device.type != "cpu":
        return memory.free_bytes(device)
    try:
        psutil: Any = import_module("psutil")
    except ImportError:  # which comes with accelerate and peft
        return None
    return min([int(psutil.virtual_memory().available), *_free_in_groups()])


def _free_in_groups() -> list[int]:
    """Return what the control groups of this process leave it, such as a container's limit."""
    free = []
    for folder in folders("memory"):
        for limit, used in LIMITS:
            try:
                most, taken = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
            except (OSError, ValueError):  # no such file, or "max"
                continue
            free.append(max(0, min(most, most - taken + _given_back(folder))))
    return free


def _given_back(folder: Path) -> int:
    """Return what a control group counts as used and gives back when it is short: copies of files that were read once."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        numbers = {name: int(number) for name, number in map(str.split, lines)}
    except (OSError, ValueError):
        return 0
    return numbers.get("total_inactive_file", numbers.get("inactive_file", 0))
