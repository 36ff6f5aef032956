"""The untouched model as cells of their own: once for each model, quantization, tasks and settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from harness.run.run import Run
from harness.sweeps.cell import Cell

# Fields of a run that decide no score: what differs in these alone writes the same records.
DECIDES_NOTHING = ("batch_size", "device", "log_samples", "no_cache", "timeout_task", "confirm_run_unsafe_code")
_DEFAULTS: dict[str, Any] = {part.name: part.default for part in fields(Run) if part.name in DECIDES_NOTHING}


def what_decides(run: Run) -> tuple[str, ...]:
    """Return the words of a run without those that decide no score."""
    return tuple(replace(run, **_DEFAULTS).words())


def untouched(run: Run, *, needs_plugin: bool) -> Run:
    """Return the run of the untouched model on the same tasks; the plugin stays where it brings one of them."""
    plugin, method = (run.plugin, "baseline") if needs_plugin else (None, None)
    return replace(run, plugin=plugin, method=method, method_args={}, no_cache=False)


def with_baselines(
    cells: Sequence[Cell],
    *,
    brings_tasks: Callable[[Run], bool],
    depends_on_seed: Callable[[Run], bool],
    dropped: frozenset[str],
) -> list[Cell]:
    """Return cells with those of the untouched model before them, each with the first seed that a method's has.

    Where a seed draws the examples of a prompt, each seed asks other prompts, and has a cell of the untouched model.

    Args:
        brings_tasks: whether the plugin of a run brings one of its tasks.
        depends_on_seed: whether the untouched model's prompts depend on its seed.
        dropped: the axes that say nothing of the untouched model.
    """
    found: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        if cell.is_baseline:
            continue
        run = untouched(cell.run, needs_plugin=brings_tasks(cell.run))
        shots = run.seeds[3] if depends_on_seed(run) else None
        kept = {
            name: value
            for name, value in cell.axes.items()
            if name not in dropped and (name != "seed" or shots is not None)
        }
        key = what_decides(replace(run, seeds=(None, None, None, shots)))
        found.setdefault(key, replace(cell, run=run, axes={"method": "baseline", **kept}))
    return [*found.values(), *cells]


def without_repeats(cells: Sequence[Cell], *, depends_on_seed: Callable[[Run], bool]) -> list[Cell]:
    """Return cells without those of the same command, and of the untouched model without those that only a seed tells apart.

    The untouched model gives the same answers whatever the seed, unless it draws them or the prompts: its cells would write
    one another's records.
    """
    kept: dict[Any, Cell] = {}
    for cell in cells:
        of_seed = not cell.is_baseline or depends_on_seed(cell.run)
        key = cell.key if of_seed else tuple(replace(cell.run, seeds=(None, None, None, None)).words())
        kept.setdefault(key, cell)
    return list({cell.key: cell for cell in kept.values()}.values())


def first_clash(cells: Sequence[Cell]) -> tuple[Cell, Cell, str] | None:
    """Return two cells that would write the same records, and the name of what differs; None where there are none."""
    seen: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        other = seen.setdefault(what_decides(cell.run), cell)
        if other is not cell:
            return other, cell, next(n for n in DECIDES_NOTHING if getattr(other.run, n) != getattr(cell.run, n))
    return None
