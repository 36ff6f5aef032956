"""A cell of a sweep is one ``harness eval`` command; a sweep is its cells and where they leave their records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.run.run import Run

KEY_LENGTH = 12


@dataclass(frozen=True)
class Cell:
    """One command.

    Attributes:
        run: what it evaluates; paths in it are relative to the folder of the sweep's file.
        axes: what tells it from the other cells of the sweep, by axis: ``{"scheme": "none", "seed": "0"}``.
        processes: how many evaluate it, each with its part of the documents.
    """

    run: Run
    axes: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1

    @cached_property
    def key(self) -> str:
        """What names it in the sweep's state: a digest of the command's words."""
        return _digest(self.run.words())

    @property
    def is_baseline(self) -> bool:
        """Whether it evaluates the untouched model."""
        return self.run.plugin is None or self.run.method == "baseline"

    @cached_property
    def work(self) -> str | None:
        """What cells have in common that need the same work of a method, such as a training; None where there is none."""
        run = self.run
        if self.is_baseline:
            return None
        return _digest([self.base, run.plugin, run.method, dict(run.method_args), run.seeds[0]])

    @cached_property
    def base(self) -> str:
        """What cells have in common that begin with the same loaded model."""
        run = self.run
        return _digest([run.model, dict(run.model_args), run.quantization, run.device, run.batch_size])

    @property
    def title(self) -> str:
        """What tells it from the others, on one line: ``scheme=none seed=0``."""
        return " ".join(f"{name}={value}" for name, value in self.axes.items()) or self.key


@dataclass(frozen=True)
class Sweep:
    """What a sweep's file says.

    Attributes:
        file: absolute.
        output: where records go, absolute; a cell's own output folder is this one or below it.
        cells: no two with the same key, in the order in which they are to be done.
        engines: what is said of each engine, by its name: ``{"slurm": {"partition": "gpu"}}``.
        root: where its commands are given, absolute, where that is not the file's folder.
        merged: how many cells of the file were the same command as another.
        notes: sentences, with file and line, on what in the file has no effect.
    """

    file: Path
    output: Path
    cells: tuple[Cell, ...]
    engines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    root: Path | None = None
    merged: int = 0
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its commands are given: the paths in them begin there."""
        return self.root or self.file.parent

    @cached_property
    def by_key(self) -> dict[str, Cell]:
        """Its cells by key."""
        return {cell.key: cell for cell in self.cells}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:KEY_LENGTH]
