"""How well clusters agree with labels, whatever they are called: V-measure, by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import HarnessError
from harness.metrics.packages import needed


def v_measure(gold: Sequence[Any], clusters: Sequence[Any]) -> dict[str, float]:
    """Return ``homogeneity``, ``completeness`` and their harmonic mean ``v_measure``, each 0 to 1 (Rosenberg, Hirschberg, 2007).

    Args:
        gold: (N,) labels.
        clusters: (N,) what was found.

    Raises:
        HarnessError: the lists are empty, or of unequal lengths.
    """
    if not len(gold) or len(gold) != len(clusters):
        raise HarnessError(
            f"V-measure takes a label and a cluster for each text; there are {len(gold)} and {len(clusters)}"
        )
    library = needed("sklearn.metrics", by="V-measure")
    homogeneity, completeness, v = library.homogeneity_completeness_v_measure(list(gold), list(clusters))
    return {"homogeneity": float(homogeneity), "completeness": float(completeness), "v_measure": float(v)}
