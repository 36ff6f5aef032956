"""Critical tokens: find the token that ruins a solution, and align against it (cDPO; Lin et al., 2024)."""

from __future__ import annotations

from harness import Method, hookimpl


@hookimpl
def harness_methods() -> list[type[Method]]:
    """Offer scores of tokens."""
    from harness_critical_tokens.score_method import Score

    return [Score]
