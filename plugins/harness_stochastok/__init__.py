"""StochasTok: fine-tune on text whose tokens are randomly split into smaller ones (Sims et al., 2025)."""

from __future__ import annotations

from pathlib import Path

from harness import Method, hookimpl


@hookimpl
def harness_methods() -> list[type[Method]]:
    """Offer StochasTok."""
    from harness_stochastok.method import StochasTok

    return [StochasTok]


@hookimpl
def harness_task_folders() -> list[Path]:
    """Offer the tasks that belong to this method alone."""
    return [Path(__file__).parent / "tasks"]
