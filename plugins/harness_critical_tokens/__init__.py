"""Critical tokens: find the token that ruins a solution, and align against it (cDPO; Lin et al., 2024)."""

from __future__ import annotations

from pathlib import Path

from harness import Method, hookimpl


@hookimpl
def harness_methods() -> list[type[Method]]:
    """Offer rollouts, pairs of a model's own solutions, scores of tokens, and preference learning that weighs tokens by them."""
    from harness_critical_tokens.cdpo_method import CDPO
    from harness_critical_tokens.find import Find
    from harness_critical_tokens.pairs import MakePairs
    from harness_critical_tokens.score_method import Score

    return [Find, MakePairs, Score, CDPO]


@hookimpl
def harness_task_folders() -> list[Path]:
    """Offer the tasks on planted errors."""
    return [Path(__file__).parent / "tasks"]
