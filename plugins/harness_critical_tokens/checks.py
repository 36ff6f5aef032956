"""What the methods share before weights are read: names of files, checks of options, digests of inputs."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import HarnessError
from harness.methods.options import check_least
from harness.models.identity import digest_files
from harness.names import printable

SCORES = "scores.jsonl"
# Weights that are made of what adapters say; the others of the base's probabilities, of the pair, or of nothing.
NEEDS_ADAPTERS = frozenset({"contrastive", "log_ratio", "permuted", "permuted_log_ratio", "positive"})
MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """What ``score`` and ``cdpo`` have in common: how responses are read and the two adapters made that score them.

    Options:
        train_file: pairs to train the scoring adapters on; by default those of pairs_file.
        adapters: a folder with positive/ and negative/ of an earlier run (its artefacts/), instead of training.
        contrast: how far the negative model counts, 0 or more; 0 gives the positive model's probability.
        contrast_steps: optimiser steps of each scoring adapter.
        contrast_learning_rate: peak of AdamW's rate.
        contrast_batch_size: responses per step.
        contrast_rank: of both scoring adapters.
        contrast_alpha: of both scoring adapters; the update is scaled by alpha / rank.
        contrast_modules: linear layers to adapt, as names joined by +, or all-linear.
        max_length: most tokens of prompt and response; pairs with a longer one are dropped and counted; by default what the
            model takes (the paper: 1023).
        chat: put prompts into the tokenizer's chat template.
    """

    train_file: Path | None = None
    adapters: Path | None = None
    contrast: float = 1.0
    contrast_steps: int = 300
    contrast_learning_rate: float = 3e-4
    contrast_batch_size: int = 4
    contrast_rank: int = 8
    contrast_alpha: float = 16.0
    contrast_modules: tuple[str, ...] = MLP
    max_length: int | None = None
    chat: bool = False


def check_scoring(options: Any) -> None:
    """Raise ``ValueError`` for values of the options that ``score`` and ``cdpo`` share which no run could use."""
    check_least(options, contrast=0, contrast_steps=0, contrast_batch_size=1, contrast_rank=1, max_length=2)
    check_positive(options, "ratio_scale", "contrast_learning_rate", "contrast_alpha")
    if not math.isfinite(options.contrast):
        raise ValueError(f"contrast is {options.contrast}; it has to be a finite number")
    if not options.contrast_modules:
        raise ValueError("contrast_modules is empty; name layers, or all-linear")


def check_positive(options: Any, *names: str) -> None:
    """Raise ``ValueError`` for the first of some numbers that is not above 0 and finite."""
    for name in names:
        if not 0 < getattr(options, name) < math.inf:
            raise ValueError(f"{name} is {getattr(options, name)}; it has to be more than 0")


def digest_of_inputs(*parts: str | Path | None) -> str:
    """Return the SHA-256 over digests and the content of files and folders; None counts as not given.

    Raises:
        HarnessError: there is nothing at a path.
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            if not part.exists():
                raise HarnessError(f"no file or folder at '{printable(part)}'")
            files = [part] if part.is_file() else sorted(file for file in part.rglob("*") if file.is_file())
            part = digest_files(files, below=part if part.is_dir() else part.parent)
        total.update(f"{part}\n".encode())
    return total.hexdigest()
