"""Accuracy on a scale where 0 is guessing."""


def above_chance(accuracy: float, options: int) -> float:
    """Return ``(accuracy * N - 1) / (N - 1)`` for N options: 1 is perfect, 0 is guessing, below 0 is worse than it.

    The rule is linear, so the mean over questions of one N equals the rule applied to their mean accuracy.
    """
    return (accuracy * options - 1) / (options - 1)
