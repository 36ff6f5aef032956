"""Decoding by what the last layer adds to an early one, after DoLa (Chuang et al., 2024)."""

from pathlib import Path

from harness import Method, hookimpl
from harness.tasks import whole_set
from harness_contrastive.diversity import distinct_2

whole_set.add("contrastive.distinct_2", distinct_2)


@hookimpl
def harness_methods() -> list[type[Method]]:
    """Offer the contrast."""
    from harness_contrastive.method import ContrastLayers

    return [ContrastLayers]


@hookimpl
def harness_task_folders() -> list[Path]:
    """Offer the task that measures how diverse texts are."""
    return [Path(__file__).parent / "tasks"]
