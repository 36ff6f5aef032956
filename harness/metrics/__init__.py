"""Metrics over whole sets of answers: correlations of similarities, rankings of documents, clusters of texts."""

from harness.metrics.clusters import v_measure
from harness.metrics.correlation import pearson, spearman
from harness.metrics.rankings import ranking
from harness.metrics.similarities import similarities

__all__ = ["pearson", "ranking", "similarities", "spearman", "v_measure"]
