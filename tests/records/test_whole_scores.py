"""Scores of two things a document: V-measure as scikit-learn has it, what each document adds, and bootstrapped errors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from embedding_golden import rows

from harness.records import aggregation, bounds, whole_scores


def test_v_measure_is_that_of_the_golden_file() -> None:
    """Property 15: within 1e-9."""
    for case in rows("golden_clustering"):
        values = list(zip(case["gold"], case["clusters"], strict=True))
        assert whole_scores.v_measure(values) == pytest.approx(case["v_measure"], abs=1e-9)
        order = np.random.default_rng(0).permutation(len(values))
        assert whole_scores.v_measure([values[n] for n in order]) == pytest.approx(case["v_measure"], abs=1e-12)


def test_v_measure_of_one_label_or_cluster() -> None:
    assert whole_scores.v_measure([("a", 1), ("a", 1)]) == 1.0
    assert whole_scores.v_measure([("a", 1), ("b", 1)]) == 0.0
    assert whole_scores.v_measure([("a", 5), ("b", 9), ("b", 9)]) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["spearman", "v_measure"])
def test_leaving_each_document_out_at_once_is_leaving_it_out(name: str) -> None:
    draw = np.random.default_rng(1)
    values = [(int(a), int(a + b)) for a, b in draw.integers(0, 5, (40, 2))]
    entry = aggregation.AGGREGATIONS[name]
    assert entry.score is not None and entry.without is not None
    expected = [entry.score(values[:n] + values[n + 1 :]) for n in range(len(values))]
    np.testing.assert_allclose(entry.without(values), expected, atol=1e-12)
    added, score, named = aggregation.document_values([list(value) for value in values], name, None)
    assert named == name and score == pytest.approx(entry.score(values))
    np.testing.assert_allclose(added, [40 * score - 39 * one for one in expected], atol=1e-9)


def test_many_pairs_are_left_out_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).standard_normal((30, 2)).tolist()
    whole = whole_scores.spearman_without(values)
    monkeypatch.setattr(whole_scores, "MOST_AT_ONCE", 100)
    np.testing.assert_array_equal(whole_scores.spearman_without(values), whole)


def test_errors_of_a_rank_correlation_are_those_of_scipy() -> None:
    """Section 7: a seeded bootstrap of 200 draws; scipy's of 2,000 lies within its noise, and so does the jackknife."""
    draw = np.random.default_rng(3)
    first = draw.standard_normal(150)
    pairs = np.stack([first, first + draw.standard_normal(150)], axis=1)
    values = [tuple(pair) for pair in pairs.tolist()]
    ours = whole_scores.bootstrapped_error(whole_scores.spearman, values)
    assert ours == whole_scores.bootstrapped_error(whole_scores.spearman, values)
    theirs = scipy.stats.bootstrap(
        tuple(pairs.T), lambda x, y: scipy.stats.spearmanr(x, y).statistic, n_resamples=500, paired=True,
        vectorized=False, method="percentile", rng=np.random.default_rng(0),
    ).standard_error  # fmt: skip
    assert ours == pytest.approx(theirs, rel=0.2)
    added, _, _ = aggregation.document_values([list(value) for value in values], "spearman", None)
    assert aggregation.standard_error(added.tolist()) == pytest.approx(theirs, rel=0.2)


def test_a_draw_without_a_score_gives_no_error() -> None:
    with pytest.raises(ValueError, match="draws of the documents have no score"):
        whole_scores.bootstrapped_error(whole_scores.spearman, [(1.0, 2.0), (3.0, 4.0), (5.0, 1.0)])


def test_what_such_scores_can_be() -> None:
    assert bounds.bounds("cosine_spearman", "spearman") == (-1.0, 1.0)
    assert bounds.bounds("v", "v_measure") == bounds.bounds("ndcg_at_10") == bounds.SHARE
    assert bounds.bounds("loss", "mean") is None
