"""A plugin of one method and one task, as a third party would write it."""

from __future__ import annotations

from pathlib import Path

from harness import Method, hookimpl


@hookimpl
def harness_methods() -> list[type[Method]]:
    """Offer the temperature."""
    from harness_temperature.method import Temperature

    return [Temperature]


@hookimpl
def harness_task_folders() -> list[Path]:
    """Offer the rhymes."""
    return [Path(__file__).parent / "tasks"]
